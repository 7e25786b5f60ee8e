"""What a good wait logs in each mode, and a good start: few lines, each once, and nothing that looks like a problem."""

from __future__ import annotations

import re

import pytest

from tests.datasets import both

from .dags import AIRFLOW

#: Lines of this package that a good wait may log, on workers and in the triggerer together.
MOST = 6
#: A line that this package logs, or Airflow in its name; what the simulator logs stands for Quick BI.
OWN_LINE = re.compile(r"\[(\w+) *\] +(.*?) +\[(?:airflow\.task\.operators\.)?airflow_provider_quickbi\.(?!testing)")

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 1), reason="before 3.1 lines do not say which logger they are of")


def check_lines(ran, task_id, final):
    assert ran.states == {task_id: "success"}, ran.log
    found = [logged.group(1, 2) for line in ran.lines if (logged := OWN_LINE.search(line))]
    lines = [text for _, text in found]
    shown = "\n".join(lines)
    assert 1 <= len(lines) <= MOST, shown
    assert len(set(lines)) == len(lines), shown
    assert len([text for text in lines if text.endswith(f"is {final}.")]) == 1, shown
    assert {level for level, _ in found} == {"info"}, shown


@both
def test_a_good_wait_logs_few_lines(airflow, quickbi, sensor, at_poll, ago, kind, remembers):
    if not remembers:
        pytest.skip("a rescheduled wait cannot know there what it has logged")

    def started_meanwhile():
        run_ids.append(quickbi.add_run("wait", status="PROCESSING"))

    run_ids: list[object] = []
    quickbi.add_mail_task("Report", mail_id="wait")
    quickbi.add_run("wait", exec_time=ago.day)
    at_poll("wait", 3, started_meanwhile)
    at_poll("wait", 6, lambda: quickbi.finish_run(run_ids[0]))

    ran = airflow.run(lambda: sensor("wait", executed_after=ago.hour))

    check_lines(ran, "wait", "SENT" if kind == "mail" else "SUCCESS")


@both
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_good_start_logs_few_lines(airflow, quickbi, deferrable, kind):
    from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator

    quickbi.add_mail_task("Report", mail_id="send", run_duration=0.5, run_appears_after=0.2)
    given = {"task_id": "send", "deferrable": deferrable, "poll_interval": 0.1}

    ran = airflow.run(
        lambda: (
            QuickBIRunMailTaskOperator(mail_id="send", **given)
            if kind == "mail"
            else QuickBIRefreshDatasetOperator(dataset_id="send", **given)
        )
    )

    check_lines(ran, "send", "SENT" if kind == "mail" else "SUCCESS")
