"""Sensors in every mode, mapped tasks and a sent mail, in a real Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.live.runs import WAITING, Run, Watched, start_calls, status_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Api


def described(quickbi: LocalQuickBI, mail_id: str) -> dict[str, Any]:
    """What the XCom must hold: the latest run of a mail task."""
    run = quickbi.runs(mail_id)[-1]
    return {"mail_id": mail_id, "task_id": run["task_id"], "status": run["status"], "exec_time": run["exec_time"]}


@pytest.mark.parametrize("mode", WAITING)
def test_a_sensor_waits_in_its_mode_and_ends_with_the_run_that_counts_in_its_xcom(
    mode: str, quickbi: LocalQuickBI, watched: Watched
) -> None:
    assert watched.run.states()[mode] == "success", watched.run.describe()
    assert WAITING[mode] in watched.seen[mode]
    assert watched.run.xcom(mode) == described(quickbi, f"live-{mode}")
    assert watched.run.xcom(mode)["task_id"] == watched.mails[mode].task_id


@pytest.mark.parametrize("mode", WAITING)
def test_a_sensor_polls_no_more_once_a_response_says_that_the_mail_is_sent(
    mode: str, quickbi: LocalQuickBI, watched: Watched
) -> None:
    assert watched.mails[mode].responses_since_sent == 1
    assert quickbi.starts(f"live-{mode}") == 0


@pytest.mark.parametrize("mode", WAITING)
def test_a_sensor_leaves_a_link_to_the_console(mode: str, watched: Watched) -> None:
    assert watched.run.links(mode) == {"Quick BI": "https://bi.aliyun.com/"}


def test_a_connection_made_through_the_api_is_tested_and_mapped_tasks_wait_with_it(
    quickbi: LocalQuickBI, api: Api, trigger: Callable[..., Run]
) -> None:
    connection = quickbi.connection()
    body = connection | {"connection_id": "quickbi_from_api", "extra": '{"status_calls_per_second": 1}'}
    api.post("/connections", body)
    for name, paused in {"Listed north": False, "Listed south": False, "Listed rest": True, "Other": False}.items():
        mail_id = quickbi.add_mail_task(name, mail_id=name.lower().replace(" ", "-"), paused=paused)
        quickbi.add_run(mail_id, status="PROCESSING", duration=3)

    tested = api.post("/connections/test", body)
    assert tested["status"], tested
    assert f"127.0.0.1:{quickbi.port}" in tested["message"]

    run = trigger("live_list")
    run.succeed()

    assert run.states() == {"list": "success", "wait[0]": "success", "wait[1]": "success"}
    assert [mail_task["mail_id"] for mail_task in run.xcom("list")] == ["listed-north", "listed-south"]
    assert run.xcom("wait", 0) == described(quickbi, "listed-north")
    assert run.xcom("wait", 1) == described(quickbi, "listed-south")
    assert status_calls(quickbi, "listed-rest") == status_calls(quickbi, "other") == []


def test_a_wrong_secret_is_said_when_the_connection_is_tested(quickbi: LocalQuickBI, api: Api) -> None:
    body = quickbi.connection() | {"connection_id": "quickbi_wrong", "password": "not-the-secret", "extra": "{}"}

    tested = api.post("/connections/test", body)

    assert not tested["status"]
    assert "SignatureDoesNotMatch" in tested["message"]
    assert "not-the-secret" not in tested["message"]


def test_a_mail_is_sent_once_and_the_deferred_task_ends_with_exactly_its_run(
    quickbi: LocalQuickBI, trigger: Callable[..., Run]
) -> None:
    mail_id = quickbi.add_mail_task("Sent once", mail_id="live-sent-once", run_duration=4, run_appears_after=2)
    quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(days=1))

    run = trigger("live_send", {"mail_id": mail_id})
    run.reaches("send", "deferred")
    run.succeed()

    assert run.xcom("send") == described(quickbi, mail_id)
    assert len(start_calls(quickbi, mail_id)) == quickbi.starts(mail_id) == 1
    assert quickbi.mails_sent(mail_id, "manual") == 1
