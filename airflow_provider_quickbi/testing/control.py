"""Controls a simulator over HTTP: what the server does with ``POST /_local/<name>``, and how both sides write JSON.

``<name>`` is a method or property of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`, or of its ``clock`` or
``datasets`` (``clock.advance``); the body is ``{"args": [...], "kwargs": {...}}``, the response ``{"result": ...}``, or
``{"error": [class, text]}``. Only callers on this machine are served.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.exchange import in_thread
from airflow_provider_quickbi.testing.faults import Fault

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.server import LocalQuickBI

PREFIX: Final = "/_local/"
PARTS: Final = ("clock", "datasets")
#: Mistakes of the caller, which are raised at its side.
MISTAKES: Final = {mistake.__name__: mistake for mistake in (AttributeError, KeyError, TypeError, ValueError)}
_CLASSES: Final[dict[str, type[Call | Fault]]] = {"Call": Call, "Fault": Fault}


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
            content = {known.name: getattr(value, known.name) for known in fields(value)}
            return {f"${type(value).__name__}": content}
    raise TypeError(f"{value!r} cannot be sent to a simulator in another process.")


def decode(text: str | bytes) -> Any:
    """Read what :func:`encode` wrote."""
    return json.loads(text, object_hook=_read)


def _read(value: dict[str, Any]) -> Any:
    kind = next(iter(value), "")
    content = value.get(kind, {})
    match kind:
        case "$datetime":
            return datetime.fromisoformat(content)
        case "$bytes":
            return content.encode("latin-1")
        case "$Call" | "$Fault":
            return _CLASSES[kind[1:]](**content)
    return value


async def respond_to_control(quickbi: LocalQuickBI, request: web.BaseRequest) -> web.Response:
    """Carry out a request under ``/_local/``."""
    if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 - nobody known
        return _say(403, error=["ValueError", "Only callers on this machine can control it."])
    if request.method != "POST" or request.content_type != "application/json":
        return _say(405, error=["ValueError", "Send POST with the content type application/json."])
    try:
        order = decode(await request.read())
        found = _find(quickbi, request.path.removeprefix(PREFIX))
        result = await in_thread(found, *order["args"], **order["kwargs"]) if callable(found) else found
        return _say(200, result=result)
    except tuple(MISTAKES.values()) as error:
        return _say(400, error=[type(error).__name__, str(error.args[0]) if error.args else repr(error)])


def _find(quickbi: LocalQuickBI, name: str) -> Any:
    part, _, attribute = name.rpartition(".")
    if part not in ("", *PARTS) or attribute.startswith("_") or attribute in ("start", "stop"):
        raise AttributeError(f"LocalQuickBI has no attribute {name!r} for other processes.")
    return getattr(getattr(quickbi, part) if part else quickbi, attribute)


def _say(status: int, **body: object) -> web.Response:
    return web.Response(status=status, text=encode(body), content_type="application/json")
