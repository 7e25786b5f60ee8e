"""Several processes on one limit: without Redis they know nothing of each other, with it they share one queue."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import waits
from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, percent, seconds, times
from benchmarks.server import Server, mail_ids

TITLE = "Several processes on one limit"


@dataclass(frozen=True)
class _Scene:
    """How many processes share how many calls per second.

    :param processes: each with its part of the mails.
    :param number: of waits in all.
    :param rate: calls per second.
    :param settling: seconds from the start until the mails are sent.
    :param redis: whether they share one queue.
    """

    processes: int
    number: int
    rate: float
    settling: float
    redis: bool = False

    @property
    def least(self) -> float:
        return self.number / self.rate


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    scenes = [_Scene(2, 60, 20, 5)] if quick else [_Scene(2, 300, 30, 30), _Scene(3, 300, 30, 30)]
    rows = [row for scene in scenes for row in _measure([scene], None)]
    if not quick:
        with redis_server() as port:
            # One call per second takes so little of the machine that these can be measured at the same time.
            slow = [_Scene(2, 20, 1, 60), _Scene(3, 21, 1, 60)]
            if port is not None:
                slow.append(_Scene(3, 21, 1, 60, redis=True))
            rows += _measure(slow, port)
    return Section(
        TITLE,
        rows,
        "The processes share the mail tasks and the limit of one account. They start at the same moment at "
        "the full rate, so the throttled calls with which they find their shares count as well. "
        "The *mean detection of each process* shows how evenly the limit is shared. "
        "*Last detection* is that of the slowest process. *Redis* is a server that the benchmark starts.",
    )


@contextmanager
def redis_server() -> Iterator[int | None]:
    """Yield the port of a Redis server that ends with the block; ``None`` where none is installed."""
    if (program := shutil.which("redis-server")) is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="quickbi-benchmark-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _measure(scenes: list[_Scene], redis_port: int | None) -> list[Row]:
    with ExitStack() as stack:
        running: list[tuple[_Scene, Server, list[Isolated]]] = []
        for scene in scenes:
            server = stack.enter_context(Server(scene.number, calls_per_second={"GetMailTaskStatus": scene.rate}))
            extra: dict[str, Any] = {"pacing_conn_id": "benchmark_redis"} if scene.redis else {}
            connection = server.connection(status_calls_per_second=scene.rate, **extra)
            ids = mail_ids(scene.number)
            processes = [
                stack.enter_context(
                    Isolated(
                        waits.wait_for_all,
                        ids[part :: scene.processes],
                        scene.least / 4,
                        connection=connection,
                        redis_port=redis_port,
                    )
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
    what = f"{scene.processes} processes{' and Redis' if scene.redis else ''}, {scene.number} waits, {scene.rate:g} calls/s"
    most_throttled = 0.01 if scene.redis else 0.1
    most_last = (1.15 if scene.redis else 1.3) if scene.processes == 3 and scene.rate == 1 else None
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
            f"under {most_throttled:.0%}".replace("%", " %"),
            throttled < most_throttled * made,
        ),
        Row(
            f"{what}: last detection (least possible {seconds(scene.least)})",
            f"{seconds(last)} ({times(last / scene.least)})",
            "",
            "" if most_last is None else f"at most {most_last:g}x",
            None if most_last is None else last <= most_last * scene.least,
        ),
        Row(
            f"{what}: mean detection of each process",
            ", ".join(seconds(mean) for mean in sorted(means)),
            f"least possible {seconds(scene.least / 2)}",
        ),
    ]
