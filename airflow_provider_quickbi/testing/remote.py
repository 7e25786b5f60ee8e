"""Controls a simulator over HTTP: what the server does with ``POST /_local/<name>``, and the client for it.

``<name>`` is a method or property of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`, or of its ``clock`` or
``datasets`` (``clock.advance``); the body is ``{"args": [...], "kwargs": {...}}``, the response ``{"result": ...}`` or
``{"error": [class, text]}``. Only callers on this machine are served.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from aiohttp import web

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.datasets import DatasetStore
from airflow_provider_quickbi.testing.exchange import in_thread
from airflow_provider_quickbi.testing.faults import Fault

if TYPE_CHECKING:
    from ssl import SSLContext

    from airflow_provider_quickbi.testing.server import LocalQuickBI

PREFIX: Final = "/_local/"
PARTS: Final[dict[str, type]] = {"clock": Clock, "datasets": DatasetStore}
#: Mistakes of the caller, which are raised at its side.
MISTAKES: Final = {mistake.__name__: mistake for mistake in (AttributeError, KeyError, TypeError, ValueError)}


def encode(value: object) -> str:
    """Write JSON in which times, bytes, faults and calls are objects ``{"$kind": ...}``."""
    return json.dumps(value, default=_write)


def _write(value: object) -> dict[str, Any]:
    match value:
        case datetime():
            return {"$datetime": value.isoformat()}
        case bytes():
            return {"$bytes": value.decode("latin-1")}
        case Fault() | Call():
            return {f"${type(value).__name__}": {known.name: getattr(value, known.name) for known in fields(value)}}
    raise TypeError(f"{value!r} cannot be sent to a simulator in another process.")


def decode(text: str | bytes) -> Any:
    """Read what :func:`encode` wrote."""
    return json.loads(text, object_hook=_read)


def _read(value: dict[str, Any]) -> Any:
    match value:
        case {"$datetime": content}:
            return datetime.fromisoformat(content)
        case {"$bytes": content}:
            return content.encode("latin-1")
        case {"$Fault": content}:
            return Fault(**content)
        case {"$Call": content}:
            return Call(**content)
    return value


async def respond_to_control(quickbi: LocalQuickBI, request: web.BaseRequest) -> web.Response:
    """Carry out a request under ``/_local/``."""
    local = ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback  # noqa: S104 - nobody known
    if not local or request.method != "POST" or request.content_type != "application/json":
        return web.Response(status=403, text="POST JSON from this machine.")
    try:
        order = decode(await request.read())
        found = _find(quickbi, request.path.removeprefix(PREFIX))
        content = {"result": await in_thread(found, *order["args"], **order["kwargs"]) if callable(found) else found}
    except tuple(MISTAKES.values()) as error:
        mistake = next(name for name, known in MISTAKES.items() if isinstance(error, known))
        content = {"error": [mistake, str(error.args[0]) if error.args else ""]}
    return web.Response(text=encode(content), content_type="application/json")


def _find(quickbi: LocalQuickBI, name: str) -> Any:
    part, _, attribute = name.rpartition(".")
    if part not in ("", *PARTS) or attribute.startswith("_") or attribute in ("start", "stop"):
        raise AttributeError(f"LocalQuickBI has no attribute {name!r} for other processes.")
    return getattr(getattr(quickbi, part) if part else quickbi, attribute)


class RemoteQuickBI:
    """A simulator in another process of this machine.

    It has the methods and properties of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`, of its ``clock`` and
    of its ``datasets``, except those that take callables (``when_called``, ``register``, faults that choose): they
    cannot travel to another process. They raise what they raise there.

    :param url: the address that the simulator printed, such as ``http://127.0.0.1:8765``.
    :param timeout: how many seconds a response may take.
    :param ssl_context: a client-side context for an https address.
    :raises ValueError: the address is not an http or https one.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, ssl_context: SSLContext | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The address of a simulator looks like http://127.0.0.1:8765, got {url!r}.")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=ssl_context))

    def __getattr__(self, name: str) -> Any:
        """Return a part, a method that acts on the other process, or the value of a property there."""
        return _Part(self, name) if name in PARTS else getattr(_Part(self, ""), name)

    def post(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Call a method or read a property."""
        body = encode({"args": args, "kwargs": kwargs}).encode()
        request = Request(self.url + PREFIX + name, body, {"Content-Type": "application/json"})  # noqa: S310 - http(s)
        with self._opener.open(request, timeout=self._timeout) as response:
            content = decode(response.read())
        if "error" in content:
            mistake, text = content["error"]
            raise MISTAKES[mistake](text)
        return content["result"]


@dataclass(slots=True)
class _Part:
    """A simulator in another process, or a part of it such as its clock."""

    _quickbi: RemoteQuickBI
    _part: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"RemoteQuickBI has no attribute {name!r}")
        path = f"{self._part}.{name}".lstrip(".")
        from airflow_provider_quickbi.testing.server import LocalQuickBI

        if callable(getattr(PARTS.get(self._part, LocalQuickBI), name, None)):
            return lambda *args, **kwargs: self._quickbi.post(path, args, kwargs)
        return self._quickbi.post(path, (), {})
