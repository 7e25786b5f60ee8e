"""The notifier where a real Airflow runs callbacks: on a worker, in the DAG processor, and in a triggerer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_provider_quickbi.testing import Call, LocalQuickBI
from dev.standalone import Airflow
from tests.live.runs import Run, start_calls, until


def test_a_failure_sends_the_mail_of_the_task_and_that_of_the_dag_once(
    airflow: Airflow, quickbi: LocalQuickBI, trigger: Callable[..., Run]
) -> None:
    of_task, of_dag = (
        quickbi.add_mail_task(mail_id, mail_id=mail_id) for mail_id in ("live-notice-of-task", "live-notice-of-dag")
    )

    run = trigger("live_failure_notices")

    assert run.finish() == "failed"
    until(lambda: start_calls(quickbi, of_dag), "the DAG processor has run the callback", explain=run.describe)
    assert (quickbi.starts(of_task), quickbi.starts(of_dag)) == (1, 1)
    assert run.logs().count("Mail task live-notice-of-task: started; not waiting for its run.") == 1
    assert _logged(airflow, "dag_processor", "Mail task live-notice-of-dag: started; not waiting for its run.")


def test_a_missed_deadline_sends_its_mail_from_the_triggerer_and_ends_no_wait(
    quickbi: LocalQuickBI, trigger: Callable[..., Run]
) -> None:
    notice = quickbi.add_mail_task("Deadline", mail_id="live-notice-of-deadline")
    report = quickbi.add_mail_task("Missed", mail_id="live-missed")
    task_id = quickbi.add_run(report, status="PROCESSING")

    def finish(call: Call) -> None:
        if call.mail_id == notice:
            quickbi.finish_run(task_id)

    quickbi.when_called("ManualRunMailTask", finish)

    run = trigger("live_deadline_notice")
    run.succeed()

    assert quickbi.starts(notice) == 1


def _logged(airflow: Airflow, folder: str, text: str) -> bool:
    files = Path(airflow.home, "logs", folder).rglob("*.log")
    return any(text in file.read_text(errors="replace") for file in files if file.is_file())
