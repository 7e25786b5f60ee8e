"""The one decision: a wait's state, a response of Quick BI and the time give the next state and its outcome.

This is where a status becomes a task's success or failure, for all modes, for mail tasks and datasets, and for what
this provider has started.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi._wait.selector import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi._wait.state import (
    FUTURE_TOLERANCE,
    Evaluation,
    OnFailed,
    Outcome,
    WaitGroup,
    WaitState,
)
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    NotStartedError,
    QuickBIError,
    ThrottledError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_quickbi.api.models import Run

    Response = Sequence[Run] | QuickBIError | None

#: Errors after which polling again makes sense.
_RETRYABLE = (ThrottledError, TransientError, NotStartedError, AlreadyRunningError)
#: Time zones differ by whole multiples of this many seconds, but for a few quarter-hours.
_ZONE_STEP = 1800.0


def evaluate(wait: WaitState, response: Response, now: float) -> tuple[WaitState, Evaluation]:
    """Decide what a response means; the run's status is checked before any deadline.

    :param wait: what is waited for and what is known.
    :param response: the runs that Quick BI returned, the error, or ``None`` if nothing was queried.
    :returns: the wait with what was learnt, and what it means.
    """
    if isinstance(response, QuickBIError):
        if not isinstance(response, _RETRYABLE):
            return wait, Evaluation(Outcome.REFUSED, f"{wait.title}: {response}", wait.run, response)
        is_outage = isinstance(response, TransientError)
        since = wait.unreachable_since if wait.unreachable_since is not None else now
        wait = replace(wait, error=response, unreachable_since=since if is_outage else None)
    elif response is not None:
        if (misdated := misdated_run(wait, response, now)) is not None:
            return wait, Evaluation(Outcome.WRONG_TIMEZONE, messages.wrong_timezone(wait, misdated, now), misdated)
        wait = replace(_learn(wait, response), error=None, unreachable_since=None, polled=True)
        if (finished := _finished(wait) or _superseded(wait)) is not None:
            return wait, finished
        if wait.run is not None and wait.run.failed:
            wait = _wait_for_a_later_run(wait, wait.run, now)
        elif (closed := _window_closed(wait, now)) is not None:
            return wait, closed
    if (expired := _expired(wait, now)) is not None:
        return wait, expired
    return wait, Evaluation(Outcome.WAITING, messages.describe(wait, now), wait.run, wait.error)


def evaluate_group(group: WaitGroup, position: int, response: Response, now: float) -> WaitGroup:
    """Return a group after a response for one of its waits, see :func:`evaluate`."""
    return group.updated(position, *evaluate(group.waits[position], response, now))


def _learn(wait: WaitState, runs: Sequence[Run]) -> WaitState:
    own = [run for run in runs if run.subject_id == wait.subject.id]
    selector = wait.selector if wait.run is None else RunSelector(run_id=wait.run.run_id)
    selected = selector.select(own)
    if selected is not None:
        return replace(wait, run=selected, ignored_run=None, other_subject_id=None)
    newest = max(own, key=lambda run: run.age_order, default=None)
    if wait.run is not None:
        hidden = newest if newest is not None and newest.age_order > wait.run.age_order else None
        if hidden is None or wait.subject.shows_earlier_runs:
            return replace(wait, ignored_run=None, other_subject_id=None)
        if wait.selector.matches(hidden):  # the data is the newer for it
            return replace(wait, run=hidden, ignored_run=None, other_subject_id=None)
        return replace(wait, ignored_run=hidden, other_subject_id=None)
    return replace(
        wait,
        ignored_run=newest,
        other_subject_id=runs[0].subject_id if runs and not own else None,
    )


def misdated_run(wait: WaitState, runs: Sequence[Run], now: float) -> Run | None:
    """Return a run whose start proves that it was read in the wrong time zone."""
    tolerance = wait.clock_skew + FUTURE_TOLERANCE
    for run in runs:
        if run.subject_id != wait.subject.id:
            continue
        if run.started_at.timestamp() > now + tolerance:
            return run
        if wait.start_requested_at is None or wait.run is not None or run.run_id in wait.selector.other_than:
            continue
        # This run is new since the start, and a start takes seconds: whole half-hours are the time zone's.
        early = wait.start_requested_at - run.started_at.timestamp()
        if early > tolerance and abs(early - round(early / _ZONE_STEP) * _ZONE_STEP) <= tolerance:
            return run
    return None


def _finished(wait: WaitState) -> Evaluation | None:
    run = wait.run
    if run is None:
        return None
    if wait.until_seen:
        return Evaluation(Outcome.SEEN, messages.seen(wait, run), run)
    if run.succeeded:
        return Evaluation(Outcome.SUCCEEDED, messages.seen(wait, run), run)
    final = wait.on_failed is OnFailed.FAIL or wait.selector.run_id is not None
    if run.failed and final:
        return Evaluation(Outcome.FAILED, messages.failed(wait, run), run)
    return None


def _superseded(wait: WaitState) -> Evaluation | None:
    """Say so if a later run hides the one that is waited for, where the service shows only the latest."""
    latest, run = wait.ignored_run, wait.run
    if latest is None or wait.subject.shows_earlier_runs:
        return None
    if run is None and (wait.selector.run_id is None or latest.run_id in wait.selector.other_than):
        return None
    return Evaluation(Outcome.MISSED, messages.superseded(wait, latest), latest)


def _wait_for_a_later_run(wait: WaitState, failed: Run, now: float) -> WaitState:
    after = max(failed.started_at, wait.selector.executed_after or failed.started_at)
    other_than = (failed.run_id, *wait.selector.other_than)[:KNOWN_RUNS]
    return replace(
        wait,
        selector=replace(wait.selector, executed_after=after, other_than=other_than),
        run=None,
        ignored_run=failed,
        start_by_since=now,
    )


def _window_closed(wait: WaitState, now: float) -> Evaluation | None:
    """Say so if no run that matches can be seen any more."""
    if wait.run is not None or wait.selector.executed_before is None:
        return None
    if wait.ignored_run is not None and wait.selector.is_past(wait.ignored_run):
        return Evaluation(Outcome.MISSED, messages.missed(wait, wait.ignored_run), wait.ignored_run)
    if wait.window_ends_at is not None and now >= wait.window_ends_at:
        return Evaluation(Outcome.WINDOW_OVER, messages.window_over(wait))
    return None


def _expired(wait: WaitState, now: float) -> Evaluation | None:
    if wait.start_by is not None and now >= wait.start_by:
        return Evaluation(Outcome.NOT_STARTED, messages.not_started(wait, now))
    if wait.finish_by is not None and now >= wait.finish_by:
        if wait.error is not None:
            return Evaluation(Outcome.UNAVAILABLE, messages.not_polled_at_timeout(wait), wait.run, wait.error)
        return Evaluation(Outcome.TIMED_OUT, messages.timed_out(wait, now), wait.run)
    if wait.unreachable_since is not None and now - wait.unreachable_since >= wait.unreachable_timeout:
        return Evaluation(Outcome.UNAVAILABLE, messages.unavailable(wait, now), wait.run, wait.error)
    return None
