"""What responses say about what the vendor does not document: exchanges in, a line and a behaviour out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_quickbi._check.report import failed, ok, skipped, warning
from airflow_provider_quickbi._wait.messages import signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_quickbi._check.behaviour import EmptyResponse
    from airflow_provider_quickbi._check.exchange import Exchange
    from airflow_provider_quickbi._check.report import Finding
    from airflow_provider_quickbi.api.models import MailTaskRun

Learnt = dict[str, Any]

#: Seconds by which a run may be in the future because of clocks that differ.
TOLERANCE = 120.0
#: Zones are a whole number of these apart.
_QUARTER = 900
#: Documented fields and the JSON types in which they are understood.
_RUN_FIELDS: Mapping[str, tuple[type, ...]] = {
    "exectime": (str,),
    "mailid": (str, int),
    "status": (str,),
    "taskid": (int, str),
}
_TASK_FIELDS: Mapping[str, tuple[type, ...]] = {
    "mailid": (str, int),
    "paused": (bool, str),
    "bizowneruserid": (str, int),
    "bizownername": (str,),
    "subscribename": (str,),
}
_REPORT = "Record this account with --record and report it, so the provider can support it"
#: Zones to propose, the likeliest first.
_ZONES = (
    "UTC",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Asia/Jakarta",
    "Asia/Dubai",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
)


def response_fields(lists: Sequence[Exchange], statuses: Sequence[Exchange]) -> tuple[Finding, Learnt]:
    """Compare keys and types with the documented ones.

    :param lists: exchanges of ``GetMailTaskList``.
    :param statuses: exchanges of ``GetMailTaskStatus``.
    """
    name = "response fields"
    tasks = [item for exchange in lists for item in data_of(exchange)]
    runs = [item for exchange in statuses for item in items_of(exchange)]
    learnt: Learnt = {}
    if runs:
        learnt["status_keys"] = tuple(str(key) for key in runs[0])
        ids = [value for run in runs for key, value in run.items() if str(key).lower() == "taskid"]
        if ids:
            learnt["task_id_type"] = "string" if isinstance(ids[0], str) else "integer"
        padded = [value for run in runs for key, value in run.items() if str(key).lower() == "status"]
        learnt["status_padding"] = next((v[len(v.rstrip()) :] for v in padded if isinstance(v, str)), "")
    wrong = _wrong_fields("mail task", tasks, _TASK_FIELDS, {"mailid", "paused"})
    wrong += _wrong_fields("run", runs, _RUN_FIELDS, {"exectime", "status", "taskid"})
    extra = sorted(_extra(tasks, _TASK_FIELDS) | _extra(runs, _RUN_FIELDS))
    if wrong:
        return failed(name, "; ".join(wrong), _REPORT), learnt
    if not runs and not tasks:
        return skipped(name, "no mail task and no run was seen"), learnt
    note = f"; not documented: {', '.join(extra)}" if extra else ""
    return ok(name, f"keys and types as documented in {len(tasks)} mail task(s) and {len(runs)} run(s){note}"), learnt


def runs_per_response(statuses: Sequence[Exchange]) -> tuple[Finding, Learnt]:
    """Say how many runs a response holds, and in which order.

    :param statuses: exchanges of ``GetMailTaskStatus`` without a TaskId.
    """
    name = "runs per response"
    lists = [items_of(exchange) for exchange in statuses]
    most = max((len(items) for items in lists), default=0)
    if not most:
        return skipped(name, "no response held a run"), {}
    learnt: Learnt = {"runs_per_response": most}
    if most == 1:
        return ok(name, "one, the latest"), learnt
    order = _order([[_text(run, "exectime") for run in items] for items in lists if len(items) > 1])
    learnt["order"] = order
    return ok(name, f"up to {most}, {order.replace('_', ' ')}; the newest by execTime counts"), learnt


def empty_response(name: str, exchange: Exchange, requested: str = "") -> tuple[Finding, EmptyResponse]:
    """Say what the service responds where there is no run.

    :param exchange: the query for a task that never ran, or for a TaskId that does not exist.
    :param requested: the TaskId that does not exist; empty for the latest run.
    """
    if exchange.code:
        shape: EmptyResponse = {"code": exchange.code}
        seen = f"Code {exchange.code}"
        if requested:
            return ok(name, f"{seen}: a wait for a wrong TaskId fails at once"), shape
        remedy = "Let the task run once before a sensor waits for its first run; a wait fails with this Code until then"
        return warning(name, seen, remedy), shape
    items = items_of(exchange)
    if not items and exchange.status is not None:
        result = exchange.result
        seen = "Result is null" if result is None else "an empty list"
        return ok(name, f"{seen}: read as no run yet"), {"result": None if result is None else []}
    if requested and items and all(_text(run, "taskid") != requested for run in items):
        seen = "another run, although a TaskId was given"
        return ok(name, f"{seen}: ignored, since only the requested TaskId counts"), {"result": "latest"}
    return (
        warning(name, "a run whose fields are null", "A wait treats Quick BI as unreachable until the first run "
                "appears: let the task run once, or raise unreachable_timeout"),
        {"result": "null fields"},
    )  # fmt: skip


def execution_zone(runs: Sequence[MailTaskRun], now: float, zone: str) -> Finding:
    """Say whether the newest run lies in the future, which only a wrong time zone explains.

    :param runs: as they were read with the connection's zone.
    :param now: seconds since the epoch.
    :param zone: the connection's ``timezone``.
    """
    name = "timezone"
    if not runs:
        return skipped(name, "no run was seen", "--send compares the time of a new run")
    newest = max(run.exec_time for run in runs)
    ahead = newest.timestamp() - now
    if ahead <= TOLERANCE:
        return ok(name, f"no run lies in the future with {zone}", "Only --send, or a run during --watch, can prove it")
    shift = -(-int(ahead - TOLERANCE) // _QUARTER) * _QUARTER
    offset = (newest.utcoffset() or timedelta(0)) + timedelta(seconds=shift)
    return failed(
        name,
        f"the newest run lies {_hours(ahead)} in the future: execTime is not written in {zone}",
        f"Set timezone in the connection to a zone at least {_hours(shift)} further east, such as "
        f"{zone_for(offset, now)}; --send proves which",
    )


def zone_by_comparison(run: MailTaskRun, earliest: float, latest: float, zone: str) -> tuple[Finding, Learnt]:
    """Say in which zone ``execTime`` is written, from a run whose start is known.

    :param run: as it was read with the connection's zone.
    :param earliest: seconds since the epoch before which it cannot have started.
    :param latest: when it had appeared.
    :param zone: the connection's ``timezone``.
    """
    name = "timezone"
    read = run.exec_time.timestamp()
    shifts = sorted(range(-16 * 3600, 16 * 3600 + 1, _QUARTER), key=abs)
    fitting = [shift for shift in shifts if earliest - TOLERANCE <= read - shift <= latest + TOLERANCE]
    if not fitting:
        return warning(name, "execTime of the new run fits no time zone", _REPORT), {}
    shift = fitting[0]
    offset = (run.exec_time.utcoffset() or timedelta(0)) + timedelta(seconds=shift)
    if shift == 0:
        return ok(name, f"execTime is written in {zone} (UTC{signed(offset)}), by the run that was started"), {
            "timezone": signed(offset)
        }
    proposed = zone_for(offset, latest)
    return (
        failed(
            name,
            f"execTime of the run that was started is {_hours(shift)} off: it is written in UTC{signed(offset)}, "
            f"not in {zone}",
            f"Set timezone in the connection to {proposed}, or to the zone of your organisation with that offset",
        ),
        {"timezone": signed(offset)},
    )


def zone_for(offset: timedelta, now: float) -> str:
    """Return an IANA name of a zone that has an offset at an instant."""
    moment = datetime.fromtimestamp(now, UTC)
    for name in _ZONES:
        if moment.astimezone(ZoneInfo(name)).utcoffset() == offset:
            return name
    hours = round(offset.total_seconds() / 3600)
    return f"Etc/GMT{-hours:+d}" if timedelta(hours=hours) == offset else f"a zone of UTC{signed(offset)}"


def items_of(exchange: Exchange) -> list[Mapping[str, Any]]:
    """Return the runs of a response of ``GetMailTaskStatus`` as the service wrote them."""
    result = exchange.result
    items = [result] if isinstance(result, Mapping) else result
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def data_of(exchange: Exchange) -> list[Mapping[str, Any]]:
    """Return the mail tasks of a response of ``GetMailTaskList`` as the service wrote them."""
    result = exchange.result
    if not isinstance(result, Mapping):
        return []
    data = next((value for key, value in result.items() if str(key).lower() == "data"), None)
    return [item for item in data if isinstance(item, Mapping)] if isinstance(data, list) else []


def _wrong_fields(
    what: str, items: Sequence[Mapping[str, Any]], known: Mapping[str, tuple[type, ...]], required: set[str]
) -> list[str]:
    wrong: list[str] = []
    for item in items:
        folded = {str(key).lower(): value for key, value in item.items()}
        if all(value is None for value in folded.values()):
            continue  # a run that does not exist, which has a line of its own
        for name, types in known.items():
            value = folded.get(name)
            if value is None:
                if name in required:
                    wrong.append(f"a {what} has no {name}")
            elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                wrong.append(f"{name} of a {what} is {type(value).__name__}")
            elif name == "exectime" and not _is_time(str(value)):
                wrong.append(f"{name} of a {what} is not yyyy-MM-dd HH:mm:ss")
    return sorted(set(wrong))


def _extra(items: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> set[str]:
    return {str(key) for item in items for key in item if str(key).lower() not in known}


def _is_time(text: str) -> bool:
    try:
        datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - only its form
    except ValueError:
        return False
    return True


def _order(lists: Sequence[Sequence[str]]) -> str:
    if all(times == sorted(times, reverse=True) for times in lists):
        return "newest_first"
    return "oldest_first" if all(times == sorted(times) for times in lists) else "unordered"


def _text(item: Mapping[str, Any], name: str) -> str:
    return next((str(value) for key, value in item.items() if str(key).lower() == name), "")


def _hours(seconds: float) -> str:
    return f"{abs(seconds) / 3600:.2g} h"
