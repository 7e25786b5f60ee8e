"""Each operation sends the documented parameters and reads the documented response only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.api.errors import PermanentError, TransientError
from airflow_provider_quickbi.api.models import MailTask, MalformedResponse
from airflow_provider_quickbi.api.paging import MailTaskPage
from airflow_provider_quickbi.testing import Fault, LocalQuickBI, Refusal

BIG = 7218865303929605212


def response(result: Any, **more: Any) -> Fault:
    return Fault.custom(200, {"RequestId": "R-1", "Result": result, "Success": True, **more})


def mail(**changes: Any) -> dict[str, Any]:
    """A mail task as the service writes it; ``None`` leaves a field out."""
    written = {
        "MailId": "m",
        "Paused": False,
        "BizOwnerUserId": "u",
        "BizOwnerName": "Wang Fang",
        "SubscribeName": "Daily sales",
        **changes,
    }
    return {name: value for name, value in written.items() if value is not None}


# GetMailTaskList


def test_a_list_of_mail_tasks_has_every_documented_field(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("日报 & more", owner="王芳", owner_id="u-1", paused=True)
    assert client.get_mail_task_list() == MailTaskPage(
        items=(
            MailTask(
                mail_id=mail_id,
                subscribe_name="日报 & more",
                paused=True,
                biz_owner_user_id="u-1",
                biz_owner_name="王芳",
            ),
        ),
        page_num=1,
        page_size=25,
        total_num=1,
    )


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({}, {"PageNum": "1", "PageSize": "25"}),
        ({"page_num": 3, "page_size": 7}, {"PageNum": "3", "PageSize": "7"}),
        ({"user_nick": "王芳"}, {"PageNum": "1", "PageSize": "25", "UserNick": "王芳"}),
        ({"user_nick": ""}, {"PageNum": "1", "PageSize": "25"}),
        ({"paused": True}, {"PageNum": "1", "PageSize": "25", "Paused": "true"}),
        ({"paused": False}, {"PageNum": "1", "PageSize": "25", "Paused": "false"}),
    ],
)
def test_a_list_of_mail_tasks_is_requested_with_the_documented_parameters(
    quickbi: LocalQuickBI, client: Any, arguments: dict[str, Any], sent: dict[str, str]
):
    client.get_mail_task_list(**arguments)
    assert dict(quickbi.calls[-1].params) == sent


def test_mail_tasks_are_filtered_by_the_service(quickbi: LocalQuickBI, client: Any):
    quickbi.add_mail_task("a", mail_id="running", owner="Wang Fang")
    quickbi.add_mail_task("b", mail_id="paused", owner="Li Na", paused=True)

    def found(**arguments: Any) -> list[str]:
        return [task.mail_id for task in client.get_mail_task_list(**arguments).mail_tasks]

    assert found() == ["running", "paused"]
    assert found(paused=True) == ["paused"]
    assert found(paused=False) == ["running"]
    assert found(user_nick="Li Na") == ["paused"]
    assert found(user_nick="Li Na", paused=False) == []


@pytest.mark.parametrize(
    "item",
    [
        mail(),
        {name.lower(): value for name, value in mail().items()},
        {name[0].lower() + name[1:]: value for name, value in mail().items()},
        {name.upper(): value for name, value in mail().items()},
        mail(MailId=" m ", SubscribeName="Daily sales ", Paused="false"),
        mail(Unknown={"nested": [1]}),
    ],
)
def test_a_mail_task_is_read_whatever_the_case_of_its_keys(item: dict[str, Any]):
    assert MailTask.from_json(item) == MailTask("m", "Daily sales", False, "u", "Wang Fang")


@pytest.mark.parametrize("missing", ["SubscribeName", "BizOwnerUserId", "BizOwnerName"])
def test_a_mail_task_may_lack_optional_fields(missing: str):
    assert MailTask.from_json(mail(**{missing: None})).mail_id == "m"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (mail(MailId=None), "MailId as a string"),
        (mail(MailId=""), "MailId as a string"),
        (mail(MailId=1.5), "MailId as a string"),
        (mail(MailId=["m"]), "MailId as a string"),
        (mail(Paused=None), "Paused as true or false"),
        (mail(Paused="yes"), "Paused as true or false"),
        (mail(Paused=1), "Paused as true or false"),
        ("m", "a JSON object"),
        (None, "a JSON object"),
    ],
)
def test_a_malformed_mail_task_is_refused(item: Any, said: str):
    with pytest.raises(MalformedResponse, match=said):
        MailTask.from_json(item)


@pytest.mark.parametrize(
    "result", [None, [], "x", {}, {"Data": None}, {"Data": "x"}, {"Data": [1]}, {"Data": {}}, {"Data": [[]]}]
)
def test_a_malformed_page_is_a_transient_error(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskList", response(result), times=None)
    with pytest.raises(TransientError, match="unexpected response"):
        client.get_mail_task_list()


@pytest.mark.parametrize("result", [{"Data": None, "TotalNum": 0}, {"Data": []}, {"data": [], "totalNum": 0}])
def test_a_list_without_mail_tasks_is_an_empty_page(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("GetMailTaskList", response(result))
    assert client.get_mail_task_list(page_num=2, page_size=9).mail_tasks == ()


def test_a_page_without_numbers_is_the_requested_page(quickbi: LocalQuickBI, client: Any):
    quickbi.fail(
        "GetMailTaskList", response({"Data": [mail()], "PageNum": None, "PageSize": "25", "TotalNum": -1}), times=1
    )
    page = client.get_mail_task_list(page_num=2, page_size=9)
    assert (page.page_num, page.page_size, page.total_num) == (2, 9, None)


# ManualRunMailTask


def test_a_manual_run_starts_one_run(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert client.manual_run_mail_task(mail_id) is True
    assert quickbi.starts(mail_id) == 1
    assert dict(quickbi.calls[-1].params) == {"MailId": mail_id}


@pytest.mark.parametrize("result", ["true", "True ", True])
def test_a_manual_run_is_accepted_if_the_service_says_true(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("ManualRunMailTask", response(result))
    assert client.manual_run_mail_task("m") is True


@pytest.mark.parametrize("result", [False, None, "false", 1, {}, [True]])
def test_any_other_result_of_a_start_is_ambiguous(quickbi: LocalQuickBI, client: Any, result: Any):
    quickbi.fail("ManualRunMailTask", response(result))
    with pytest.raises(TransientError, match="the run may not have started") as caught:
        client.manual_run_mail_task("m")
    assert caught.value.may_have_arrived


# Any other operation


def test_any_other_operation_can_be_called(quickbi: LocalQuickBI, client: Any):
    def find(params: Any) -> Any:
        if params["Account"] == "Nobody":
            raise Refusal("User.Not.In.Organization")
        return {"UserId": "u-1"}

    quickbi.register("QueryUserInfoByAccount", find)
    found = client.call("QueryUserInfoByAccount", {"Account": "Wang Fang"})
    assert found["UserId"] == "u-1"
    with pytest.raises(PermanentError) as caught:
        client.call("QueryUserInfoByAccount", {"Account": "Nobody"})
    assert caught.value.code == "User.Not.In.Organization"


def test_any_other_operation_is_retried_only_if_it_is_repeatable(quickbi: LocalQuickBI, client: Any):
    quickbi.register("AddSomething", lambda params: "added")
    quickbi.fail("AddSomething", Fault.html_503(), times=2)
    with pytest.raises(TransientError):
        client.call("AddSomething")
    assert client.call("AddSomething", repeatable=True) == "added"
    assert quickbi.count("AddSomething") == 3


def test_a_refusal_of_any_other_operation_names_it(quickbi: LocalQuickBI, client: Any):
    def refuse(params: Any) -> Any:
        raise Refusal("Invalid.Parameter", "Name is too long")

    quickbi.register("AddSomething", refuse)
    with pytest.raises(PermanentError, match=r"^AddSomething: Name is too long \(Code Invalid.Parameter, RequestId "):
        client.call("AddSomething", {"Name": "x"})


def test_on_call_receives_the_result_of_each_call(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    mail_id = quickbi.add_mail_task("Daily sales")
    reported: list[tuple[str, str]] = []
    client = connect(on_call=lambda action, result: reported.append((action, result)))
    quickbi.fail("GetMailTaskStatus", Fault.throttled(), Fault.reset())
    client.get_mail_task_status(mail_id)
    with pytest.raises(PermanentError):
        client.get_mail_task_status("unknown")
    assert reported == [
        ("GetMailTaskStatus", "throttled"),
        ("GetMailTaskStatus", "transient"),
        ("GetMailTaskStatus", "ok"),
        ("GetMailTaskStatus", "not_found"),
    ]
