"""Several processes that know nothing of each other on one limit."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import waits
from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, percent, seconds, times
from benchmarks.server import Server, mail_ids

TITLE = "Several processes on one limit"


@dataclass(frozen=True)
class _Scene:
    """How many processes share how many calls a second.

    :param processes: each with its part of the mails.
    :param number: of waits in all.
    :param rate: calls a second.
    :param settling: seconds from the start until the mails are sent.
    """

    processes: int
    number: int
    rate: float
    settling: float

    @property
    def least(self) -> float:
        return self.number / self.rate


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    scenes = [_Scene(2, 60, 20, 5)] if quick else [_Scene(2, 300, 30, 30), _Scene(3, 300, 30, 30)]
    rows = [row for scene in scenes for row in _measure([scene])]
    if not quick:
        # One call a second takes so little of the machine that both can be measured at the same time.
        rows += _measure([_Scene(2, 20, 1, 60), _Scene(3, 21, 1, 60)])
    return Section(
        TITLE,
        rows,
        "The processes share the mails and the limit of one account, and begin at the same moment at "
        "the full rate, so the throttled calls with which they find their shares are counted as well. "
        "The *mean detection of each process* shows how evenly the limit is shared: a process takes every slot, "
        "every second or every fourth, so of three one may see its deliveries sooner than the others. "
        "*Last detection* is that of the slowest. At one call a second there are some hundred calls in all, and finding "
        "the shares takes about ten of them: three processes come out at about 10 % throttled.",
    )


def _measure(scenes: list[_Scene]) -> list[Row]:
    with ExitStack() as stack:
        running: list[tuple[_Scene, Server, list[Isolated]]] = []
        for scene in scenes:
            server = stack.enter_context(Server(scene.number, calls_per_second={"GetMailTaskStatus": scene.rate}))
            connection = server.connection(status_calls_per_second=scene.rate)
            ids = mail_ids(scene.number)
            processes = [
                stack.enter_context(
                    Isolated(waits.wait_for_all, ids[part :: scene.processes], scene.least / 4, connection=connection)
                )
                for part in range(scene.processes)
            ]
            running.append((scene, server, processes))
        for _, _, processes in running:
            for process in processes:
                process.wait_until_started()
        time.sleep(max(scene.settling for scene in scenes))
        rows: list[Row] = []
        for scene, server, processes in running:
            ended_at = time.time()
            server.end_all_runs()
            outcomes = [process.result(20 * scene.least + 60) for process in processes]
            rows += _rows(scene, server.status_calls(), outcomes, ended_at)
        return rows


def _rows(scene: _Scene, calls: tuple[int, int], outcomes: list[waits.Outcomes], ended_at: float) -> list[Row]:
    made, throttled = calls
    what = f"{scene.processes} processes, {scene.number} waits, {scene.rate:g} calls/s"
    delays = [[seen - ended_at for seen in outcome.seen_at] for outcome in outcomes]
    failed = sum(outcome.failed for outcome in outcomes)
    last = max(max(part) for part in delays)
    means = [statistics.fmean(part) for part in delays]
    return [
        Row(f"{what}: failed waits", f"{failed}", "", "0", failed == 0),
        Row(
            f"{what}: throttled calls",
            percent(throttled, made),
            "",
            "under 10 %",
            throttled < 0.1 * made,
        ),
        Row(
            f"{what}: last detection (least possible {seconds(scene.least)})",
            f"{seconds(last)} ({times(last / scene.least)})",
        ),
        Row(
            f"{what}: mean detection of each process",
            ", ".join(seconds(mean) for mean in sorted(means)),
            f"least possible {seconds(scene.least / 2)}",
        ),
    ]
