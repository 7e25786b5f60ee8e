"""Fixtures of these tests."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import LocalQuickBI

from .reading import VARIABLE, read


@pytest.fixture(scope="module", autouse=True)
def _airflow_has_warned() -> None:
    """Import what Airflow needs for connections once; it and its dependencies warn about each other."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("AIRFLOW_CONN_WARM_UP", '{"conn_type": "quickbi", "login": "the-id", "password": "the-secret"}')
        read(QuickBIHook("warm_up"), "blocking")
        read(QuickBIHook("warm_up"), "async")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not pause between attempts; the tests of the client cover the pauses."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda self, attempt, asked_for: 0.0)


@pytest.fixture
def hook(quickbi: LocalQuickBI, connection: Callable[..., None]) -> Iterator[QuickBIHook]:
    """A hook with the connection to the local Quick BI."""
    connection()
    with QuickBIHook() as made:
        yield made


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, quickbi: LocalQuickBI) -> Callable[..., None]:
    """Change the connection; parts are those of Airflow's JSON form."""

    def change(**parts: Any) -> None:
        usual = quickbi.connection(status_calls_per_second=1000)
        monkeypatch.setenv(VARIABLE, json.dumps({**usual, **parts}))

    return change


@pytest.fixture
def logged(hook: QuickBIHook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hook logs, whatever Airflow's logging does with it."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger = logging.getLogger("of this test")
    monkeypatch.setattr(logger, "handlers", [Keep()])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(hook, "_log", logger)
    return lines
