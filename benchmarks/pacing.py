"""Many waits for distinct mails that end together, beside waits as peers write them."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks import peers, waits
from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, percent, seconds, times
from benchmarks.server import Server, mail_ids

TITLE = "Distinct mails that end together, one process"
_STYLES = ("ours", "strict", "tolerant")


@dataclass(frozen=True)
class _Scene:
    """How many waits share how many calls per second.

    :param number: of waits, each for another mail.
    :param rate: calls per second.
    :param together: whether all kinds of waits may be measured at the same time, each with a server of its own.
    """

    number: int
    rate: float
    together: bool

    @property
    def least(self) -> float:
        """Seconds within which the last of the mails can be seen at best."""
        return self.number / self.rate


@dataclass(frozen=True)
class _Measured:
    number: int
    failed: int
    delays: list[float]
    calls: int
    throttled: int
    calls_a_second: float

    def last(self, least: float) -> str:
        return self._beside(max(self.delays, default=0.0), least)

    def mean(self, least: float) -> str:
        return self._beside(statistics.fmean(self.delays or [0.0]), least / 2)

    def _beside(self, delay: float, least: float) -> str:
        """Return a delay and its ratio to the least possible, if it is that of all waits."""
        if len(self.delays) < self.number:
            return f"only {len(self.delays)} of {self.number:,} were seen"
        return f"{seconds(delay)} ({times(delay / least)})"


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    scenes = [_Scene(60, 20, True)] if quick else [_Scene(60, 3, True), _Scene(300, 20, True), _Scene(1000, 100, False)]
    rows: list[Row] = []
    for scene in scenes:
        groups = [_STYLES] if scene.together else [("ours",), ("strict",), ("tolerant",)]
        measured: dict[str, _Measured] = {}
        for group in groups:
            measured |= _measure(scene, group)
        rows += _rows(scene, measured)
    return Section(
        TITLE,
        rows,
        "Each wait is for another mail task. The waits start together and poll every quarter of the least possible time. "
        "When each has polled once, all mails are sent at the same moment. The comparison is one polling loop per wait on "
        "the official SDK's async client: *strict* ends a wait on any error, *tolerant* ignores errors. Rates are scaled "
        "up to keep the run short. The least possible last detection is N / rate; the least possible mean is half of that.",
    )


def _measure(scene: _Scene, styles: tuple[str, ...]) -> dict[str, _Measured]:
    poke_interval = scene.least / 4
    ids = mail_ids(scene.number)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        processes: dict[str, Isolated] = {}
        begun_at = 0.0
        for style in styles:
            limits = {"GetMailTaskStatus": scene.rate}
            server = stack.enter_context(Server(scene.number, calls_per_second=limits))
            servers[style] = server
            order: tuple[Any, ...] = (waits.wait_for_all, ids, poke_interval)
            if style != "ours":
                order = (peers.wait_for_all, ids, poke_interval, style == "strict")
            connection = server.connection(status_calls_per_second=scene.rate)
            processes[style] = stack.enter_context(Isolated(*order, connection=connection))
        for process in processes.values():
            process.wait_until_started()
        begun_at = time.time()
        time.sleep(1.3 * scene.least + poke_interval)
        measured: dict[str, _Measured] = {}
        ended_at: dict[str, float] = {}
        for style, server in servers.items():
            ended_at[style] = time.time()
            server.end_all_runs()
        for style, process in processes.items():
            outcomes = process.result(15 * scene.least + 60)
            calls, throttled = servers[style].status_calls()
            delays = [seen - ended_at[style] for seen in outcomes.seen_at]
            measured[style] = _Measured(
                scene.number,
                outcomes.failed,
                delays,
                calls,
                throttled,
                calls / (time.time() - begun_at),
            )
        return measured


def _rows(scene: _Scene, measured: dict[str, _Measured]) -> list[Row]:
    ours, strict, tolerant = (measured[style] for style in _STYLES)
    what = f"{scene.number:,} waits, {scene.rate:g} calls/s"
    least = scene.least

    def beside(strict_value: str, tolerant_value: str) -> str:
        return f"strict {strict_value}; tolerant {tolerant_value}"

    return [
        Row(
            f"{what}: failed waits",
            f"{ours.failed}",
            beside(f"{strict.failed}", f"{tolerant.failed}"),
            "0",
            ours.failed == 0,
        ),
        Row(
            f"{what}: throttled calls",
            percent(ours.throttled, ours.calls),
            beside(percent(strict.throttled, strict.calls), percent(tolerant.throttled, tolerant.calls)),
            "under 1 %",
            ours.throttled < 0.01 * ours.calls,
        ),
        Row(
            f"{what}: last detection (least possible {seconds(least)})",
            ours.last(least),
            beside(strict.last(least), tolerant.last(least)),
            "at most 1.15x",
            len(ours.delays) == scene.number and max(ours.delays) <= 1.15 * least,
        ),
        Row(
            f"{what}: mean detection (least possible {seconds(least / 2)})",
            ours.mean(least),
            beside(strict.mean(least), tolerant.mean(least)),
            "at most 1.15x",
            len(ours.delays) == scene.number and statistics.fmean(ours.delays) <= 1.15 * least / 2,
        ),
    ]
