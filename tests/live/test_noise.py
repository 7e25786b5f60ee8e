"""What a wait in a real Airflow logs: few lines, each once, and nothing that looks like a problem."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev.standalone import Airflow
from tests.live.runs import WAITING, Run, Watched

#: Lines of this package that a good wait may log, on workers and in the triggerer together.
MOST = 6


@pytest.fixture(scope="module")
def logged(airflow: Airflow, watched: Watched) -> dict[str, list[dict[str, Any]]]:
    """Return what each sensor's task has logged, in the worker and in the triggerer."""
    run = watched.run
    assert run.state == "success", run.describe()
    folder = Path(airflow.home, "logs", f"dag_id={run.dag_id}", f"run_id={run.run_id}")
    return {
        mode: [
            json.loads(line)
            for file in sorted((folder / f"task_id={mode}").rglob("*.log*"))
            for line in file.read_text().splitlines()
        ]
        for mode in WAITING
    }


def own_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Return the lines that the package logs, or that Airflow logs in its name."""
    return [entry["event"] for entry in entries if "airflow_provider_quickbi" in entry.get("logger", "")]


@pytest.mark.parametrize("mode", WAITING)
def test_a_good_wait_logs_few_lines(mode: str, logged: dict[str, list[dict[str, Any]]]) -> None:
    lines = own_lines(logged[mode])

    assert lines
    assert len(lines) <= MOST, "\n".join(lines)


@pytest.mark.parametrize("mode", WAITING)
def test_a_wait_says_once_that_the_report_was_sent_and_no_line_twice(
    mode: str, logged: dict[str, list[dict[str, Any]]]
) -> None:
    lines = own_lines(logged[mode])

    assert len([line for line in lines if line.endswith("is SENT.")]) == 1, "\n".join(lines)
    assert sorted(set(lines)) == sorted(lines)


@pytest.mark.parametrize("mode", WAITING)
def test_a_good_wait_logs_nothing_that_looks_like_a_problem(mode: str, logged: dict[str, list[dict[str, Any]]]) -> None:
    assert [entry for entry in logged[mode] if entry["level"] not in ("debug", "info")] == []


def test_a_task_that_fails_early_logs_its_own_error_and_no_other(airflow: Airflow, trigger: Callable[..., Run]) -> None:
    run = trigger("live_wait", {"mail_id": ""})

    assert run.finish() == "failed"
    problems = [line for line in run.logs().splitlines() if " error " in line or " warning " in line]
    assert len(problems) == 1, "\n".join(problems)
    assert "mail_id is empty" in problems[0]
