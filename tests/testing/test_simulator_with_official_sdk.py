"""Alibaba Cloud's own SDK as a client of the simulator: what it signs is let in, what it reads is right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from alibabacloud_credentials.client import Client as Credentials
from alibabacloud_credentials.models import Config as CredentialsConfig
from alibabacloud_quickbi_public20220101 import models
from alibabacloud_quickbi_public20220101.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException, ThrottlingException
from alibabacloud_tea_openapi.models import Config

from airflow_provider_quickbi.testing import Fault, LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_sdk(quickbi: LocalQuickBI) -> Callable[..., Client]:
    def make(**settings: object) -> Client:
        if "credential" not in settings:
            settings = {
                "access_key_id": quickbi.access_key_id,
                "access_key_secret": quickbi.access_key_secret,
                **settings,
            }
        return Client(Config(endpoint=f"{quickbi.host}:{quickbi.port}", protocol="HTTP", **settings))

    return make


def test_the_sdk_does_all_three_operations(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    sdk = make_sdk()
    mail_id = quickbi.add_mail_task("每日销售日报", owner="王芳 & Co", owner_id="42")
    page = sdk.get_mail_task_list(models.GetMailTaskListRequest(page_num=1, page_size=5, user_nick="王芳 & Co")).body
    assert page.success is True
    assert (page.result.total_num, page.result.total_pages, page.result.next) == (1, 1, None)
    assert page.result.data[0].to_map() == {
        "BizOwnerName": "王芳 & Co",
        "BizOwnerUserId": "42",
        "MailId": mail_id,
        "Paused": False,
        "SubscribeName": "每日销售日报",
    }
    assert sdk.manual_run_mail_task(models.ManualRunMailTaskRequest(mail_id=mail_id)).body.result is True
    runs = sdk.get_mail_task_status(models.GetMailTaskStatusRequest(mail_id=mail_id)).body.result
    assert [(run.mail_id, run.status) for run in runs] == [(mail_id, "SENT")]
    assert datetime.fromisoformat(runs[0].exec_time).tzinfo is None
    again = sdk.get_mail_task_status(models.GetMailTaskStatusRequest(mail_id=mail_id, task_id=runs[0].task_id))
    assert [run.task_id for run in again.body.result] == [runs[0].task_id]
    assert isinstance(runs[0].task_id, int)
    assert (quickbi.starts(mail_id), quickbi.count(code="OK")) == (1, 4)


async def do_all_three_operations(sdk: Client, mail_id: str) -> list[object]:
    listed = await sdk.get_mail_task_list_async(models.GetMailTaskListRequest(user_nick="王芳 & Co"))
    started = await sdk.manual_run_mail_task_async(models.ManualRunMailTaskRequest(mail_id=mail_id))
    status = await sdk.get_mail_task_status_async(models.GetMailTaskStatusRequest(mail_id=mail_id))
    return [listed.body.result.total_num, started.body.result, status.body.result[0].status]


def test_the_sdk_does_all_three_operations_asynchronously(
    quickbi: LocalQuickBI, make_sdk: Callable[..., Client]
) -> None:
    import asyncio

    mail_id = quickbi.add_mail_task("m", owner="王芳 & Co")
    assert asyncio.run(do_all_three_operations(make_sdk(), mail_id)) == [1, True, "SENT"]
    assert quickbi.starts(mail_id) == 1


def test_the_sdk_with_a_wrong_secret_is_refused(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    with pytest.raises(ClientException) as refused:
        make_sdk(access_key_secret="wrong").get_mail_task_list(models.GetMailTaskListRequest())
    assert (refused.value.code, refused.value.status_code) == ("SignatureDoesNotMatch", 400)
    assert quickbi.count("GetMailTaskList", code="SignatureDoesNotMatch") == 1


def test_the_sdk_with_a_wrong_secret_is_refused_asynchronously(make_sdk: Callable[..., Client]) -> None:
    import asyncio

    sdk = make_sdk(access_key_secret="wrong")
    with pytest.raises(ClientException, match="not matched"):
        asyncio.run(sdk.get_mail_task_list_async(models.GetMailTaskListRequest()))


def test_the_sdk_with_an_unknown_key_is_refused(make_sdk: Callable[..., Client]) -> None:
    with pytest.raises(ClientException) as refused:
        make_sdk(access_key_id="unknown").get_mail_task_list(models.GetMailTaskListRequest())
    assert (refused.value.code, refused.value.status_code) == ("InvalidAccessKeyId.NotFound", 404)


def test_the_sdk_with_an_sts_token_is_let_in(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    quickbi.add_account("STS.id", "sts-secret", security_token="sts token/+=")
    listing = models.GetMailTaskListRequest()
    sdk = make_sdk(access_key_id="STS.id", access_key_secret="sts-secret", security_token="sts token/+=")
    assert sdk.get_mail_task_list(listing).body.success is True
    with pytest.raises(ClientException) as refused:
        make_sdk(access_key_id="STS.id", access_key_secret="sts-secret").get_mail_task_list(listing)
    assert refused.value.code == "InvalidSecurityToken.Malformed"


def test_the_sdk_with_a_bearer_token_is_let_in(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    def sdk_with(token: str) -> Client:
        return make_sdk(credential=Credentials(CredentialsConfig(type="bearer", bearer_token=token)))

    quickbi.add_bearer_token("the-token")
    listing = models.GetMailTaskListRequest()
    assert sdk_with("the-token").get_mail_task_list(listing).body.success is True
    with pytest.raises(ClientException) as refused:
        sdk_with("another").get_mail_task_list(listing)
    assert refused.value.code == "InvalidSecurityToken.Malformed"


def test_the_sdk_reads_refusals_throttling_and_denials(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    sdk = make_sdk()
    status = models.GetMailTaskStatusRequest(mail_id="nowhere")
    with pytest.raises(ClientException) as unknown:
        sdk.get_mail_task_status(status)
    assert unknown.value.code == "Mail.Not.Found"
    quickbi.fail(None, Fault.throttled(retry_after_ms=1500))
    with pytest.raises(ThrottlingException) as throttled:
        sdk.get_mail_task_status(status)
    assert (throttled.value.code, throttled.value.retry_after) == ("Throttling.User", 1500)
    quickbi.deny("Forbidden.RAM")
    with pytest.raises(ClientException) as denied:
        sdk.get_mail_task_status(status)
    assert denied.value.code == "Forbidden.RAM"


def test_the_sdk_refreshes_a_dataset_and_reads_its_log(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    sdk = make_sdk()
    quickbi.clock.freeze(datetime(2026, 7, 1, 0, 30, tzinfo=UTC))
    dataset_id = quickbi.datasets.add("Sales", workspace_id="w")
    quickbi.datasets.set_start(dataset_id, duration=90)
    listed = sdk.query_dataset_list(models.QueryDatasetListRequest(workspace_id="w", keyword="Sal")).body.result
    assert [(found.dataset_id, found.open_offline_acceleration) for found in listed.data] == [(dataset_id, True)]
    last = models.QueryLastAccelerationEngineJobRequest(cube_id=dataset_id)
    assert sdk.query_last_acceleration_engine_job(last).body.result.job_history_id is None
    allot = models.AllotDatasetAccelerationTaskRequest(cube_id=dataset_id)
    assert sdk.allot_dataset_acceleration_task(allot).body.result is True
    running = sdk.query_last_acceleration_engine_job(last).body.result
    assert (running.status, running.gmt_create) == ("RUNNING", "2026-07-01 08:30:00")
    quickbi.clock.advance(90)
    finished = sdk.query_last_acceleration_engine_job(last).body.result
    assert (finished.status, finished.gmt_modified) == ("SUCCESS ", "2026-07-01 08:31:30")
    logs = sdk.query_acceleration_log_by_cube_id(
        models.QueryAccelerationLogByCubeIdRequest(
            cube_id=dataset_id, start_date="2026-07-01 08:00:00", end_date="2026-07-01 09:00:00"
        )
    ).body.result
    assert logs.data[0].job_history_id == finished.job_history_id
    assert (logs.data[0].job_status, logs.data[0].jon_start_date) == ("2", "2026/07/01 08:30:00")
    assert logs.data[0].duration == 90


def test_the_sdk_sees_the_time_of_the_simulator(quickbi: LocalQuickBI, make_sdk: Callable[..., Client]) -> None:
    mail_id = quickbi.add_mail_task("m")
    quickbi.clock.freeze(datetime(2026, 7, 1, 0, 30, tzinfo=UTC))
    quickbi.add_run(mail_id)
    body = make_sdk().get_mail_task_status(models.GetMailTaskStatusRequest(mail_id=mail_id)).body
    assert body.result[0].exec_time == "2026-07-01 08:30:00"
