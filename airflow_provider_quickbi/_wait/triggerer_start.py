"""The start of a sensor's wait in the triggerer: render, read the connection, look names up, select the window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._options import Arguments
from airflow_provider_quickbi._wait import trigger_memory
from airflow_provider_quickbi._wait.codec import decode_group, encode_group
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.options import MAIL_TASK_NAMES, READERS
from airflow_provider_quickbi._wait.outlets import unrelated_outlets
from airflow_provider_quickbi._wait.placement import Ending, settled
from airflow_provider_quickbi._wait.rendering import render
from airflow_provider_quickbi._wait.shared_listing import list_mail_tasks
from airflow_provider_quickbi._wait.start import Limits, names_of, new_group, subjects_of, unreachable_seconds
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.exceptions import QuickBIUnavailable, task_error
from airflow_provider_quickbi.hooks.lookup import find_all
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import CONSOLE_URL_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_quickbi._wait.deferral import PollOptions
    from airflow_provider_quickbi._wait.options import SensorOptions
    from airflow_provider_quickbi._wait.state import WaitGroup
    from airflow_provider_quickbi._wait.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a sensor's wait starts with.

    :param kind: of its subject.
    :param arguments: the sensor's template fields.
    :param rendered: names of those that may be rendered to a list.
    :param timeout: seconds.
    :param silent_fail: whether only ``timeout`` ends an outage.
    :param poll: how it is polled; the connection is not known yet.
    """

    kind: str
    arguments: Mapping[str, Any]
    rendered: Sequence[str]
    timeout: float
    silent_fail: bool
    poll: PollOptions


class NameLookupTimeoutError(Exception):
    """Names could not be looked up for too long.

    :param since: when they were first looked up, seconds since the epoch.
    """

    def __init__(self, since: float) -> None:
        super().__init__("names could not be looked up")
        self.since = since


async def start_in_triggerer(start: Start, since: float, ti: Any, log: Any) -> tuple[WaitGroup, PollOptions]:
    """Start a wait as a worker does. On any error, a worker starts it again and reports the error.

    :param since: when it started, seconds since the epoch.
    :returns: a wait group that was not polled yet, and how to poll it.
    :raises NameLookupTimeoutError: if names could not be looked up for too long.
    :raises Exception: if the wait must start on a worker for another reason.
    """
    if ti.try_number > 1:
        await trigger_memory.clear_result(ti)
    context = ti.get_template_context()
    rendered = render(start.arguments, context)
    arguments = Arguments(SimpleNamespace(**rendered), rendered=frozenset(start.rendered))
    options = READERS[start.kind](arguments, _airflow.default_timezone())
    hook = QuickBIHook(rendered["quickbi_conn_id"])
    parsed = await hook.read_connection_async()
    await trigger_memory.push(ti, CONSOLE_URL_KEY, parsed.console_url or "")
    limits = Limits(
        since=since,
        timeout=start.timeout,
        unreachable_timeout=unreachable_seconds(options.unreachable_timeout, start.silent_fail),
        poke_interval=start.poll.poke_interval,
    )
    subjects = options.subjects
    if not all(subject.id for subject in subjects):
        subjects = tuple(await _look_up(hook, options, limits, log))
    if unrelated := unrelated_outlets(ti.task.outlets, subjects):
        raise ValueError(f"outlet {unrelated[0]} is of something else")
    group = new_group(options, subjects, limits, context, ti.task.dag, lambda: parsed.settings.timezone)
    several = arguments.names_several(*MAIL_TASK_NAMES)
    ending = settled(start.poll.ending, group, several=several, ended_before=ti.try_number > 1)
    options_of_poll = replace(start.poll, quickbi_conn_id=hook.quickbi_conn_id, ending=ending)
    if not await store(ti, group, options_of_poll):
        raise RuntimeError("XComs cannot be stored")
    return group, options_of_poll


async def store(ti: Any, group: WaitGroup, options: PollOptions) -> bool:
    """Store a wait, so that a recreated trigger need not start it again; return whether it is stored."""
    value = encode_group(group) | {"quickbi_conn_id": options.quickbi_conn_id, "ending": options.ending.value}
    return await trigger_memory.push(ti, trigger_memory.XCOM_KEY, value)


async def restore(start: Start, since: float, ti: Any) -> tuple[WaitGroup, PollOptions] | None:
    """Return a wait that an earlier trigger of this try has started, ``None`` if there is none.

    :param since: when it started, seconds since the epoch.
    """
    value = await trigger_memory.read(ti)
    try:
        group = decode_group(value)
        options = replace(start.poll, quickbi_conn_id=value["quickbi_conn_id"], ending=Ending(value["ending"]))
    except (KeyError, ValueError, TypeError):
        return None
    return (group, options) if all(wait.since == since for wait in group.waits) else None


async def _look_up(hook: QuickBIHook, options: SensorOptions, limits: Limits, log: Any) -> Sequence[Subject]:
    """Look names up as patiently as a status is polled; waits that start together share one list."""
    names, owner = names_of(options)
    wait_log, started = WaitLog(log), CLOCK.time()
    while True:
        try:
            async with hook.status_poller() as poller:
                return subjects_of(find_all(await list_mail_tasks(poller.client), names, owner, log))
        except QuickBIError as error:
            failure = task_error(error)
            now = CLOCK.time()
            if not isinstance(failure, QuickBIUnavailable):
                raise
            if now >= min(limits.finish_by, started + limits.unreachable_timeout):
                raise NameLookupTimeoutError(started) from None
            wait_log.report(f"{failure} Retrying the name lookup.", now)
        await CLOCK.sleep_async(limits.lookup_interval)
