"""What it gains to know how long past runs took: simulated mornings, and the real loop at a scaled rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from airflow_provider_quickbi._wait.schedule import PollSchedule
from airflow_provider_quickbi._wait.shared_client import DURATIONS
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from benchmarks import waits
from benchmarks.isolated import Isolated
from benchmarks.mornings import Report, make_reports, mean_detection
from benchmarks.report import Row, Section, percent, seconds, times
from benchmarks.server import Server, mail_ids

TITLE = "Learnt durations"
_KNOWN = 5
#: Poll interval of a wait, in seconds of a real morning.
_POKE_INTERVAL = 30.0
_TARGET, _TARGET_UNKNOWN = 0.55, 1.05


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    number, scale, seeds = (60, 60.0, 1) if quick else (300, 10.0, 5)
    rows = []
    for where, (known, unknown, usual), factor in (
        ("simulated", _simulate(number, seeds), 1.0),
        (f"real loop, {scale:g} times as fast", _measure(number, scale), scale),
    ):
        for what, value, target in (
            (f"{_KNOWN} past runs known", known, _TARGET),
            ("nothing known", unknown, _TARGET_UNKNOWN),
        ):
            rows.append(
                Row(
                    f"{number} waits, 1 call/s, {where}, {what}: mean detection",
                    f"{seconds(value * factor)} ({times(value / usual)})",
                    f"{seconds(usual * factor)} with round-robin polling",
                    f"at most {target:g}x",
                    value <= target * usual,
                )
            )
    return Section(
        TITLE,
        rows,
        f"{number} reports start together. They take 10 minutes in the median, some a few minutes and some almost an "
        "hour, and each one within some 15 % of its usual time. Past runs are known as roughly as polls see them. "
        f"Waits poll every {_POKE_INTERVAL:g} s if they can. The simulation has the real rate limiter and schedule on "
        f"an event loop whose clock jumps ahead ({seeds} mornings); the real loop has the triggers, HTTP and a "
        f"service at {scale:g} calls per second whose reports take {scale:g} times less, three processes at the same "
        "time with a service each. Times are those of a real morning. With nothing known the same code runs as when calls "
        "go round, so what differs there in the real loop is chance.",
    )


def _simulate(number: int, seeds: int) -> tuple[float, float, float]:
    """Return the mean detection with past runs known, with nothing known, and with calls that go round."""

    def mean(known: int, chosen: bool) -> float:
        return statistics.fmean(mean_detection(known, seed, chosen=chosen, reports=number) for seed in range(seeds))

    return mean(_KNOWN, True), mean(0, True), mean(_KNOWN, False)


def _measure(number: int, scale: float) -> tuple[float, float, float]:
    reports = make_reports(number, _KNOWN, 1, scale=scale)
    ids = mail_ids(number)
    with ExitStack() as stack:
        running = []
        for known, chosen in ((_KNOWN, True), (0, True), (_KNOWN, False)):
            server = stack.enter_context(
                Server(
                    number,
                    durations=[report.seconds for report in reports],
                    calls_per_second={"GetMailTaskStatus": scale},
                )
            )
            order = (_wait, make_reports(number, known, 1, scale=scale), ids, _POKE_INTERVAL / scale, chosen)
            process = Isolated(*order, connection=server.connection(status_calls_per_second=scale))
            running.append((server, stack.enter_context(process)))
        for _, process in running:
            process.wait_until_started()
        means: list[float] = []
        for server, process in running:
            outcomes = process.result(4 * max(report.seconds for report in reports) + 120)
            calls, throttled = server.status_calls()
            assert throttled <= 0.01 * calls, f"{percent(throttled, calls)} of the calls were throttled"
            finished_at = {
                mail_id: started_at + report.seconds
                for mail_id, started_at, report in zip(ids, server.started_at, reports, strict=True)
            }
            assert sorted(outcomes.seen) == sorted(finished_at), f"{outcomes.failed} waits failed"
            means.append(
                statistics.fmean(
                    seen_at - finished_at[mail_id]
                    for mail_id, seen_at in zip(outcomes.seen, outcomes.seen_at, strict=True)
                )
            )
        with_known, with_nothing, going_round = means
        return with_known, with_nothing, going_round


def _wait(
    started: Callable[[], None], reports: Sequence[Report], ids: Sequence[str], poke_interval: float, chosen: bool
) -> waits.Outcomes:
    if not chosen:
        PollSchedule.choose = lambda *_: 0  # type: ignore[method-assign]
    for report, mail_id in zip(reports, ids, strict=True):
        for duration in report.past:
            DURATIONS.learn(MailTaskSubject(mail_id), duration)
    return waits.wait_for_all(started, ids, poke_interval)
