"""Alibaba Cloud's own packages, imported on first use and kept from logging.

Importing them takes half a second, and they add handlers to their loggers, which write whole requests and responses,
secrets included.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_PACKAGES = ("/alibabacloud_", "/darabonba/", "/Tea/")
_LOGGERS = ("darabonba-core", "alibabacloud-tea", "credentials")


class _NotFromVendor(logging.Filter):
    """Drops records of Alibaba Cloud's packages; others may use a logger of the same name."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = record.pathname.replace("\\", "/")
        return not any(package in path for package in _PACKAGES)


class _NotForCredentials(logging.Filter):
    """Drops urllib3's DEBUG records while credentials are fetched: their URLs contain tokens."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the caller decides, not the record
        frame = sys._getframe()  # noqa: SLF001 - the documented way to inspect callers
        while (caller := frame.f_back) is not None:
            frame = caller
            if "/alibabacloud_credentials/" in frame.f_code.co_filename.replace("\\", "/"):
                return False
        return True


def _import_quietly(name: str) -> ModuleType:
    loggers = [logging.getLogger(logger) for logger in _LOGGERS]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    module = import_module(name)
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        for handler in logger.handlers[:]:
            if handler not in handlers:
                logger.removeHandler(handler)
        logger.setLevel(level)
        if not any(isinstance(known, _NotFromVendor) for known in logger.filters):
            logger.addFilter(_NotFromVendor())
    return module


@cache
def signing() -> ModuleType:
    """Return ``alibabacloud_tea_openapi.utils``, the vendor's implementation of the V3 signature."""
    return _import_quietly("alibabacloud_tea_openapi.utils")


@cache
def credentials() -> ModuleType:
    """Return ``alibabacloud_credentials.client``, the vendor's credential providers."""
    logging.getLogger("urllib3.connectionpool").addFilter(_NotForCredentials())
    return _import_quietly("alibabacloud_credentials.client")
