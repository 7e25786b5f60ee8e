"""Refresh, send, wait and go on in a real Airflow, also if a worker is killed at the start or the extraction fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from tests.datasets import Datasets
from tests.live.runs import Run
from tests.live.test_killed import process_that_called

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.standalone import Airflow

START = "AllotDatasetAccelerationTask"
MODES = pytest.mark.parametrize("mode", ["held", "deferred"])


@pytest.fixture(scope="module")
def cubes(quickbi: LocalQuickBI) -> Datasets:
    return Datasets(quickbi)


@pytest.fixture
def prepared(quickbi: LocalQuickBI, cubes: Datasets, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A dataset and a mail task for one DAG run, and its configuration."""
    name = request.node.name.replace("[", "-").rstrip("]")
    cube, mail = f"cube-{name}", f"mail-{name}"
    cubes.add_mail_task("Sales cube", mail_id=cube, run_duration=4, run_appears_after=1)
    quickbi.add_mail_task("Report on it", mail_id=mail, run_duration=3)
    return {"dataset_id": cube, "mail_id": mail, "since": datetime.now(UTC).replace(microsecond=0).isoformat()}


def starts_called(cubes: Datasets, dataset_id: str) -> list[Any]:
    return [call for call in cubes.calls if call.action == START and call.params.get("CubeId") == dataset_id]


def succeeded(run: Run, cubes: Datasets, prepared: dict[str, Any]) -> None:
    """The whole chain is green, each step has the run of its own, and each was started once."""
    run.succeed()
    job, mail = cubes.xcom(prepared["dataset_id"]), cubes._quickbi.runs(prepared["mail_id"])[-1]
    assert run.xcom("refresh") == run.xcom("refreshed") == job
    assert run.xcom("sent")["task_id"] == mail["task_id"]
    assert run.xcom("announce") == ["SUCCESS", "SENT"]
    assert job["ended_at"] <= mail["exec_time"]
    assert (cubes.starts(prepared["dataset_id"]), cubes._quickbi.starts(prepared["mail_id"])) == (1, 1)


@MODES
def test_refresh_send_wait_and_go_on(
    mode: str, cubes: Datasets, prepared: dict[str, Any], trigger: Callable[..., Run]
) -> None:
    run = trigger(f"live_refresh_{mode}", prepared)
    run.reaches("refresh", "deferred" if mode == "deferred" else "running")

    succeeded(run, cubes, prepared)

    assert run.links("refresh") == {"Quick BI": "https://bi.aliyun.com/"}
    assert {task["try_number"] for task in run.tasks()} == {1}


@MODES
@pytest.mark.parametrize("processed", [False, True], ids=["before the start", "after the start"])
def test_a_worker_that_is_killed_around_the_start_refreshes_the_dataset_once(
    processed: bool,
    mode: str,
    airflow: Airflow,
    cubes: Datasets,
    prepared: dict[str, Any],
    trigger: Callable[..., Run],
) -> None:
    """The record is kept and the call is in progress: Quick BI has carried it out, or never will."""
    cubes.fail("ManualRunMailTask", Fault.hang(processed=processed), mail_id=prepared["dataset_id"])

    run = trigger(f"live_refresh_{mode}", prepared)
    call = run.sees(lambda: starts_called(cubes, prepared["dataset_id"]), "the refresh is started")[0]
    assert cubes.starts(prepared["dataset_id"]) == processed
    process_that_called(airflow, call).kill()

    succeeded(run, cubes, prepared)
    assert run.tasks("refresh")[0]["try_number"] == 2
    assert len(starts_called(cubes, prepared["dataset_id"])) == (1 if processed else 2)


@MODES
def test_an_extraction_that_fails_sends_no_report_and_says_why(
    mode: str, cubes: Datasets, prepared: dict[str, Any], trigger: Callable[..., Run]
) -> None:
    cubes.set_manual_start(prepared["dataset_id"], outcome="FAILED")

    run = trigger(f"live_refresh_{mode}", prepared)

    assert run.finish() == "failed"
    assert run.states() == {
        "refresh": "failed",
        **dict.fromkeys(("refreshed", "send", "sent", "announce"), "upstream_failed"),
    }
    assert run.tasks("refresh")[0]["try_number"] == 1
    assert "java.sql.SQLException: Access denied for the reader of the source" in run.logs()
    assert cubes._quickbi.starts(prepared["mail_id"]) == 0
