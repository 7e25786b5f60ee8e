"""Waits in a distributed Airflow, two triggerers and two Celery workers, with and without a Redis to share the limit."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks import whole
from benchmarks.report import Row, Section, percent, seconds
from benchmarks.server import Server
from benchmarks.several import redis_server

TITLE = "In a distributed Airflow"


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    from tests.distributed import services  # needs the extra "distributed"

    if (sentence := services.refusal()) is not None:
        raise RuntimeError(sentence)
    waits = 6 if quick else 40
    with redis_server() as port:
        if port is None:
            raise RuntimeError("This section needs the program redis-server.")
        alone, shared = (_measure(waits, port, redis=redis) for redis in (False, True))
    what = f"{waits} waits, 2 triggerers and 2 workers"
    return Section(
        TITLE,
        [
            Row(
                f"{what}: tasks that succeeded",
                f"with Redis {shared.states.get('success', 0)}",
                f"without Redis {alone.states.get('success', 0)}",
                f"{waits}",
                shared.states == alone.states == {"success": waits},
            ),
            Row(
                f"{what}: throttled calls",
                f"with Redis {percent(shared.throttled, shared.calls)} of {shared.calls}",
                f"without Redis {percent(alone.throttled, alone.calls)} of {alone.calls}",
                "under 1 % with Redis",
                shared.throttled < 0.01 * shared.calls,
            ),
            Row(
                f"{what}: worker starts per wait",
                f"with Redis {shared.worker_starts / waits:.2f}",
                f"without Redis {alone.worker_starts / waits:.2f}",
            ),
            Row(
                f"{what}: mean and last detection",
                f"with Redis {seconds(statistics.fmean(shared.delays))}, {seconds(max(shared.delays))}",
                f"without Redis {seconds(statistics.fmean(alone.delays))}, {seconds(max(alone.delays))}",
            ),
        ],
        "The same waits as in *In a whole Airflow*, with the CeleryExecutor, PostgreSQL, two triggerers and two workers "
        "as processes of their own; first without and then with `pacing_conn_id`, in a new Airflow each.",
    )


def _measure(waits: int, redis_port: int, *, redis: bool) -> whole.Measured:
    from tests.distributed import services
    from tests.distributed.cluster import Cluster

    extra = {"pacing_conn_id": "pacing_redis"} if redis else {}
    with (
        Server(waits, calls_per_second={"GetMailTaskStatus": 1.0}) as server,
        services.own_redis_number() as broker,
        services.own_database() as database,
        tempfile.TemporaryDirectory(prefix="quickbi-benchmark-", ignore_cleanup_errors=True) as home,
        Cluster(
            Path(home),
            database_url=database,
            broker_url=broker,
            connection=server.connection(**extra),
            pacing_url=f"redis://127.0.0.1:{redis_port}",
            dags=whole.DAGS,
            settings=whole.airflow_settings(waits),
        ) as cluster,
    ):
        cluster.start_all()
        api = cluster.api()
        whole.styles(api)
        measured = whole.measure(cluster, api, server, "ours", waits)
        api.close()
        print(f"{'with' if redis else 'without'} Redis: {measured.describe()}", flush=True)
        return measured
