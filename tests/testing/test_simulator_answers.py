"""What the simulator answers over HTTP: the documented shapes, refusals and limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, LocalQuickBI, Refusal

from .conftest import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Caller

# GetMailTaskList


def test_the_list_has_the_documented_shape(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("日报", owner="王芳", owner_id="42", paused=True)
    response = call.send("GetMailTaskList")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json;charset=utf-8"
    body = response.json()
    assert REQUEST_ID.fullmatch(body.pop("RequestId"))
    assert body == {
        "Success": True,
        "Result": {
            "PageNum": 1,
            "PageSize": 25,
            "TotalNum": 1,
            "TotalPages": 1,
            "Pre": None,
            "Next": None,
            "Data": [
                {
                    "MailId": mail_id,
                    "Paused": True,
                    "BizOwnerUserId": "42",
                    "BizOwnerName": "王芳",
                    "SubscribeName": "日报",
                }
            ],
        },
    }


def test_every_answer_has_a_request_id_of_its_own(call: Caller) -> None:
    first, second = (call.send("GetMailTaskList") for _ in range(2))
    assert first.json()["RequestId"] != second.json()["RequestId"]
    assert first.json()["RequestId"] == first.headers["x-acs-request-id"]


def test_the_list_is_cut_into_pages(quickbi: LocalQuickBI, call: Caller) -> None:
    ids = [quickbi.add_mail_task(f"mail {number}") for number in range(60)]
    pages = [call("GetMailTaskList", PageNum=number) for number in (1, 2, 3, 4)]
    assert [(page["Pre"], page["Next"]) for page in pages] == [(None, 2), (1, 3), (2, None), (3, None)]
    assert [len(page["Data"]) for page in pages] == [25, 25, 10, 0]
    assert [mail["MailId"] for page in pages for mail in page["Data"]] == ids
    assert (pages[0]["TotalNum"], pages[0]["TotalPages"]) == (60, 3)


def test_an_empty_list_has_no_pages(call: Caller) -> None:
    page = call("GetMailTaskList")
    assert (page["TotalNum"], page["TotalPages"], page["Data"]) == (0, 0, [])


def test_a_page_size_beyond_the_maximum_is_silently_cut(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI() as quickbi:
        quickbi.max_page_size, quickbi.no_such_page = 10, 0
        for number in range(12):
            quickbi.add_mail_task(str(number))
        page = make_caller(quickbi)("GetMailTaskList", PageSize=1000)
        assert (page["PageSize"], len(page["Data"]), page["Pre"], page["Next"]) == (10, 10, 0, 2)


def test_the_list_filters_by_pause_and_by_owner(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.add_mail_task("a", owner="Wang")
    quickbi.add_mail_task("b", owner="Wang", paused=True)
    quickbi.add_mail_task("c", owner="Li")

    def names(**params: object) -> list[str]:
        return [mail["SubscribeName"] for mail in call("GetMailTaskList", **params)["Data"]]

    assert names(Paused="false") == ["a", "c"]
    assert names(Paused="true") == ["b"]
    assert names(UserNick="Wang") == ["a", "b"]
    assert names(UserNick="Wang", Paused="true") == ["b"]
    assert names(UserNick="W") == []


@pytest.mark.parametrize(
    "params",
    [
        {"Paused": "False"},
        {"Paused": "1"},
        {"PageNum": "0"},
        {"PageNum": "x"},
        {"PageSize": "-1"},
        {"PageNum": "9" * 5000},
    ],
)
def test_a_filter_or_page_that_is_none_is_an_invalid_parameter(call: Caller, params: dict[str, str]) -> None:
    assert call("GetMailTaskList", **params) == "Invalid.Parameter"


# GetMailTaskStatus


def test_the_status_has_the_documented_shape(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m")
    task_id = quickbi.add_run(mail_id, exec_time="2026-07-01T08:30:00", status="PROCESSING")
    response = call.send("GetMailTaskStatus", {"MailId": mail_id})
    assert response.json()["Result"] == [
        {"execTime": "2026-07-01 08:30:00", "mailId": mail_id, "status": "PROCESSING", "taskId": int(task_id)}
    ]
    assert f'"taskId":{task_id}' in response.text
    assert int(task_id) > 2**53


def test_the_status_may_come_with_a_task_id_as_text(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI() as quickbi:
        quickbi.task_id_as_string = True
        mail_id = quickbi.add_mail_task("m")
        task_id = quickbi.add_run(mail_id)
        assert make_caller(quickbi)("GetMailTaskStatus", MailId=mail_id)[0]["taskId"] == task_id


def test_the_status_of_a_task_id_is_that_of_its_run_and_otherwise_of_the_latest(
    quickbi: LocalQuickBI, call: Caller
) -> None:
    mail_id, other_id = quickbi.add_mail_task("m"), quickbi.add_mail_task("other")
    old = quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(days=1), status="FAILED")
    new = quickbi.add_run(mail_id)
    assert call("GetMailTaskStatus", MailId=mail_id)[0]["taskId"] == int(new)
    assert [run["status"] for run in call("GetMailTaskStatus", MailId=mail_id, TaskId=old)] == ["FAILED"]
    assert call("GetMailTaskStatus", MailId=other_id, TaskId=old) == []


def test_a_mail_that_never_ran_and_an_unknown_task_id_have_an_empty_result(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m")
    assert call("GetMailTaskStatus", MailId=mail_id) == []
    quickbi.add_run(mail_id)
    assert call("GetMailTaskStatus", MailId=mail_id, TaskId=17) == []


@pytest.mark.parametrize("task_id", ["abc", "1.5", "-1", "7.2e18", "1" * 20, "\uff11"])
def test_a_task_id_that_is_no_number_is_a_param_error(quickbi: LocalQuickBI, call: Caller, task_id: str) -> None:
    mail_id = quickbi.add_mail_task("m")
    assert call("GetMailTaskStatus", MailId=mail_id, TaskId=task_id) == "Invalid.Param.Error"


@pytest.mark.parametrize("action", ["GetMailTaskStatus", "ManualRunMailTask"])
def test_a_mail_id_must_be_given_and_known(call: Caller, action: str) -> None:
    assert call(action) == "MailId.Is.Null"
    assert call(action, MailId="") == "MailId.Is.Null"
    assert call(action, MailId="nowhere") == "Mail.Not.Found"


def test_the_status_may_hold_several_recent_runs_in_any_order(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI() as quickbi:
        quickbi.status_list, quickbi.shuffle_status_list = 4, True
        mail_id = quickbi.add_mail_task("m")
        runs = [int(quickbi.add_run(mail_id, exec_time=f"2026-07-01T0{hour}:00:00")) for hour in range(6)]
        call = make_caller(quickbi)
        orders = [[run["taskId"] for run in call("GetMailTaskStatus", MailId=mail_id)] for _ in range(20)]
        assert all(sorted(order) == runs[-4:] for order in orders)
        assert len({tuple(order) for order in orders}) > 1


def test_a_status_nobody_knows_is_passed_on(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m")
    quickbi.add_run(mail_id, status="RENDERING ")
    assert call("GetMailTaskStatus", MailId=mail_id)[0]["status"] == "RENDERING "


# ManualRunMailTask


def test_a_manual_start_answers_true_and_no_task_id(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m", run_duration=30, run_appears_after=2)
    assert call("ManualRunMailTask", MailId=mail_id) is True
    assert (quickbi.starts(mail_id), quickbi.mails_sent(mail_id)) == (1, 0)
    assert call("GetMailTaskStatus", MailId=mail_id) == []
    quickbi.clock.advance(2)
    assert call("GetMailTaskStatus", MailId=mail_id)[0]["status"] == "PROCESSING"
    assert call("ManualRunMailTask", MailId=mail_id) == "MailTask.Already.Running"
    quickbi.clock.advance(30)
    assert call("GetMailTaskStatus", MailId=mail_id)[0]["status"] == "SENT"
    assert (quickbi.starts(mail_id), quickbi.mails_sent(mail_id)) == (1, 1)


def test_a_start_that_is_refused_does_not_count(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m")
    quickbi.refuse_manual_start(mail_id, "Timer.Schedule.Task")
    quickbi.limit_manual_starts(mail_id, calls=1)
    assert call("ManualRunMailTask", MailId=mail_id) == "Timer.Schedule.Task"
    assert call("ManualRunMailTask", MailId=mail_id) == "MailApi.Beyond.ScheduleLimit"
    assert quickbi.starts(mail_id) == 0
    assert call("ManualRunMailTask", MailId=mail_id) is True


# Other operations


def test_an_operation_can_be_added_and_may_refuse(quickbi: LocalQuickBI, call: Caller) -> None:
    def query_works(params: object) -> object:
        assert isinstance(params, dict)
        if params["WorksId"] == "gone":
            raise Refusal("Works.Not.Found", "It is gone.", http_status=404)
        return {"WorksId": params["WorksId"]}

    quickbi.register("QueryWorks", query_works)
    assert call("QueryWorks", WorksId="1") == {"WorksId": "1"}
    response = call.send("QueryWorks", {"WorksId": "gone"})
    assert (response.status_code, response.json()["Message"]) == (404, "It is gone.")


def test_parameters_may_also_come_in_a_form_body(quickbi: LocalQuickBI, call: Caller) -> None:
    from hashlib import sha256

    body = "MailId=" + quickbi.add_mail_task("m")
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-acs-content-sha256": sha256(body.encode()).hexdigest(),
    }
    assert call.send("ManualRunMailTask", headers=headers, data=body).json()["Result"] is True


def test_a_call_may_also_be_a_get(quickbi: LocalQuickBI, call: Caller) -> None:
    assert call.send("GetMailTaskList", method="GET").json()["Success"] is True
    assert call.send("GetMailTaskList", method="PUT").json()["Code"] == "UnsupportedHTTPMethod"


def test_the_action_may_come_as_a_parameter_which_the_log_leaves_out(quickbi: LocalQuickBI) -> None:
    quickbi.add_bearer_token("token")
    params = {"Action": "GetMailTaskList", "Version": "2022-01-01", "SignatureType": "BEARERTOKEN", "PageNum": "1"}
    response = requests.post(quickbi.url, params=params, headers={"x-acs-bearer-token": "token"}, timeout=5)
    assert response.json()["Success"] is True
    assert (quickbi.calls[0].action, quickbi.calls[0].params) == ("GetMailTaskList", {"PageNum": "1"})


# Limits


def test_nothing_is_limited_unless_asked_for(quickbi: LocalQuickBI, call: Caller) -> None:
    mail_id = quickbi.add_mail_task("m")
    for _ in range(60):
        assert call("GetMailTaskStatus", MailId=mail_id) == []
    assert quickbi.calls_per_second == {}


def test_the_documented_limits_count_each_operation_by_itself_in_a_sliding_second(
    make_caller: Callable[..., Caller],
) -> None:
    with LocalQuickBI(calls_per_second=DOCUMENTED_CALLS_PER_SECOND) as quickbi:
        quickbi.clock.freeze()
        mail_id = quickbi.add_mail_task("m")
        call = make_caller(quickbi)
        assert call("GetMailTaskStatus", MailId=mail_id) == []
        assert call("GetMailTaskStatus", MailId=mail_id) == "Throttling.User"
        assert call("ManualRunMailTask", MailId=mail_id) is True
        assert all(call("GetMailTaskList") != "Throttling.User" for _ in range(50))
        assert call("GetMailTaskList") == "Throttling.User"
        quickbi.clock.advance(0.99)
        assert call("GetMailTaskStatus", MailId=mail_id) == "Throttling.User"
        quickbi.clock.advance(0.01)
        assert len(call("GetMailTaskStatus", MailId=mail_id)) == 1
        assert quickbi.count("GetMailTaskStatus", code="Throttling.User") == 2
        assert quickbi.count(code="Throttling.User") == 3


def test_the_limit_is_one_for_all_callers(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI(calls_per_second=1) as quickbi:
        quickbi.clock.freeze()
        quickbi.add_account("other", "secret")
        assert make_caller(quickbi)("GetMailTaskList")["TotalNum"] == 0
        assert make_caller(quickbi, "other", "secret")("GetMailTaskList") == "Throttling.User"


def test_a_rate_below_one_lets_one_call_through_in_its_inverse_of_seconds(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI(calls_per_second={"GetMailTaskList": 0.1}) as quickbi:
        quickbi.clock.freeze()
        call = make_caller(quickbi)
        assert call("GetMailTaskList") != "Throttling.User"
        quickbi.clock.advance(9.9)
        assert call("GetMailTaskList") == "Throttling.User"
        quickbi.clock.advance(0.2)
        assert call("GetMailTaskList") != "Throttling.User"


def test_throttling_does_not_announce_when_to_come_back(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI(calls_per_second=0.001) as quickbi:
        call = make_caller(quickbi)
        call("GetMailTaskList")
        assert "x-acs-retry-after" not in call.send("GetMailTaskList").headers


@pytest.mark.parametrize("rate", [0, -1, {"GetMailTaskList": 0}])
def test_a_limit_of_nothing_is_a_mistake(rate: object) -> None:
    with pytest.raises(ValueError, match="above 0"):
        LocalQuickBI(calls_per_second=rate)


# The log


def test_the_log_tells_what_was_called_and_the_counters_outlive_it(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI(calls_kept=3) as quickbi:
        call = make_caller(quickbi)
        for _ in range(5):
            call("GetMailTaskList", PageNum=1)
        call("GetMailTaskStatus", MailId="nowhere")
        last = quickbi.calls[-1]
        assert [seen.number for seen in quickbi.calls] == [4, 5, 6]
        assert (last.action, last.params, last.http_status) == ("GetMailTaskStatus", {"MailId": "nowhere"}, 400)
        assert (last.code, last.fault) == ("Mail.Not.Found", None)
        assert (last.mail_id, last.access_key_id) == ("nowhere", quickbi.access_key_id)
        assert last.headers["user-agent"].startswith("python-requests")
        assert "authorization" not in last.headers
        assert quickbi.count() == 6
        assert quickbi.count("GetMailTaskList") == quickbi.count(code="OK") == 5
        assert quickbi.counters() == {"GetMailTaskList": {"OK": 5}, "GetMailTaskStatus": {"Mail.Not.Found": 1}}


def test_reset_starts_afresh(quickbi: LocalQuickBI, call: Caller) -> None:
    from airflow_provider_quickbi.testing import Fault

    mail_id = quickbi.add_mail_task("m")
    call("GetMailTaskList")
    quickbi.fail(None, Fault.reset())
    quickbi.deny("NoPermission")
    quickbi.clock.freeze("2020-01-01T00:00:00")
    quickbi.reset()
    assert quickbi.calls == []
    assert quickbi.mail_tasks() == []
    assert abs(quickbi.clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert call("GetMailTaskStatus", MailId=mail_id) == "Mail.Not.Found"
