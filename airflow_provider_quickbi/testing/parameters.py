"""Reads parameters of requests and writes pages of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.testing.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def is_int64(text: str) -> bool:
    """Whether a text is a whole number of at most 19 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 19


def read_number(params: Mapping[str, str], name: str, default: int) -> int:
    """Return a parameter that is a number from 1.

    :raises Refusal: it is none.
    """
    value = params.get(name)
    if value is None or value == "":
        return default
    if not is_int64(value) or int(value) < 1:
        raise Refusal("Invalid.Parameter", f"The parameter {name} must be a number from 1, got {value!r}.")
    return int(value)


def write_page(items: Sequence[object], number: int, size: int) -> dict[str, Any]:
    """Return one page of a result."""
    begin = (number - 1) * size
    return {
        "PageNum": number,
        "PageSize": size,
        "TotalNum": len(items),
        "TotalPages": -(-len(items) // size),
        "Data": list(items[begin : begin + size]),
    }
