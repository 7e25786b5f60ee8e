"""Airflow's mask, which a field holds instead of a secret if it was saved from a masked form."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MASK = re.compile(r"\*+")
#: What stands before the host of a URL.
_USER_INFO = re.compile(r"://([^/\s]*)@")


def is_mask(value: object) -> bool:
    """Whether a value is what Airflow shows in place of a secret."""
    return isinstance(value, str) and _MASK.fullmatch(value.strip()) is not None


def holds_mask(value: object) -> bool:
    """Whether a field is Airflow's mask, or has it before the host of a URL."""
    if isinstance(value, Mapping):
        return any(map(holds_mask, value.values()))
    return is_mask(value) or (isinstance(value, str) and any("***" in found for found in _USER_INFO.findall(value)))
