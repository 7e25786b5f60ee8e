"""What many waits do to the triggerer: how late its event loop gets, and how much memory they take."""

from __future__ import annotations

from benchmarks import waits
from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, percent, seconds
from benchmarks.server import Server, mail_ids

TITLE = "Load on the triggerer"
_RATE = 50.0
_POKE_INTERVAL = 10.0
_MAX_ADDED_LATENESS = 0.010
_MAX_BYTES = 20_000


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    rows: list[Row] = []
    duration = 3.0 if quick else 20.0
    for number, mails in [(200, 200)] if quick else [(1000, 1000), (5000, 5000), (1000, 10)]:
        load = _measure(number, mails, duration)
        what = f"{number:,} waits" if mails == number else f"{number:,} waits on {mails} mails"
        added = load.busy_p99 - load.idle_p99
        aimed = number == 1000
        rows.append(
            Row(
                f"{what}: event loop late, p99",
                f"{seconds(added)} added",
                f"{seconds(load.idle_p99)} without waits; worst moment {seconds(load.busy_worst)}",
                "under 10 ms added" if aimed else "",
                added < _MAX_ADDED_LATENESS if aimed else None,
            )
        )
        if mails == number:
            many = number == 5000
            rows.append(
                Row(
                    f"{what}: memory a wait",
                    f"{load.bytes_a_wait / 1000:.1f} kB",
                    "",
                    "under 20 kB" if many else "",
                    load.bytes_a_wait < _MAX_BYTES if many else None,
                )
            )
        rows.append(Row(f"{what}: CPU", f"{percent(load.cpu_share, 1)} of one core"))
    return Section(
        TITLE,
        rows,
        "The triggers are made from their serialized arguments and run in one event loop, as the "
        f"triggerer runs them. Each polls every {_POKE_INTERVAL:g} s; the service allows {_RATE:g} calls per second, "
        f"fifty times what Quick BI documents. Measured for {duration:g} s from the start of the first wait, so "
        "starting them is included. Lateness is how much longer a sleep of 5 ms takes than requested. "
        "Memory is the growth of the process divided by the number of waits.",
    )


def _measure(number: int, mails: int, duration: float) -> waits.Load:
    with Server(mails, calls_per_second={"GetMailTaskStatus": _RATE}) as server:
        connection = server.connection(status_calls_per_second=_RATE)
        ids = (mail_ids(mails) * (number // mails))[:number]
        order = (waits.measure_load, ids, _POKE_INTERVAL, duration, min(duration, 5.0))
        with Isolated(*order, connection=connection) as process:
            process.wait_until_started()
            load: waits.Load = process.result(duration + 120)
            assert load.outcomes.failed == 0, f"{load.outcomes.failed} waits failed"
            return load
