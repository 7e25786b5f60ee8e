"""Reading a list of many pages: few calls, and each mail task once even if the list changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api import paging
from airflow_provider_quickbi.api.models import MailTask
from airflow_provider_quickbi.api.paging import MAX_PASSES, MailTaskPage, Pager
from airflow_provider_quickbi.testing import Fault, LocalQuickBI


def fill(quickbi: LocalQuickBI, number: int) -> list[str]:
    return [quickbi.add_mail_task(f"Report {index}", mail_id=f"m-{index:03}") for index in range(number)]


def ids(mail_tasks: Any) -> list[str]:
    return [mail_task.mail_id for mail_task in mail_tasks]


def pages_requested(quickbi: LocalQuickBI) -> list[int]:
    return [int(call.params["PageNum"]) for call in quickbi.calls]


@pytest.mark.parametrize("number", [0, 1, 24, 25, 26, 50, 60])
def test_all_mail_tasks_are_returned_once_in_order(quickbi: LocalQuickBI, client: Any, number: int):
    expected = fill(quickbi, number)
    assert ids(client.iter_mail_tasks()) == expected


def test_one_page_is_one_call(quickbi: LocalQuickBI, client: Any):
    fill(quickbi, 25)
    list(client.iter_mail_tasks())
    assert quickbi.count() == 1


def test_nothing_is_requested_before_the_first_mail_task_is_consumed(quickbi: LocalQuickBI, client: Any):
    fill(quickbi, 3)
    client.iter_mail_tasks()
    assert quickbi.count() == 0


def test_pages_are_read_only_as_far_as_mail_tasks_are_consumed(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 100)
    stream = client.iter_mail_tasks(page_size=10)
    assert ids(islice(stream, 10)) == expected[:10]
    assert quickbi.count() == 1
    assert ids(islice(stream, 1)) == expected[10:11]
    assert quickbi.count() == 2


def test_filters_are_sent_with_every_page(quickbi: LocalQuickBI, client: Any):
    for index in range(6):
        quickbi.add_mail_task("r", mail_id=f"m-{index}", owner="Wang Fang" if index % 2 else "Li Na", paused=index < 4)
    assert ids(client.iter_mail_tasks("Wang Fang", True, 1)) == ["m-1", "m-3"]
    assert {(call.params["UserNick"], call.params["Paused"], call.params["PageSize"]) for call in quickbi.calls} == {
        ("Wang Fang", "true", "1")
    }


def test_a_page_size_that_the_service_caps_loses_nothing(connect: Callable[..., Any]):
    with LocalQuickBI() as quickbi:
        quickbi.max_page_size = 7
        expected = fill(quickbi, 30)
        assert ids(connect(quickbi).iter_mail_tasks(page_size=100)) == expected


@pytest.mark.parametrize("no_such_page", [None, 0])
def test_how_the_service_says_that_there_is_no_next_page_does_not_matter(
    connect: Callable[..., Any], no_such_page: Any
):
    with LocalQuickBI() as quickbi:
        quickbi.no_such_page = no_such_page
        expected = fill(quickbi, 30)
        assert ids(connect(quickbi).iter_mail_tasks(page_size=10)) == expected


def test_a_mail_task_added_between_two_pages_is_returned(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 30)

    def add(call: Any) -> None:
        quickbi.add_mail_task("new", mail_id="new")

    quickbi.when_called("GetMailTaskList", add, nth=2)
    found = ids(client.iter_mail_tasks(page_size=10))
    assert sorted(found) == sorted([*expected, "new"])


def test_removing_a_mail_task_between_two_pages_loses_no_other_one(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 30)
    quickbi.when_called("GetMailTaskList", lambda call: quickbi.remove_mail_task("m-000"), nth=2)
    found = ids(client.iter_mail_tasks(page_size=10))
    assert sorted(found) == expected


def test_adding_as_many_as_are_removed_between_two_pages_loses_none(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 30)

    def swap(call: Any) -> None:
        quickbi.remove_mail_task("m-000")
        quickbi.add_mail_task("new", mail_id="new")

    quickbi.when_called("GetMailTaskList", swap, nth=2)
    found = ids(client.iter_mail_tasks(page_size=10))
    assert sorted(found) == sorted([*expected, "new"])
    assert len(found) == len(set(found))


def test_a_removal_at_every_page_loses_none_of_those_that_stay(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 40)
    gone = iter(expected[:3])

    def remove(call: Any) -> None:
        if (victim := next(gone, None)) is not None:
            quickbi.remove_mail_task(victim)

    quickbi.when_called("GetMailTaskList", remove)
    found = ids(client.iter_mail_tasks(page_size=10))
    assert set(expected[3:]) <= set(found)
    assert len(found) == len(set(found))


def lying(quickbi: LocalQuickBI, **lies: Any) -> None:
    """Make the service report wrong totals."""
    mails = [(task["mail_id"], task["name"]) for task in quickbi.mail_tasks()]

    def handler(params: Any) -> Any:
        number, size = int(params["PageNum"]), int(params["PageSize"])
        data = [
            {"MailId": mail_id, "SubscribeName": name, "Paused": False}
            for mail_id, name in mails[(number - 1) * size : number * size]
        ]
        return {"PageNum": number, "PageSize": size, "TotalNum": len(mails), "Data": data, **lies}

    quickbi.register("GetMailTaskList", handler)


@pytest.mark.parametrize(
    "lies",
    [
        {"TotalNum": None},
        {"TotalNum": 10_000},
        {"TotalPages": 1, "Next": None},
        {"TotalPages": 99, "Next": 99},
        {"Next": 1, "PageNum": 1},
        {"PageSize": 1},
        {"TotalNum": "thirty"},
    ],
)
def test_wrong_totals_of_the_service_lose_nothing(quickbi: LocalQuickBI, client: Any, lies: dict[str, Any]):
    expected = fill(quickbi, 30)
    lying(quickbi, **lies)
    assert ids(client.iter_mail_tasks(page_size=10)) == expected
    assert quickbi.count() < 20


def test_a_service_that_repeats_the_same_page_does_not_loop_forever(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 10)
    data = [{"MailId": mail_id, "SubscribeName": "r", "Paused": False} for mail_id in expected]
    quickbi.register("GetMailTaskList", lambda params: {"Data": data, "TotalNum": 1000, "Next": 2})
    assert ids(client.iter_mail_tasks(page_size=10)) == expected
    assert quickbi.count() <= 2 * MAX_PASSES


def test_an_endless_list_is_read_only_as_far_as_it_is_consumed(quickbi: LocalQuickBI, client: Any):
    def endless(params: Any) -> Any:
        number = int(params["PageNum"])
        return {"Data": [{"MailId": f"m-{number}", "SubscribeName": "r", "Paused": False}], "Next": number + 1}

    quickbi.register("GetMailTaskList", endless)
    assert len(list(islice(client.iter_mail_tasks(), 50))) == 50
    assert quickbi.count() == 50


def test_an_endless_list_ends_at_the_page_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paging, "MAX_PAGES", 20)
    pager, pages = Pager[MailTask](lambda mail_task: mail_task.mail_id), 0
    while (number := pager.page_num) is not None and pages <= MAX_PASSES * 20:
        pages += 1
        pager.feed(MailTaskPage((MailTask(str(pages), "r", False),), number, 1, None))
    assert pages == MAX_PASSES * 20


def test_a_page_that_fails_is_retried(quickbi: LocalQuickBI, client: Any):
    expected = fill(quickbi, 30)
    quickbi.when_called("GetMailTaskList", lambda call: Fault.html_503(), nth=2)
    assert ids(client.iter_mail_tasks(page_size=10)) == expected


@given(
    size=st.integers(min_value=1, max_value=5),
    names=st.lists(st.integers(0, 30), unique=True, max_size=20),
    changes=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 60)), max_size=8),
    total=st.sampled_from(["right", "none"]),
)
@settings(max_examples=200, deadline=None)
def test_under_any_changes_nothing_is_returned_twice_and_nothing_that_stays_is_lost(
    size: int, names: list[int], changes: list[tuple[int, bool, int]], total: str
):
    there = [str(name) for name in names]
    pager, given_ids, calls = Pager[MailTask](lambda mail_task: mail_task.mail_id), [], 0
    first_walk: int | None = None
    while (number := pager.page_num) is not None:
        for at, adds, name in changes:
            if at != calls:
                continue
            if adds and str(name) not in there:
                there.insert(name % (len(there) + 1), str(name))
            elif not adds and str(name) in there:
                there.remove(str(name))
        shown = tuple(MailTask(name, "r", False) for name in there[(number - 1) * size : number * size])
        given_ids += ids(pager.feed(MailTaskPage(shown, number, size, len(there) if total == "right" else None)))
        calls += 1
        if first_walk is None and pager.page_num in (1, None):
            first_walk = calls
        assert calls < 1000
    assert len(given_ids) == len(set(given_ids))
    if all(at < (first_walk or 0) or at >= calls for at, _, _ in changes):
        assert set(there) <= set(given_ids)
