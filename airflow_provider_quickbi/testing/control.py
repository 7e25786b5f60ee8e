"""Controls a simulator over HTTP, for tests and benchmarks in other processes and other languages.

Every path is ``/_local/<name>``. It is answered to callers on this machine only. A ``POST`` takes a JSON object (with
the content type ``application/json``) whose members are the parameters of the method of the same name of
:class:`~airflow_provider_quickbi.testing.LocalQuickBI`, and answers ``{"result": ...}``; times are ISO 8601 strings.
A mistake is answered with 400, an unknown name with 404, and ``{"error": "..."}``.

================================  ====================================================================================
``POST`` path                     parameters
================================  ====================================================================================
``/_local/add_mail_task``         name, mail_id, owner, owner_id, paused, run_duration, run_appears_after, run_outcome,
                                  refuse_while_running -> the MailId
``/_local/remove_mail_task``      mail_id
``/_local/set_paused``            mail_id, paused
``/_local/add_run``               mail_id, exec_time, status, duration, outcome, appears_after -> the TaskId as a string
``/_local/finish_run``            task_id, status
``/_local/add_schedule``          mail_id, every, cron, times, first, duration, appears_after, outcome
``/_local/set_manual_start``      mail_id, duration, appears_after, outcome, refuse_while_running
``/_local/limit_manual_starts``   mail_id, calls, minutes, announced_minutes, language
``/_local/refuse_manual_start``   mail_id, code, times
``/_local/add_account``           access_key_id, access_key_secret, security_token, active, visible_mail_ids, ...
``/_local/change_account``        access_key_id and what changes
``/_local/add_bearer_token``      token, access_key_id, expires_at
``/_local/deny``                  code, action, mail_id, access_key_id, message, access_denied_detail
``/_local/allow``                 action, access_key_id
``/_local/limit_calls``           calls_per_second: a number, null, or an object in which ``"*"`` is every other
                                  operation
``/_local/fail``                  action, faults, times, probability, mail_id, seed; a fault is either an object
                                  ``{"make": "throttled", "with": {"retry_after_ms": 1500}}`` that names a method of
                                  ``Fault``, or what ``Fault.as_json()`` returns
``/_local/clear_faults``
``/_local/drop_connections``      -> how many were open
``/_local/clock``                 one of advance (seconds), set (time), freeze (time or null), unfreeze (true),
                                  skew (seconds); or nothing -> now, frozen, skew
``/_local/count``                 action, code -> number of calls
``/_local/mails_sent``            mail_id, origin -> number
``/_local/starts``                mail_id -> number
``/_local/runs``                  mail_id -> the runs
``/_local/reset``
================================  ====================================================================================

``GET`` answers ``/_local/state``, ``/_local/mail_tasks``, ``/_local/counters``, ``/_local/calls`` (with ``?after=N``
only the calls with a higher number), ``/_local/connection`` and ``/_local/connections_opened``.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from airflow_provider_quickbi.testing.faults import Fault

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.limits import CallsPerSecond
    from airflow_provider_quickbi.testing.server import LocalQuickBI

CONTROL_PREFIX: Final = "/_local/"

_SAME_NAME: Final = frozenset(
    {
        "add_account",
        "add_bearer_token",
        "add_mail_task",
        "add_run",
        "add_schedule",
        "allow",
        "change_account",
        "clear_faults",
        "count",
        "deny",
        "finish_run",
        "limit_manual_starts",
        "mails_sent",
        "refuse_manual_start",
        "remove_mail_task",
        "reset",
        "runs",
        "set_manual_start",
        "set_paused",
        "starts",
    }
)
_FAULT_MAKERS: Final = frozenset(
    name for name, member in vars(Fault).items() if isinstance(member, staticmethod) and name != "from_json"
)


async def answer_control(quickbi: LocalQuickBI, request: web.BaseRequest) -> web.Response:
    """Answer a request under ``/_local/``.

    :param quickbi: what to control.
    :param request: the request.
    """
    if not _is_local(request.remote):
        return _say(403, error="The control interface answers callers on this machine only.")
    name = request.path.removeprefix(CONTROL_PREFIX)
    if request.method == "GET":
        return _answer_get(quickbi, name, request)
    if request.method != "POST" or request.content_type != "application/json":
        return _say(405, error="Send POST with the content type application/json, or GET.")
    try:
        arguments = json.loads(await request.read() or b"{}")
    except ValueError as error:
        return _say(400, error=f"The body is not JSON: {error}")
    if not isinstance(arguments, dict):
        return _say(400, error="The body must be a JSON object.")
    action = _find_action(quickbi, name, request)
    if action is None:
        return _say(404, error=f"There is nothing called {name} to control.")
    try:
        result = action(arguments)
        return _say(200, result=await result if isinstance(result, Awaitable) else result)
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0]) if error.args else repr(error)
        return _say(400, error=reason, kind="KeyError" if isinstance(error, KeyError) else "ValueError")


def make_fault(data: Mapping[str, Any]) -> Fault:
    """Read a fault that was sent as JSON.

    :param data: ``{"make": <method of Fault>, "with": {<its parameters>}}``, or what ``Fault.as_json()`` returns.
    :raises ValueError: there is no such fault.
    """
    if "make" not in data:
        return Fault.from_json(data)
    if data["make"] not in _FAULT_MAKERS:
        raise ValueError(f"There is no fault {data['make']!r}; there are {', '.join(sorted(_FAULT_MAKERS))}.")
    maker: Callable[..., Fault] = getattr(Fault, data["make"])
    return maker(**data.get("with", {}))


def limits_from_json(calls_per_second: Mapping[str, float] | float | None) -> CallsPerSecond:
    """Read limits that were sent as JSON, where ``"*"`` stands for every other operation."""
    if isinstance(calls_per_second, Mapping):
        return {None if action == "*" else action: rate for action, rate in calls_per_second.items()}
    return calls_per_second


def _find_action(
    quickbi: LocalQuickBI, name: str, request: web.BaseRequest
) -> Callable[[dict[str, Any]], object] | None:
    if name in _SAME_NAME:
        method = getattr(quickbi, name)

        def call(arguments: dict[str, Any]) -> object:
            inspect.signature(method).bind(**arguments)
            return method(**arguments)

        return call
    if name == "drop_connections":
        return lambda _: quickbi.drop_connections_but(request.protocol)
    if name == "fail":
        return lambda arguments: _fail(quickbi, **arguments)
    if name == "clock":
        return lambda arguments: _move_clock(quickbi, **arguments)
    if name == "limit_calls":
        return lambda arguments: quickbi.limit_calls(limits_from_json(**arguments))
    return None


def _fail(quickbi: LocalQuickBI, action: str | None = None, faults: Any = (), **options: Any) -> None:
    quickbi.fail(action, *[make_fault(fault) for fault in faults], **options)


def _move_clock(quickbi: LocalQuickBI, **moves: Any) -> dict[str, object]:
    clock = quickbi.clock
    for move, value in moves.items():
        match move:
            case "advance":
                clock.advance(value)
            case "set":
                clock.set(value)
            case "freeze":
                clock.freeze(value)
            case "unfreeze":
                clock.unfreeze()
            case "skew":
                clock.skew = value
            case _:
                raise ValueError(f"A clock cannot {move}; it can advance, set, freeze, unfreeze and skew.")
    return {"now": clock.now().isoformat(), "frozen": clock.frozen, "skew": clock.skew}


def _answer_get(quickbi: LocalQuickBI, name: str, request: web.BaseRequest) -> web.Response:
    match name:
        case "state":
            return _say(200, result=quickbi.state())
        case "mail_tasks":
            return _say(200, result=quickbi.mail_tasks())
        case "counters":
            return _say(200, result=quickbi.counters())
        case "calls":
            after = request.query.get("after", "0")
            if not after.isdigit():
                return _say(400, error=f"after must be the number of a call, got {after!r}.")
            return _say(200, result=[call.as_json() for call in quickbi.calls if call.number > int(after)])
        case "connection":
            return _say(200, result=quickbi.connection())
        case "connections_opened":
            return _say(200, result=quickbi.connections_opened)
        case _:
            return _say(404, error=f"There is nothing called {name} to read.")


def _is_local(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False


def _say(status: int, **body: object) -> web.Response:
    return web.json_response(body, status=status)
