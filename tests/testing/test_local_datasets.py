"""The local datasets answer as Quick BI documents it, to this package's client and to the official SDK."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.errors import AlreadyRunningError, PermanentError, TransientError
from airflow_provider_quickbi.exceptions import QuickBIRequestError
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from airflow_provider_quickbi.testing.datasets import LocalDatasets

pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")
NOON = datetime(2026, 7, 1, 4, tzinfo=UTC)


@pytest.fixture
def cubes(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> LocalDatasets:
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(read_timeout=0.5))
    cubes = LocalDatasets(quickbi)
    cubes.add_dataset("Sales", dataset_id="cube", workspace_id="w")
    return cubes


@pytest.fixture
def client(cubes: LocalDatasets) -> QuickBIClient:
    return QuickBIHook().get_conn()


def test_a_refresh_runs_as_the_clock_passes(quickbi: LocalQuickBI, cubes: LocalDatasets, client: QuickBIClient) -> None:
    assert client.query_last_acceleration_engine_job("cube") == ()
    cubes.set_refresh("cube", duration=60, appears_after=5)
    assert client.allot_dataset_acceleration_task("cube")
    assert client.query_last_acceleration_engine_job("cube") == ()
    quickbi.clock.advance(10)
    (running,) = client.query_last_acceleration_engine_job("cube")
    assert (running.status, running.ended_at) == ("RUNNING", None)
    with pytest.raises(AlreadyRunningError, match=r"Repeat\.Running\.Job"):
        client.allot_dataset_acceleration_task("cube")
    quickbi.clock.advance(60)
    (over,) = client.query_last_acceleration_engine_job("cube")
    assert over.status == "SUCCESS"
    assert over.ended_at == over.started_at + timedelta(seconds=65)
    assert cubes.starts("cube") == 1
    assert cubes.refreshes("cube")[0] == {
        "job_id": over.job_id,
        "status": "SUCCESS",
        "started_at": over.started_at.isoformat(),
        "ended_at": over.ended_at.isoformat(),
        "origin": "manual",
    }


def test_the_log_of_a_refresh_that_failed_is_found_by_its_id(cubes: LocalDatasets, client: QuickBIClient) -> None:
    cubes.log = "disk full"
    cubes.add_refresh("cube", started_at=NOON - timedelta(days=2), outcome="FAILURE")
    cubes.add_refresh("cube", started_at=NOON, outcome="SUCCESS")
    failed = cubes.add_refresh("cube", started_at=NOON + timedelta(minutes=5), outcome="FAILURE")
    logs = client.query_acceleration_log_by_cube_id("cube", NOON - timedelta(hours=1), NOON + timedelta(hours=1))
    assert [(log.job_id, log.status, log.log) for log in logs.items] == [(failed, "3", "disk full")]


def test_datasets_are_listed_by_workspace_and_part_of_their_name(cubes: LocalDatasets, client: QuickBIClient) -> None:
    for number in range(3):
        cubes.add_dataset(f"Stock {number}", dataset_id=f"stock-{number}", workspace_id="w", extracted=number != 1)
    cubes.add_dataset("Stock elsewhere", workspace_id="v")
    found = list(client.iter_datasets("w", "Stock", page_size=2))
    assert [(one.dataset_id, one.acceleration_enabled) for one in found] == [
        ("stock-0", True),
        ("stock-1", False),
        ("stock-2", True),
    ]


@pytest.mark.parametrize("code", ["Cube.Not.Exist", "Quick.Job.NotExist", "Last.Job.Failed"])
def test_starts_are_refused_as_documented(code: str, cubes: LocalDatasets, client: QuickBIClient) -> None:
    cubes.add_dataset("Direct", dataset_id="direct", extracted=False)
    cubes.refuse_refresh("cube", "Last.Job.Failed")
    dataset_id = {"Cube.Not.Exist": "nobody", "Quick.Job.NotExist": "direct"}.get(code, "cube")
    with pytest.raises(PermanentError) as raised:
        client.allot_dataset_acceleration_task(dataset_id)
    assert raised.value.code == code


def test_faults_hit_the_operations_on_datasets(
    quickbi: LocalQuickBI, cubes: LocalDatasets, client: QuickBIClient
) -> None:
    quickbi.fail("AllotDatasetAccelerationTask", Fault.answer_lost())
    with pytest.raises(TransientError):
        client.allot_dataset_acceleration_task("cube")
    assert cubes.starts("cube") == 1


def test_a_reset_forgets_the_datasets(quickbi: LocalQuickBI, cubes: LocalDatasets, client: QuickBIClient) -> None:
    quickbi.reset()
    cubes.reset()
    with pytest.raises(PermanentError, match=r"Cube\.Not\.Exist"):
        client.query_last_acceleration_engine_job("cube")


def test_the_official_sdk_reads_the_same(quickbi: LocalQuickBI, cubes: LocalDatasets) -> None:
    sdk: Any = pytest.importorskip("alibabacloud_quickbi_public20220101.client")
    models: Any = pytest.importorskip("alibabacloud_quickbi_public20220101.models")
    open_api: Any = pytest.importorskip("alibabacloud_tea_openapi.models")
    if not hasattr(sdk.Client, "allot_dataset_acceleration_task"):
        pytest.skip("this release of the SDK does not know the operation")
    config = open_api.Config(
        access_key_id=quickbi.access_key_id,
        access_key_secret=quickbi.access_key_secret,
        endpoint=f"127.0.0.1:{quickbi.port}",
        protocol="http",
    )
    official = sdk.Client(config)
    asked = models.AllotDatasetAccelerationTaskRequest(cube_id="cube")
    assert official.allot_dataset_acceleration_task(asked).body.result is True
    latest = models.QueryLastAccelerationEngineJobRequest(cube_id="cube")
    result = official.query_last_acceleration_engine_job(latest).body.result
    assert result.job_history_id == cubes.refreshes("cube")[0]["job_id"]
    assert result.status == "SUCCESS "


def test_the_hook_finds_starts_and_reads_refreshes(quickbi: LocalQuickBI, cubes: LocalDatasets) -> None:
    with QuickBIHook() as hook:
        assert hook.find_dataset("Sales", "w") == ("cube", "Sales")
        assert hook.get_last_refresh("cube") is None
        assert hook.refresh_dataset("cube")
        latest = hook.get_last_refresh("cube")
        assert latest is not None
        assert latest.job_id == cubes.refreshes("cube")[0]["job_id"]
        quickbi.deny("User.OperationPermission.Error", action="AllotDatasetAccelerationTask")
        with pytest.raises(QuickBIRequestError, match="organisation administrator"):
            hook.refresh_dataset("cube")
        with pytest.raises(QuickBIRequestError, match=r"Cube\.Not\.Exist"):
            hook.get_last_refresh("nobody")
    assert cubes.starts("cube") == 1
