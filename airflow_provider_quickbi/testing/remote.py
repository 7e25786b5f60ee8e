"""Controls a simulator that runs in another process, with the methods that :class:`LocalQuickBI` has."""

from __future__ import annotations

import http.client
import inspect
import json
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.controls import PARTS, Controls, member
from airflow_provider_quickbi.testing.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from airflow_provider_quickbi.testing.clock import Clock

#: How results are read that are not plain JSON.
_READ: dict[str, Callable[[Any], Any]] = {
    "calls": lambda calls: [Call(**call) for call in calls],
    "calls_per_second": lambda rates: {None if action == "*" else action: rate for action, rate in rates.items()},
    **dict.fromkeys(
        ("clock.advance", "clock.freeze", "clock.now", "clock.set", "clock.unfreeze"), datetime.fromisoformat
    ),
}


class RemoteQuickBI(Controls):
    """A simulator in another process, seen through its control interface.

    It has the methods and properties of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`, except those that take
    callables (``when_called``, ``register``, faults that choose): they cannot travel to another process.

    :param url: the address that the simulator printed, such as ``http://127.0.0.1:8765``.
    :param timeout: how many seconds a response may take; default 10.
    :param ssl_context: a client-side context for an https address.
    :raises ValueError: the address is not an http or https one.
    """

    clock: Clock

    def __init__(self, url: str, *, timeout: float = 10.0, ssl_context: SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"The address of a simulator looks like http://127.0.0.1:8765, got {url!r}.")
        self.url = url.rstrip("/")
        self.scheme: str = parts.scheme
        self.host: str = parts.hostname
        self.port: int = parts.port or (443 if parts.scheme == "https" else 80)
        self._timeout = timeout
        self._ssl_context = ssl_context

    def connection(self, **extra: object) -> dict[str, Any]:
        """Return the Airflow connection to the simulator, with fields of its extra."""
        connection: dict[str, Any] = self.post("connection", {})
        return connection | {"host": self.host, "port": self.port, "schema": self.scheme, "extra": extra}

    def connection_json(self, **extra: object) -> str:
        """Return :meth:`connection` as JSON text, the value for ``AIRFLOW_CONN_QUICKBI_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    @property
    def connections_opened(self) -> int:
        """How many connections clients have opened; control connections do not count."""
        return int(self.post("connections_opened", {}))

    def drop_connections(self) -> int:
        """Close every open connection of a client; returns how many were open."""
        return int(self.post("drop_connections", {}))

    def reset(self) -> None:
        """Start afresh."""
        self.post("reset", {})

    def __getattr__(self, name: str) -> Any:
        """Return a part, or a method or property of one, that acts on the other process."""
        if name in PARTS:
            return _RemotePart(self, name)
        return _resolve(self, name)

    def post(self, name: str, arguments: dict[str, object]) -> Any:
        """Call a method or read a property; see :mod:`airflow_provider_quickbi.testing.control`.

        :raises KeyError: as the method does.
        :raises ValueError: as the method does, or because there is no such name.
        """
        with closing(self._connect()) as connection:
            body = json.dumps({key: _named(value) for key, value in arguments.items()}, default=_write)
            connection.request("POST", f"/_local/{name}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = json.loads(response.read())
        if response.status != 200:
            raise (KeyError if content.get("kind") == "KeyError" else ValueError)(content["error"])
        return _READ[name](content["result"]) if name in _READ else content["result"]

    def _connect(self) -> http.client.HTTPConnection:
        if self.scheme == "https":
            return http.client.HTTPSConnection(self.host, self.port, timeout=self._timeout, context=self._ssl_context)
        return http.client.HTTPConnection(self.host, self.port, timeout=self._timeout)


class _RemotePart:
    """A part of a simulator in another process, such as its clock."""

    __slots__ = ("_part", "_quickbi")

    def __init__(self, quickbi: RemoteQuickBI, part: str) -> None:
        self._quickbi = quickbi
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return _resolve(self._quickbi, f"{self._part}.{name}")


def _resolve(quickbi: RemoteQuickBI, name: str) -> Any:
    """Return the value of a property, or a function that calls a method."""
    try:
        found = member(name)
    except KeyError:
        raise AttributeError(f"RemoteQuickBI has no attribute {name!r}") from None
    if not callable(found):
        return quickbi.post(name, {})

    def call(*args: object, **kwargs: object) -> Any:
        bound = inspect.signature(found).bind(None, *args, **kwargs).arguments
        changes = bound.pop("changes", {})
        return quickbi.post(name, {key: value for key, value in {**bound, **changes}.items() if key != "self"})

    return call


def _named(value: object) -> object:
    """Return limits in a form whose keys are texts."""
    return {key or "*": item for key, item in value.items()} if isinstance(value, dict) else value


def _write(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Fault():
            return value.as_json()
    raise TypeError(f"{value!r} cannot be sent to a simulator in another process.")
