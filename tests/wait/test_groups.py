"""Several mail tasks in one wait: how many are required, and when it is known."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quickbi._wait.evaluate import evaluate_group
from airflow_provider_quickbi._wait.state import (
    Evaluation,
    Outcome,
    WaitGroup,
)
from airflow_provider_quickbi._wait.subject import MailTaskSubject

from .cases import BROKEN, DENIED, NOW, THROTTLED, run, several, wait


@pytest.mark.parametrize(
    ("responses", "required", "outcome"),
    [
        (["SENT", "SENT", "SENT"], None, Outcome.SUCCEEDED),
        (["SENT", "SENT", "PROCESSING"], None, Outcome.WAITING),
        (["SENT", "FAILED", "PROCESSING"], None, Outcome.FAILED),
        (["SENT", "SENT", "PROCESSING"], 2, Outcome.SUCCEEDED),
        (["SENT", "FAILED", "PROCESSING"], 2, Outcome.WAITING),
        (["FAILED", "FAILED", "PROCESSING"], 2, Outcome.FAILED),
        (["PROCESSING", "SENT", "FAILED"], 1, Outcome.SUCCEEDED),
        (["FAILED", "FAILED", "PROCESSING"], 1, Outcome.WAITING),
        (["FAILED", "FAILED", "FAILED"], 1, Outcome.FAILED),
        (["FAILED", DENIED, "FAILED"], 1, Outcome.REFUSED),
        ([BROKEN, "SENT", THROTTLED], None, Outcome.WAITING),
    ],
)
def test_several_mail_tasks_are_sent_once_enough_are_and_lost_once_enough_cannot_be(
    responses: list[Any], required: int | None, outcome: Outcome
):
    group = several(*responses, required=required)
    assert group.evaluation.outcome is outcome
    assert f"{responses.count('SENT')} of 3 mail tasks are SENT, {required or 3} required." in group.evaluation.message


@pytest.mark.parametrize(
    ("ends", "worst"),
    [
        ([DENIED, "FAILED"], Outcome.REFUSED),
        (["FAILED", DENIED], Outcome.REFUSED),
    ],
)
def test_of_several_reasons_the_one_that_needs_a_person_most_decides(ends: list[Any], worst: Outcome):
    group = several(*ends)
    assert group.evaluation.outcome is worst
    assert all(evaluation.message in group.evaluation.message for evaluation in group.evaluations)


def test_the_order_of_reasons_is_refused_failed_not_started_timed_out_unavailable():
    order = [Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_STARTED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE]
    for first in range(len(order)):
        for second in range(first, len(order)):
            for pair in ((order[first], order[second]), (order[second], order[first])):
                evaluations = tuple(Evaluation(outcome, outcome.value) for outcome in pair)
                group = WaitGroup(
                    waits=(wait(), wait(subject=MailTaskSubject("n"))), evaluations=evaluations, required=2
                )
                assert group.evaluation.outcome is order[first]


def test_only_what_is_not_settled_is_polled_again():
    assert several("SENT", "PROCESSING", "FAILED", BROKEN, DENIED, required=1).unfinished() == [1, 3]


def test_one_mail_task_speaks_for_itself():
    group = several("PROCESSING")
    assert group.evaluation is group.evaluations[0]


def test_the_results_are_in_the_order_of_the_mail_tasks_and_have_no_gaps():
    assert several("SENT", [], "PROCESSING", required=1).results() == [
        {"mail_id": "m-0", "task_id": "10", "status": "SENT", "exec_time": "2026-07-01T08:00:00+08:00"},
        {"mail_id": "m-1", "task_id": None, "status": None, "exec_time": None},
        {"mail_id": "m-2", "task_id": "10", "status": "PROCESSING", "exec_time": "2026-07-01T08:00:00+08:00"},
    ]


def test_a_delivery_is_late_once_and_only_while_it_is_waited_for():
    group = WaitGroup.of([wait()], late_at=NOW + 600)
    assert not group.is_late(NOW + 599)
    assert group.is_late(NOW + 600)
    assert not group.notified().is_late(NOW + 600)
    assert not evaluate_group(group, 0, [run("SENT")], NOW + 600).is_late(NOW + 700)
    assert not WaitGroup.of([wait()]).is_late(NOW + 1e9)
