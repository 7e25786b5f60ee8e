"""What is said about a wait and its end."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.messages import selection
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    TransientError,
)

from .cases import BROKEN, EIGHT, NOW, run, wait


def test_the_sentence_changes_only_when_something_has_changed():
    def sentences(responses: list[Any]) -> set[str]:
        waiting, said = wait(), set()
        for number, response in enumerate(responses):
            waiting, evaluation = evaluate(waiting, response, NOW + 60 * number)
            said.add(evaluation.message)
        return said

    again = [
        TransientError("oops", kind=ErrorKind.TRANSIENT, code="InternalError", request_id=f"R-{number}")
        for number in range(5)
    ]
    assert len(sentences([[]] * 5)) == 1
    assert len(sentences([[run("PROCESSING")]] * 5)) == 1
    assert len(sentences([BROKEN] * 5)) == 1
    assert len(sentences(again)) == 1
    assert len(sentences([[], [run("PROCESSING")], [run("SENT")]])) == 3


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        (RunSelector(), "the latest run, whatever its age"),
        (RunSelector(run_id="7"), "the run with TaskId 7"),
        (RunSelector(executed_after=EIGHT), "a run started at or after 2026-07-01T08:00:00+08:00"),
        (RunSelector(other_than=("1",)), "a run other than 1"),
        (RunSelector(other_than=("1", "2", "3", "4")), "a run other than 1, 2, 3, ..."),
        (
            RunSelector(executed_after=EIGHT, other_than=("1",)),
            "a run started at or after 2026-07-01T08:00:00+08:00 other than 1",
        ),
    ],
)
def test_a_window_says_which_runs_match(selector: RunSelector, said: str):
    assert selection(wait(selector=selector)) == said
