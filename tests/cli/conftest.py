"""A check of a local Quick BI whose time is the simulator's, so that nothing sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi._check.checks import Checker, Options
from airflow_provider_quickbi._check.exchange import Clock
from airflow_provider_quickbi._check.report import Report
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI


def settings_for(quickbi: LocalQuickBI, **changes: Any) -> ClientSettings:
    settings = ClientSettings(
        endpoint=Endpoint(quickbi.host, quickbi.scheme, quickbi.port),
        credentials=CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret=quickbi.access_key_secret
        ),
        status_calls_per_second=1000.0,
        connect_timeout=2.0,
        read_timeout=5.0,
    )
    return replace(settings, **changes)


def clock_of(quickbi: LocalQuickBI, ahead: float = 0.0) -> Clock:
    """The simulator's time; whoever sleeps moves it. ``ahead``: seconds that this machine's clock seems to be ahead."""
    return Clock(
        time=quickbi.clock.time,
        wall=lambda: time.time() + ahead,
        sleep=lambda seconds: void(quickbi.clock.advance(seconds)),
    )


def void(_: Any) -> None:
    """Return nothing."""


Check = Callable[..., Report]


@pytest.fixture
def check() -> Check:
    def run(quickbi: LocalQuickBI, *, ahead: float = 0.0, resolve: Any = None, **options: Any) -> Report:
        known = {name: options.pop(name) for name in list(options) if name in Options.__dataclass_fields__}
        checker = Checker(
            settings_for(quickbi, **options), "access_key ***", Options(**known), clock_of(quickbi, ahead)
        )
        if resolve is not None:
            checker.resolve = resolve
        return checker.run()

    return run
