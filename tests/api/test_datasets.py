"""The operations on datasets send the documented parameters and read the documented responses only."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_quickbi.api.datasets import (
    MAX_LOG_CHARACTERS,
    Dataset,
    DatasetRefreshJob,
    RefreshLog,
    RefreshStatus,
)
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    PermanentError,
    QuickBIError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun, MalformedResponse, Run
from airflow_provider_quickbi.api.paging import Page
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

START = "AllotDatasetAccelerationTask"
LAST = "QueryLastAccelerationEngineJob"
LOG = "QueryAccelerationLogByCubeId"
LIST = "QueryDatasetList"
SHANGHAI = ZoneInfo("Asia/Shanghai")


def response(result: Any) -> Fault:
    return Fault.custom(200, {"RequestId": "R-1", "Result": result, "Success": True})


def job(**changes: Any) -> dict[str, Any]:
    """A refresh as the documentation's sample has it; ``None`` leaves a field out."""
    written = {
        "JobHistoryId": "7218865303929605212",
        "Status": "SUCCESS ",
        "GmtCreate": "2026-07-01 08:00:00",
        "GmtModified": "2026-07-01 08:03:20",
        **changes,
    }
    return {name: value for name, value in written.items() if value is not None}


def read(**changes: Any) -> DatasetRefreshJob:
    return DatasetRefreshJob.from_json(job(**changes), dataset_id="d-1", timezone=SHANGHAI)


# AllotDatasetAccelerationTask


