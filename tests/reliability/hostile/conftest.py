"""A Quick BI and its clients, for hostile input."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_quickbi.testing import LocalQuickBI

from .inputs import BothClients, both_clients, settings_for


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that this process connects to."""
    addresses: list[Any] = []
    connect = socket.socket.connect

    def record(self: socket.socket, address: Any) -> None:
        addresses.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return addresses


@pytest.fixture(scope="module")
def server() -> Iterator[LocalQuickBI]:
    with LocalQuickBI() as quickbi:
        yield quickbi


@pytest.fixture(scope="module")
def clients(server: LocalQuickBI) -> Iterator[BothClients]:
    with both_clients(settings_for(server)) as both:
        yield both
