"""One real Airflow for all live tests: standalone on sqlite, talking to a Quick BI in the process of the tests."""

from __future__ import annotations

import re
import shutil
import signal
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, LocalQuickBI
from dev.standalone import Airflow, Api, ending_on
from tests.live.runs import WAITING, Run, RunWhileWatched, Watched, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DAGS = Path(__file__).parent / "dags"
_EXAMPLES = Path(__file__).parents[2] / "example_dags"
EXAMPLES = {path.stem for path in _EXAMPLES.glob("*.py")}
#: What the ids of the examples start with whose schedule is an asset instead of a time.
BY_ASSET = "by_asset_"
_SETTINGS = {
    # So that XComs are what they were before they were stored; Airflow 3.0 has it off by default.
    "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True",
    # A triggerer that was killed is given up soon, so that the test need not wait for it.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


@pytest.fixture(scope="session")
def quickbi() -> Iterator[LocalQuickBI]:
    """A Quick BI with the documented limits."""
    with LocalQuickBI(calls_per_second=DOCUMENTED_CALLS_PER_SECOND) as local:
        yield local


def _write_examples(folder: Path) -> None:
    """Write every example, and with an asset as its schedule those that have a time; all are paused at first."""
    for path in _EXAMPLES.glob("*.py"):
        source = path.read_text().replace("    catchup=False,", "    catchup=False, is_paused_upon_creation=True,")
        (folder / path.name).write_text(source)
        asset = "schedule=[__import__('airflow.sdk').sdk.Asset('live_example')],"
        source, replaced = re.subn('schedule="[^"]+",.*', asset, source)
        if replaced:
            source = source.replace('dag_id="', f'dag_id="{BY_ASSET}')
            (folder / f"{BY_ASSET}{path.name}").write_text(source)


@pytest.fixture(scope="session")
def airflow(quickbi: LocalQuickBI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A healthy ``airflow standalone``; nothing of it is left afterwards."""
    if (airflow_version := version("apache-airflow")).startswith("2."):
        pytest.exit(f"The live tests need Airflow 3; this is {airflow_version}.", returncode=1)
    home = tmp_path_factory.mktemp("airflow")
    dags = shutil.copytree(_DAGS, home / "dags")
    _write_examples(dags)
    connection = {"AIRFLOW_CONN_QUICKBI_DEFAULT": quickbi.connection_json()}
    with ending_on(signal.SIGINT, signal.SIGTERM), Airflow(home, dags, settings=_SETTINGS | connection) as airflow:
        airflow.start("standalone")
        airflow.wait_until_healthy()
        yield airflow
        programs = airflow.programs.copy()
        airflow.stop()  # Airflow does not always end in time by itself
        assert [process for program in programs for process in program.processes()] == []


@pytest.fixture(scope="session")
def api(airflow: Airflow) -> Iterator[Api]:
    """Its REST API, once the DAGs of the tests are known there."""
    api = airflow.api()
    expected = {path.stem for path in _DAGS.glob("live_*.py")} | EXAMPLES

    def known() -> bool:
        return expected <= {Path(dag["fileloc"]).stem for dag in api.get("/dags?limit=100")["dags"]}

    until(known, "the DAGs are parsed", explain=lambda: str(api.get("/importErrors")))
    assert api.get("/importErrors")["import_errors"] == []
    yield api
    api.close()


@pytest.fixture(scope="session")
def trigger(airflow: Airflow, api: Api) -> Callable[..., Run]:
    """Triggers a run of a DAG through the REST API."""

    def trigger(dag_id: str, conf: dict[str, Any] | None = None) -> Run:
        return Run.triggered(airflow, api, dag_id, conf)

    return trigger


@pytest.fixture(scope="session")
def watched(quickbi: LocalQuickBI, trigger: Callable[..., Run]) -> Watched:
    """A run with a sensor of each mode, once it has finished."""
    mails = {mode: RunWhileWatched(quickbi, f"live-{mode}") for mode in WAITING}
    began = datetime.now(UTC).replace(microsecond=0)
    run = trigger("live_modes", {"executed_after": began.isoformat()})
    return Watched(run, mails, run.states_until_finished())


class Component:
    """One program of a standalone Airflow, to be killed and started anew.

    :param airflow: in which it runs.
    :param name: of its command.
    """

    def __init__(self, airflow: Airflow, name: str) -> None:
        self._airflow = airflow
        self._name = name

    def kill(self) -> None:
        """Kill the program and what it started with SIGKILL, and nothing else."""
        leaders = [process for process in self._airflow.processes(self._name) if self._is_command(process)]
        assert leaders, f"No {self._name} runs"
        for leader in leaders:
            for process in [*leader.children(recursive=True), leader]:
                process.kill()
        until(lambda: not any(leader.is_running() and leader.status() != "zombie" for leader in leaders), "it is dead")

    def start(self) -> None:
        """Start a new one in the same environment."""
        self._airflow.start(self._name)

    def _is_command(self, process: Any) -> bool:
        parent = process.parent()
        return parent is None or self._name not in parent.cmdline()


@contextmanager
def running_again_afterwards(airflow: Airflow, name: str) -> Iterator[Component]:
    """Yield a component; one runs again afterwards."""
    component = Component(airflow, name)
    yield component
    if not airflow.processes(name):
        component.start()


@pytest.fixture
def triggerer(airflow: Airflow) -> Iterator[Component]:
    """The triggerer."""
    with running_again_afterwards(airflow, "triggerer") as component:
        yield component


@pytest.fixture
def scheduler(airflow: Airflow) -> Iterator[Component]:
    """The scheduler, with its executor."""
    with running_again_afterwards(airflow, "scheduler") as component:
        yield component