@pytest.mark.parametrize("result", [True, "true", " TRUE "])
def test_a_refresh_is_started_with_one_call(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail(None, response(result), times=None)
    assert client.allot_dataset_acceleration_task("d-1") is True
    assert [(call.action, call.params) for call in quickbi.calls] == [(START, {"CubeId": "d-1"})]


@pytest.mark.parametrize("result", [False, None, 1, {}])
def test_any_other_result_of_a_start_is_ambiguous(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail(START, response(result), times=None)
    with pytest.raises(TransientError) as caught:
        client.allot_dataset_acceleration_task("d-1")
    assert caught.value.may_have_arrived
    assert (caught.value.action, quickbi.count()) == (START, 1)


@pytest.mark.parametrize(
    "fault", [Fault.reset(), Fault.html_503(), Fault.throttled(), Fault.error("Internal.System.Error")]
)
def test_a_start_is_never_retried(quickbi: LocalQuickBI, client: Any, fault: Fault):
    quickbi.fail(START, fault, times=None)
    with pytest.raises(Exception, match=START):
        client.allot_dataset_acceleration_task("d-1")
    assert quickbi.count(START) == 1


@pytest.mark.parametrize(
    ("code", "cls", "kind_of_error"),
    [
        ("Repeat.Running.Job", AlreadyRunningError, ErrorKind.CONFLICT),
        ("Quick.Job.NotExist", PermanentError, ErrorKind.NOT_FOUND),
        ("Cube.Not.Exist", PermanentError, ErrorKind.NOT_FOUND),
        ("Last.Job.Failed", PermanentError, ErrorKind.BAD_REQUEST),
        ("Internal.System.Error", TransientError, ErrorKind.TRANSIENT),
        ("User.OperationPermission.Error", PermanentError, ErrorKind.DENIED),
    ],
)
def test_each_refusal_of_a_start_has_its_meaning(
    quickbi: LocalQuickBI, client: Any, code: str, cls: type[QuickBIError], kind_of_error: ErrorKind
):
    quickbi.fail(START, Fault.error(code, "The service's own words."), times=None)
    with pytest.raises(cls) as caught:
        client.allot_dataset_acceleration_task("d-1")
    assert (caught.value.kind, caught.value.code) == (kind_of_error, code)
    assert quickbi.count() == 1


# QueryLastAccelerationEngineJob


def test_the_latest_refresh_has_every_documented_field(quickbi: LocalQuickBI, client: Any):
    quickbi.fail(LAST, response(job()), times=None)
    [found] = client.query_last_acceleration_engine_job("d-1")
    assert found == DatasetRefreshJob(
        dataset_id="d-1",
        job_id="7218865303929605212",
        status="SUCCESS",
        started_at=datetime(2026, 7, 1, 0, 0, tzinfo=UTC),
        ended_at=datetime(2026, 7, 1, 0, 3, 20, tzinfo=UTC),
    )
    assert quickbi.calls[-1].params == {"CubeId": "d-1"}


def test_the_times_of_a_refresh_are_in_the_configured_zone(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    quickbi.fail(LAST, response(job()), times=None)
    [found] = connect(timezone="Asia/Tokyo").query_last_acceleration_engine_job("d-1")
    assert found.started_at.utcoffset() == timedelta(hours=9)


def test_a_read_of_the_latest_refresh_is_retried(quickbi: LocalQuickBI, client: Any):
    quickbi.fail(LAST, Fault.html_503(), Fault.throttled(), response(job()))
    assert client.query_last_acceleration_engine_job("d-1")[0].succeeded
    assert quickbi.count(LAST) == 3


@pytest.mark.parametrize("result", [None, {}, []])
def test_an_empty_result_is_no_refresh(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail(LAST, response(result), times=None)
    assert client.query_last_acceleration_engine_job("d-1") == ()


@pytest.mark.parametrize(
    "result",
    [
        "",
        True,
        0,
        [job()],
        job(JobHistoryId=None),
        job(JobHistoryId=1.5),
        job(Status=None),
        job(Status=""),
        job(GmtCreate=None),
        job(GmtCreate="2026-07-01"),
        job(GmtModified="yesterday"),
    ],
)
def test_a_malformed_refresh_is_a_transient_error(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail(LAST, response(result), times=None)
    with pytest.raises(TransientError):
        client.query_last_acceleration_engine_job("d-1", retries=NO_RETRY)


@pytest.mark.parametrize(
    ("status", "finished", "succeeded"),
    [
        (RefreshStatus.TODO, False, False),  # the service's name for a refresh that is queued
        ("CHECK_DEPENDENCY", False, False),
        ("RUNNING", False, False),
        (" success ", True, True),
        ("FAILURE", True, False),
        ("CANCELED", True, False),
        ("ARCHIVED", False, False),
    ],
)
def test_only_documented_final_statuses_finish_a_refresh(status: str, finished: bool, succeeded: bool):
    found = read(Status=status)
    assert (found.is_terminal, found.succeeded, found.failed) == (finished, succeeded, finished and not succeeded)
    assert (found.ended_at is not None) == finished


def test_a_finished_refresh_may_lack_its_end():
    assert read(GmtModified=None).ended_at is None


@pytest.mark.parametrize("status", ["SUCCESS", "RUNNING"])
def test_a_refresh_survives_json(status: str):
    found = read(Status=status)
    stored = json.loads(json.dumps(found.as_dict()))
    assert list(stored) == ["dataset_id", "job_id", "status", "started_at", "ended_at"]
    assert stored["started_at"] == "2026-07-01T08:00:00+08:00"
    assert DatasetRefreshJob.from_dict(stored) == found


def test_runs_of_mails_and_datasets_have_a_common_shape():
    started_at = datetime(2026, 7, 1, tzinfo=UTC)
    runs: list[Run] = [
        MailTaskRun("s-1", "12", "SENT", started_at),
        MailTaskRun("s-1", "12", "FAILED", started_at),
        MailTaskRun("s-1", "12", "ARCHIVED", started_at),
        DatasetRefreshJob("s-1", "12", "SUCCESS", started_at),
        DatasetRefreshJob("s-1", "12", "CANCELED", started_at),
        DatasetRefreshJob("s-1", "12", "SENT", started_at),
    ]
    assert {(run.subject_id, run.run_id, run.started_at, run.age_order) for run in runs} == {
        ("s-1", "12", started_at, (started_at, 12))
    }
    assert [(run.is_terminal, run.succeeded, run.failed) for run in runs] == [
        *[(True, True, False), (True, False, True), (False, False, False)] * 2
    ]


def test_refreshes_are_ordered_by_start_whatever_the_form_of_their_ids():
    older = read(GmtCreate="2026-07-01 07:59:59", JobHistoryId="zzz")
    newer = read(JobHistoryId="03EC3D4E")
    assert sorted([newer, older], key=lambda run: run.age_order) == [older, newer]


# QueryAccelerationLogByCubeId


def test_logs_are_requested_and_read_as_documented(quickbi: LocalQuickBI, client: Any):
    entry = {
        "JobId": "j-1",
        "JobHistoryId": "h-1",
        "JobStatus": "3",
        "JonStartDate": "2026/07/01 08:00:00",
        "Duration": 5,
        "Log": "start\nMemory limit exceeded\x07\n",
    }
    quickbi.fail(LOG, response({"Data": [entry], "PageNum": 1, "PageSize": 10, "TotalNum": 1, "TotalPages": 1}))
    found = client.query_acceleration_log_by_cube_id(
        "d-1", datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 1, 1, tzinfo=UTC)
    )
    assert found == Page((RefreshLog("h-1", "3", "start\nMemory limit exceeded\ufffd"),), 1, 10, 1)
    assert quickbi.calls[-1].params == {
        "CubeId": "d-1",
        "StartDate": "2026-07-01 08:00:00",
        "EndDate": "2026-07-01 09:00:00",
        "PageNo": "1",
        "PageSize": "10",
    }


def test_of_a_long_log_the_end_is_kept():
    found = RefreshLog.from_json({"jobHistoryId": 7, "log": "x" * 100_000 + " the reason"})
    assert (found.job_id, found.status, len(found.log)) == ("7", "", MAX_LOG_CHARACTERS)
    assert found.log.endswith("x the reason")


def test_a_log_without_text_is_empty_and_one_without_an_id_is_refused():
    assert RefreshLog.from_json({"JobHistoryId": "h-1", "Log": None}).log == ""
    with pytest.raises(MalformedResponse, match="JobHistoryId"):
        RefreshLog.from_json({"Log": "text"})


# QueryDatasetList


def serve_datasets(quickbi: LocalQuickBI, number: int) -> None:
    """Let the local Quick BI list a number of datasets."""

    def page(params: Any) -> Any:
        page_num, size = int(params["PageNum"]), int(params["PageSize"])
        shown = range(number)[(page_num - 1) * size : page_num * size]
        data = [{"DatasetId": f"d-{index}", "DatasetName": f"Sales {index}", "WorkspaceId": "w"} for index in shown]
        pages = -(-number // size)
        return {"Data": data, "PageNum": page_num, "PageSize": size, "TotalNum": number, "TotalPages": pages}

    quickbi.register(LIST, page)


def test_a_page_of_datasets_has_every_field(quickbi: LocalQuickBI, client: Any):
    entry = {"DatasetId": "d-1", "DatasetName": " Sales ", "WorkspaceId": "w", "OpenOfflineAcceleration": True}
    quickbi.fail(LIST, response({"Data": [entry], "PageNum": 2, "PageSize": 5, "TotalNum": 6, "TotalPages": 2}))
    found = client.query_dataset_list("w", "Sales", page_num=2, page_size=5)
    assert found == Page((Dataset("d-1", "Sales", "w", True),), 2, 5, 6)
    assert quickbi.calls[-1].params == {"WorkspaceId": "w", "Keyword": "Sales", "PageNum": "2", "PageSize": "5"}


def test_a_dataset_may_lack_optional_fields_but_not_its_id():
    assert Dataset.from_json({"datasetId": 7}) == Dataset("7", "")
    with pytest.raises(MalformedResponse, match="DatasetId"):
        Dataset.from_json({"DatasetName": "Sales"})


@pytest.mark.parametrize(("number", "calls"), [(0, 1), (3, 1), (7, 6)])
def test_all_datasets_are_returned_once_over_all_pages(quickbi: LocalQuickBI, client: Any, number: int, calls: int):
    serve_datasets(quickbi, number)
    stream = client.client.iter_datasets("w", page_size=3)
    found = list(stream) if client.kind == "blocking" else client.wait_for(_collect(stream))
    assert [dataset.dataset_id for dataset in found] == [f"d-{index}" for index in range(number)]
    assert quickbi.count(LIST) == calls


async def _collect(stream: Any) -> list[Dataset]:
    return [dataset async for dataset in stream]
