"""One distributed Airflow for these tests, on a PostgreSQL and a Redis that run already; Quick BI is in-process."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_quickbi.testing import LocalQuickBI
from tests.api.shared.conftest import Redis

STATUS_CALLS_PER_SECOND = 10.0


@pytest.fixture(scope="session")
def _services() -> None:
    """Refuse to go on without PostgreSQL and Redis, in one sentence."""
    from tests.distributed import services

    if (sentence := services.refusal()) is not None:
        pytest.exit(sentence, returncode=1)


@pytest.fixture(scope="session")
def quickbi(_services: None) -> Iterator[LocalQuickBI]:
    """A Quick BI with the documented limit, scaled up, which all processes together have to keep to."""
    from tests.distributed.cluster import free_port

    with LocalQuickBI(port=free_port(), calls_per_second={"GetMailTaskStatus": STATUS_CALLS_PER_SECOND}) as local:
        yield local


@pytest.fixture(scope="session")
def pacing(_services: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis of the tests' own through which all processes share the limit, to be taken away and given back."""
    from tests.distributed.cluster import free_port

    program = shutil.which("redis-server")
    assert program, "The distributed tests need the program redis-server: install Redis."
    server = Redis(program, tmp_path_factory.mktemp("pacing"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster(
    quickbi: LocalQuickBI, pacing: Redis, tmp_path_factory: pytest.TempPathFactory, notify: Callable[[str], None]
) -> Iterator[object]:
    """The cluster, all of its parts at work; no process, database or key of it is left afterwards."""
    from dev.standalone import ending_on
    from tests.distributed import services
    from tests.distributed.cluster import Cluster

    connection = quickbi.connection_json(
        status_calls_per_second=STATUS_CALLS_PER_SECOND, read_timeout=300, pacing_conn_id="pacing_redis"
    )
    pacing_url = f"redis://127.0.0.1:{pacing.settings.port}"
    with ending_on(signal.SIGTERM):
        with services.own_redis_number() as broker, services.own_database() as database:
            home = tmp_path_factory.mktemp("airflow")
            with Cluster(
                home, database_url=database, broker_url=broker, connection=connection, pacing_url=pacing_url
            ) as cluster:
                cluster.start_all()
                notify("scheduler, DAG processor, API server, two triggerers and two workers are at work")
                yield cluster
                late = cluster.stop()
                notify(f"stopped; killed at the end: {', '.join(late) or 'nothing'}")
                assert cluster.processes() == []
        assert not services.exists(database)
        assert services.keys(broker) == 0


@pytest.fixture(scope="session")
def notify(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say how far the test is, past pytest's capturing: it takes minutes."""
    begun = time.monotonic()
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def notify(what: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{time.monotonic() - begun:5.0f} s  {what}", end="", flush=True)

    return notify
