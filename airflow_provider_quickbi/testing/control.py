"""Controls a simulator over HTTP, for tests and benchmarks in other processes and other languages.

``POST /_local/<name>`` with a JSON object calls the method of that name of
:class:`~airflow_provider_quickbi.testing.LocalQuickBI` (or of a part of it, such as ``clock.advance``) with these
parameters, or reads the property, and responds ``{"result": ...}``. Times are ISO 8601 strings; a fault is an object
``{"make": "throttled", "with": {"retry_after_ms": 1500}}`` that names a method of ``Fault``, or what
``Fault.as_json()`` returns. A mistake gives 400, an unknown name 404, and ``{"error": "..."}``. Only callers on this
machine are served.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.controls import member
from airflow_provider_quickbi.testing.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_quickbi.testing.server import LocalQuickBI

CONTROL_PREFIX: Final = "/_local/"
#: What the server itself has.
_OWN: Final = ("connection", "connections_opened", "reset")
_FAULT_MAKERS: Final = frozenset(
    name for name, maker in vars(Fault).items() if isinstance(maker, staticmethod) and name != "from_json"
)


async def respond_to_control(quickbi: LocalQuickBI, request: web.BaseRequest) -> web.Response:
    """Carry out a request under ``/_local/``."""
    if not _is_local(request.remote):
        return _say(403, error="The control interface serves callers on this machine only.")
    if request.method != "POST" or request.content_type != "application/json":
        return _say(405, error="Send POST with the content type application/json.")
    name = request.path.removeprefix(CONTROL_PREFIX)
    try:
        arguments = json.loads(await request.read() or b"{}")
        if not isinstance(arguments, dict):
            raise ValueError("the body must be a JSON object")
        if name == "drop_connections":
            return _say(200, result=await quickbi.drop_connections_but(request.protocol))
        found = _find(quickbi, name)
        if found is None:
            return _say(404, error=f"{name} is not a control.")
        return _say(200, result=_plain(_call(found, arguments) if callable(found) else found))
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0]) if error.args else repr(error)
        return _say(400, error=reason, kind="KeyError" if isinstance(error, KeyError) else "ValueError")


def _find(quickbi: LocalQuickBI, name: str) -> Any:
    if name not in _OWN:
        try:
            member(name)
        except KeyError:
            return None
    found: Any = quickbi
    for attribute in name.split("."):
        found = getattr(found, attribute)
    return found


def _call(method: Callable[..., object], arguments: dict[str, Any]) -> object:
    several = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.kind is parameter.VAR_POSITIONAL
    ]
    if not several:
        inspect.signature(method).bind(**arguments)
        return method(**arguments)
    faults = [make_fault(fault) for fault in arguments.pop(several[0], ())]
    return method(arguments.pop("action", None), *faults, **arguments)


def make_fault(data: Mapping[str, Any]) -> Fault:
    """Read a fault that was sent as JSON.

    :raises ValueError: there is no such fault.
    """
    if "make" not in data:
        return Fault.from_json(data)
    if data["make"] not in _FAULT_MAKERS:
        raise ValueError(f"There is no fault {data['make']!r}; there are {', '.join(sorted(_FAULT_MAKERS))}.")
    maker: Callable[..., Fault] = getattr(Fault, data["make"])
    return maker(**data.get("with", {}))


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Call():
            return value.as_json()
        case dict():
            return {"*" if key is None else key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case str() | int() | float() | None:
            return value
    return None  # a rule of faults


def _is_local(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False


def _say(status: int, **body: object) -> web.Response:
    return web.json_response(body, status=status)
