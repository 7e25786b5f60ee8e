"""Datasets and their refreshes: what the simulator returns, refuses and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_quickbi.testing import Fault, LocalQuickBI

if TYPE_CHECKING:
    from .conftest import Caller

START, LAST = "AllotDatasetAccelerationTask", "QueryLastAccelerationEngineJob"
LOGS, DATASETS = "QueryAccelerationLogByCubeId", "QueryDatasetList"
TODAY = {"StartDate": "2026-07-01 00:00:00", "EndDate": "2026-07-01 23:59:59"}


@pytest.fixture
def dataset_id(quickbi: LocalQuickBI) -> str:
    quickbi.clock.freeze("2026-07-01T08:30:00")
    return quickbi.datasets.add("Sales", dataset_id="d", workspace_id="w")


def test_a_start_returns_only_true_and_counts(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    assert call(START, CubeId=dataset_id) is True
    assert quickbi.datasets.starts(dataset_id) == 1
    assert quickbi.datasets.succeeded(dataset_id, "manual") == 1


def test_a_dataset_that_was_never_refreshed_has_no_job(call: Caller, dataset_id: str) -> None:
    assert call(LAST, CubeId=dataset_id) == {}


def test_a_refresh_appears_runs_and_fails(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    quickbi.datasets.set_start(dataset_id, appears_after=5, duration=10, outcome=["FAILURE", "SUCCESS"])
    call(START, CubeId=dataset_id)
    assert call(LAST, CubeId=dataset_id) == {}
    quickbi.clock.advance(5)
    assert call(LAST, CubeId=dataset_id)["Status"] == "RUNNING"
    quickbi.clock.advance(10)
    failed = call(LAST, CubeId=dataset_id)
    assert (failed["Status"], failed["GmtModified"]) == ("FAILURE", "2026-07-01 08:30:15")
    (log,) = call(LOGS, CubeId=dataset_id, **TODAY)["Data"]
    assert (log["JobHistoryId"], log["JobStatus"]) == (failed["JobHistoryId"], "3")
    assert "does not exist" in log["Log"]


@pytest.mark.parametrize("action", [START, LAST, LOGS])
def test_an_unknown_dataset_is_refused(call: Caller, action: str) -> None:
    assert call(action, CubeId="nowhere", **TODAY) == "Cube.Not.Exist"


def test_starts_are_refused_as_documented(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    job_id = quickbi.datasets.add_run(dataset_id, status="RUNNING")
    assert call(START, CubeId=dataset_id) == "Repeat.Running.Job"
    quickbi.datasets.finish_run(job_id, "FAILURE")
    quickbi.datasets.refuse_start(dataset_id, "User.OperationPermission.Error")
    assert call(START, CubeId=dataset_id) == "User.OperationPermission.Error"
    assert call(START, CubeId=dataset_id) is True
    assert quickbi.datasets.starts(dataset_id) == 1


def test_a_schedule_refreshes_by_itself(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    quickbi.datasets.add_schedule(dataset_id, cron="0 9 * * *")
    quickbi.clock.advance(3600)
    assert call(LAST, CubeId=dataset_id)["GmtCreate"] == "2026-07-01 09:00:00"


def test_datasets_are_listed_by_workspace_and_keyword(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    quickbi.datasets.add("Stock", workspace_id="w")
    quickbi.datasets.add("Sales elsewhere", workspace_id="other")
    page = call(DATASETS, WorkspaceId="w", Keyword="Sal", PageSize=1)
    assert (page["TotalNum"], page["TotalPages"]) == (1, 1)
    assert page["Data"][0]["DatasetId"] == dataset_id
    assert call(DATASETS, WorkspaceId="w")["TotalNum"] == 2
    assert call(DATASETS) == "Invalid.Parameter"
    assert call(LOGS, CubeId=dataset_id, StartDate="yesterday", EndDate="x") == "Invalid.Parameter"


def test_faults_and_limits_hit_refreshes_too(quickbi: LocalQuickBI, call: Caller, dataset_id: str) -> None:
    quickbi.fail(START, Fault.answer_lost("unavailable"))
    assert call.send(START, {"CubeId": dataset_id}).status_code == 503
    assert quickbi.datasets.starts(dataset_id) == 1
    quickbi.limit_calls({LAST: 0.001})
    assert [call(LAST, CubeId=dataset_id) == "Throttling.User" for _ in range(2)] == [False, True]
