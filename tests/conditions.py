"""Conditions under which users run this, and the suite can: ``CONDITIONS=proxies`` or ``CONDITIONS=database``.

``proxies``: variables name proxies that do not respond, and none excludes loopback. ``database``: Airflow finds
connections in its metadata database only, as most people keep them.
"""

from __future__ import annotations

import json
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
        self._stored: set[str] = set()

    def setenv(self, name: str, value: str, prepend: str | None = None) -> None:
        """Set a variable, or store a connection."""
        if name.startswith(PREFIX):
            try:
                return self._store(name, value)
            except ValueError:  # Airflow stores no extra that is not JSON; the environment may hold one
                pass
        return super().setenv(name, value, prepend)

    def delenv(self, name: str, raising: bool = True) -> None:
        """Remove a variable, or a connection."""
        if name.startswith(PREFIX):
            self._store(name, None)
        else:
            super().delenv(name, raising)

    def undo(self) -> None:
        """Undo every change; no connection was there before."""
        super().undo()
        for name in list(self._stored):
            self._store(name, None)

    def _store(self, name: str, value: str | None) -> None:
        """Store a connection as its variable describes it, or remove it."""
        from airflow.models.connection import Connection
        from airflow.utils.session import create_session

        conn_id = name.removeprefix(PREFIX).lower()
        self._stored.add(name)
        with create_session() as session:
            session.query(Connection).filter(Connection.conn_id == conn_id).delete()
            if value is not None:
                session.add(Connection(conn_id=conn_id, **_parts(value)))


def _parts(value: str) -> dict[str, Any]:
    if not value.startswith("{"):
        return {"uri": value}
    parts: dict[str, Any] = json.loads(value)
    return parts | ({"extra": json.dumps(parts["extra"])} if isinstance(parts.get("extra"), dict) else {})
