"""A thousand waits for ten mails."""

from __future__ import annotations

import time

from benchmarks import waits
from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, percent, seconds
from benchmarks.server import Server, mail_ids

TITLE = "Waits for the same mails"
_MAILS = 10
_RATE = 50.0
#: How much more is still "the calls of ten": the first polls do not fall at the same time in two runs.
_TOLERANCE = 1.1


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    number, duration, poke_interval = (200, 4.0, 1.0) if quick else (1000, 20.0, 1.0)
    few, few_late, _ = _measure(_MAILS, duration, poke_interval)
    many, many_late, throttled = _measure(number, duration, poke_interval)
    poll_count = number * duration / poke_interval
    return Section(
        TITLE,
        [
            Row(
                f"{number:,} waits on {_MAILS} mails: calls",
                f"{many:,}",
                f"{few:,} for {_MAILS} waits; some {poll_count:,.0f} with a call for each poll",
                f"the calls of {_MAILS} waits",
                many <= _TOLERANCE * few,
            ),
            Row(
                f"{number:,} waits on {_MAILS} mails: last detection",
                seconds(many_late),
                f"{seconds(few_late)} for {_MAILS} waits",
            ),
            Row(
                f"{number:,} waits on {_MAILS} mails: throttled calls",
                percent(throttled, many),
                "",
                "under 1 %",
                throttled < 0.01 * many,
            ),
        ],
        f"{number:,} triggers in one process wait for {_MAILS} mail tasks and poll every {poke_interval:g} s "
        f"for {duration:g} s, then the mails are sent. The reference is {_MAILS} waits in the same time; "
        f"up to {_TOLERANCE - 1:.0%} more calls count as equal, because first polls are spread at random.",
    )


def _measure(number: int, duration: float, poke_interval: float) -> tuple[int, float, int]:
    """Return the calls of some waits, the last detection, and how many calls were throttled."""
    ids = (mail_ids(_MAILS) * (number // _MAILS))[:number]
    with Server(_MAILS, calls_per_second={"GetMailTaskStatus": _RATE}) as server:
        connection = server.connection(status_calls_per_second=_RATE)
        with Isolated(waits.wait_for_all, ids, poke_interval, connection=connection) as process:
            process.wait_until_started()
            time.sleep(duration)
            ended_at = time.time()
            server.end_all_runs()
            outcomes = process.result(60)
        calls, throttled = server.status_calls()
        assert len(outcomes.seen_at) == number, f"{outcomes.failed} of {number} waits failed"
        return calls, max(outcomes.seen_at) - ended_at, throttled
