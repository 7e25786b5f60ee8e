"""Every sentence about a wait: pure functions of its state and the time."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_quickbi.api.errors import QuickBIError, ThrottledError, TransientError

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitState
    from airflow_provider_quickbi.api.models import Run

#: What a wait is doing while Quick BI wants fewer calls.
RATE_LIMITED = "Rate limited; backing off."
#: A matching run that started this many seconds before the first poll may have had earlier ones in the window.
_LONG_AGO = 300.0
#: The zone in which a sibling operation documents its times.
_DOCUMENTED_ZONE, _DOCUMENTED_OFFSET = "Asia/Shanghai", timedelta(hours=8)


def describe(wait: WaitState, now: float) -> str:
    """Say in a sentence what a wait is doing; the sentence changes only when something has changed."""
    return f"{wait.title}: {_state(wait, now)}"


def first_poll(wait: WaitState) -> str:
    """Say after the first successful poll which run is waited for, why, and whether the latest run matches."""
    latest = wait.run or wait.ignored_run
    words = wait.subject.words
    if latest is None:
        visible = f"Quick BI shows no {words.run}."
    else:
        verb = "matches" if wait.run else "does not match"
        visible = f"The latest {words.run} {named(latest)} is {latest.status} and {verb}."
    text = f"{wait.title}: waiting for {selection(wait)}{_because(wait)}. {visible}"
    run, windowed = wait.run, wait.selector.executed_after is not None
    if run is not None and windowed and wait.since - run.started_at.timestamp() > _LONG_AGO:
        text += (
            f" Quick BI shows only the latest {words.run}: earlier {words.runs} in the window, if any, cannot be seen."
        )
    return text


def selection(wait: WaitState) -> str:
    """Say which run a wait is for."""
    selector, words = wait.selector, wait.subject.words
    if selector.run_id is not None:
        return f"the {words.run} with {words.run_id} {selector.run_id}"
    if selector.is_open:
        return f"the latest {words.run}, whatever its age"
    bounds = []
    if selector.executed_after is not None:
        bounds.append(f"at or after {selector.executed_after.isoformat()}")
    if selector.executed_before is not None:
        bounds.append(f"before {selector.executed_before.isoformat()}")
    text = f"a {words.run} started {' and '.join(bounds)}" if bounds else f"a {words.run}"
    if selector.other_than:
        text += f" other than {', '.join(selector.other_than[:3])}{', ...' if len(selector.other_than) > 3 else ''}"
    return text


def _because(wait: WaitState) -> str:
    return f" ({wait.window_reason})" if wait.window_reason else ""


def seen(wait: WaitState, run: Run) -> str:
    """Say that the run has succeeded, or that it was seen."""
    return f"{wait.title}: {wait.subject.words.run} {named(run)} is {run.status}."


def failed(wait: WaitState, run: Run) -> str:
    """Say that the run has finished without success, what that means, and where to look."""
    words = wait.subject.words
    return f"{wait.title}: {words.run} {named(run)} is {run.status}: {words.failed}"


def missed(wait: WaitState, latest: Run) -> str:
    """Say that a run in the window, if there was one, can no longer be seen."""
    words = wait.subject.words
    return (
        f"{wait.title}: waiting for {selection(wait)}{_because(wait)}, but the latest {words.run} is "
        f"{named(latest)}, {latest.status}, after the window. Quick BI shows only the latest {words.run}, so a "
        f"{words.run} in the window can no longer be seen. {words.missed}"
    )


def superseded(wait: WaitState, latest: Run) -> str:
    """Say that a later run hides the one that is waited for."""
    words = wait.subject.words
    known = (
        f"{named(wait.run)} was {wait.run.status} when last seen"
        if wait.run
        else f"{wait.selector.run_id} has finished"
    )
    return (
        f"{wait.title}: {words.run} {known}, and {named(latest)} has started since. Quick BI shows only the latest "
        f"{words.run}, so it is not known how the earlier one ended. See the {words.subject}'s log in the Quick BI "
        "console."
    )


def window_over(wait: WaitState) -> str:
    """Say that no run has started in the window, and none can any more."""
    noun, ignored = wait.subject.words.run, wait.ignored_run
    latest = f"The latest {noun} is {named(ignored)}." if ignored else f"Quick BI shows no {noun}."
    return f"{wait.title}: no {noun} started in the window: waited for {selection(wait)}{_because(wait)}. {latest}"


def not_started(wait: WaitState, now: float) -> str:
    """Say that no run has started in time."""
    return (
        f"{wait.title}: waited for {selection(wait)}, and none started within start_timeout "
        f"({seconds(wait.start_timeout)}). {_state(wait, now)}"
    )


def timed_out(wait: WaitState, now: float) -> str:
    """Say that the run was not finished in time, and what it was doing."""
    return f"{wait.title}: timed out after {_timeout(wait)}. {_state(wait, now)}"


def not_polled_at_timeout(wait: WaitState) -> str:
    """Say that the last poll before the timeout failed, so that nothing is known."""
    return (
        f"{wait.title}: timed out after {_timeout(wait)}, and the last poll failed. This says nothing "
        f"about the {wait.subject.words.result}. Last error: {wait.error}"
    )


def unavailable(wait: WaitState, now: float) -> str:
    """Say that Quick BI could not be reached for too long."""
    outage = now - (now if wait.unreachable_since is None else wait.unreachable_since)
    return (
        f"{wait.title}: Quick BI was unreachable for {seconds(outage)} (unreachable_timeout). This says "
        f"nothing about the {wait.subject.words.result}. Last error: {wait.error}"
    )


def wrong_timezone(wait: WaitState, run: Run, now: float) -> str:
    """Say that the time of the run cannot be right, and which time zone would fit.

    :param run: dated in the future, or whole half-hours before this task started it.
    """
    words = wait.subject.words
    expected = now if wait.start_requested_at is None else wait.start_requested_at
    off = run.started_at.timestamp() - expected
    if run.started_at.timestamp() > now:
        off, relation = run.started_at.timestamp() - now, "in the future"
    else:
        relation = "before this task started it"
    return (
        f"{wait.title}: {words.run} {named(run)} is dated {abs(off) / 3600:.1f} h {relation}. Quick BI writes "
        f"{words.started_at} in another time zone than the connection's timezone (UTC{signed(_offset(run))}), or this "
        "machine's clock is wrong. "
        f"{_fitting_zone(run, off, expected, wait)}"
    )


def _fitting_zone(run: Run, off: float, expected: float, wait: WaitState) -> str:
    wall = run.started_at.replace(tzinfo=UTC).timestamp()
    documented = wall - _DOCUMENTED_OFFSET.total_seconds()
    if documented <= expected + wait.clock_skew and run.started_at.utcoffset() != _DOCUMENTED_OFFSET:
        return f"Set timezone to {_DOCUMENTED_ZONE} in the connection: the run then started at {at(documented)}."
    rounded = timedelta(seconds=round(off / 1800) * 1800)
    if not rounded:
        return "Correct the clock, or set clock_skew."
    return f"Set timezone in the connection to a zone with the offset UTC{signed(_offset(run) + rounded)}."


def _offset(run: Run) -> timedelta:
    return run.started_at.utcoffset() or timedelta(0)


def signed(offset: timedelta) -> str:
    """Return an offset from UTC as text."""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _state(wait: WaitState, now: float) -> str:
    if isinstance(wait.error, TransientError):
        return f"Poll failed, retrying: {_reason(wait.error)}"
    if isinstance(wait.error, ThrottledError):
        return RATE_LIMITED
    if wait.error is not None:
        return f"Quick BI deferred the request: {_reason(wait.error)}"
    words = wait.subject.words
    if wait.run is not None:
        odd = "" if wait.run.status in wait.run.DOCUMENTED else ", an undocumented status, treated as unfinished"
        return f"{words.run.capitalize()} {named(wait.run)} is {wait.run.status}{odd}."
    if now < wait.polls_from:
        return f"No poll before executed_after, {at(wait.polls_from)}."
    if wait.ignored_run is not None:
        return f"No matching {words.run} yet; the latest is {named(wait.ignored_run)}, {wait.ignored_run.status}."
    if wait.other_subject_id is not None:
        return (
            f"Quick BI returned {words.runs} of other {words.subject}s, such as {wait.other_subject_id!r}, and none of "
            "this one."
        )
    return f"No {words.run} yet."


def _reason(error: QuickBIError) -> str:
    """Return what an error says without its RequestId, which is another one each time."""
    same = copy(error)
    same.request_id = ""
    return str(same)


def named(run: Run) -> str:
    """Name a run by its id and when it started."""
    return f"{run.run_id} of {run.started_at.isoformat()}"


def seconds(duration: float | None) -> str:
    """Return a duration as text."""
    return "never" if duration is None else f"{duration:,.0f} s"


def _timeout(wait: WaitState) -> str:
    return seconds(None if wait.finish_by is None else wait.finish_by - wait.since)


def at(instant: float) -> str:
    """Return an instant, in seconds since the epoch, as text."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="seconds")
