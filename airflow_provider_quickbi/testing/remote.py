"""Controls a simulator that runs in another process, with the methods that :class:`LocalQuickBI` has."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.control import MISTAKES, PARTS, PREFIX, decode, encode
from airflow_provider_quickbi.testing.datasets import DatasetStore
from airflow_provider_quickbi.testing.server import LocalQuickBI

if TYPE_CHECKING:
    from ssl import SSLContext

_CLASSES: dict[str, type] = {"": LocalQuickBI, "clock": Clock, "datasets": DatasetStore}


class RemoteQuickBI:
    """A simulator in another process.

    It has the methods and properties of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`, of its ``clock`` and
    of its ``datasets``, except those that take callables (``when_called``, ``register``, faults that choose): they
    cannot travel to another process. They raise what they raise there.

    :param url: the address that the simulator printed, such as ``http://127.0.0.1:8765``.
    :param timeout: how many seconds a response may take.
    :param ssl_context: a client-side context for an https address.
    :raises ValueError: the address is not an http or https one.
    """

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
        there: dict[str, Any] = self.post("connection", (), extra)
        return there | {"host": self.host, "port": self.port, "schema": self.scheme}

    def connection_json(self, **extra: object) -> str:
        """Return :meth:`connection` as JSON text, the value for ``AIRFLOW_CONN_QUICKBI_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def __getattr__(self, name: str) -> Any:
        """Return a part, a method that acts on the other process, or the value of a property there."""
        return _Part(self, name) if name in PARTS else getattr(_Part(self, ""), name)

    def post(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call a method or read a property; see :mod:`airflow_provider_quickbi.testing.control`."""
        body = encode({"args": args, "kwargs": kwargs})
        with closing(self._connect()) as connection:
            connection.request("POST", f"{PREFIX}{name}", body, {"Content-Type": "application/json"})
            content = decode(connection.getresponse().read())
        if "error" in content:
            mistake, text = content["error"]
            raise MISTAKES[mistake](text)
        return content["result"]

    def _connect(self) -> http.client.HTTPConnection:
        if self.scheme == "https":
            return http.client.HTTPSConnection(self.host, self.port, timeout=self._timeout, context=self._ssl_context)
        return http.client.HTTPConnection(self.host, self.port, timeout=self._timeout)


class _Part:
    """A simulator in another process, or a part of it such as its clock."""

    __slots__ = ("_part", "_quickbi")

    def __init__(self, quickbi: RemoteQuickBI, part: str) -> None:
        self._quickbi = quickbi
        self._part = part

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"RemoteQuickBI has no attribute {name!r}")
        path = f"{self._part}.{name}" if self._part else name
        if callable(getattr(_CLASSES[self._part], name, None)):
            return lambda *args, **kwargs: self._quickbi.post(path, args, kwargs)
        return self._quickbi.post(path, (), {})
