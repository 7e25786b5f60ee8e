"""Conditions under which users run this, and the suite can: ``CONDITIONS=proxies`` or ``CONDITIONS=database``.

``proxies``: variables name proxies that do not respond, and none excludes loopback. ``database``: Airflow finds
connections in its metadata database only, as most people keep them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

#: What the suite runs under; empty for a plain machine.
CONDITIONS = os.environ.get("CONDITIONS", "")
if CONDITIONS not in ("", "proxies", "database"):
    raise pytest.UsageError(f"CONDITIONS must be proxies or database, not {CONDITIONS!r}")

PREFIX = "AIRFLOW_CONN_"
#: Nothing listens here; a request that goes through it fails at once.
CLOSED = "http://127.0.0.1:1"


def set_proxies(patch: pytest.MonkeyPatch) -> None:
    """Let every client that reads the environment use a proxy that does not respond."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        patch.setenv(name, CLOSED)


class ConnectionsInDatabase(pytest.MonkeyPatch):  # type: ignore[misc]  # final, but the only way
    """A ``monkeypatch`` that puts connections into the metadata database instead of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, str | None] = {}

    def setenv(self, name: str, value: str, prepend: str | None = None) -> None:
        """Set a variable, or store a connection."""
        if name.startswith(PREFIX):
            self._change(name, value)
        else:
            super().setenv(name, value, prepend)

    def delenv(self, name: str, raising: bool = True) -> None:
        """Remove a variable, or a connection."""
        if name.startswith(PREFIX):
            self._change(name, None)
        else:
            super().delenv(name, raising)

    def undo(self) -> None:
        """Undo every change."""
        super().undo()
        for name, value in self._before.items():
            _store(name, value)
        self._before.clear()

    def _change(self, name: str, value: str | None) -> None:
        before = _store(name, value)
        self._before.setdefault(name, before)


def _store(name: str, value: str | None) -> str | None:
    """Store a connection as its variable would describe it, and return what was stored before."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    conn_id = name.removeprefix(PREFIX).lower()
    with create_session() as session:
        found = session.query(Connection).filter(Connection.conn_id == conn_id).one_or_none()
        before = None if found is None else found.as_json()
        if found is not None:
            session.delete(found)
            session.flush()
        if value is not None:
            session.add(_read(conn_id, value))
    return before


def _read(conn_id: str, value: str) -> Any:
    from airflow.models.connection import Connection

    if value.startswith("{"):
        return Connection.from_json(value, conn_id=conn_id)
    return Connection(conn_id=conn_id, uri=value)
