"""What a wait keeps to itself, because it is normal: short rate limiting, and a run of the same day."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_provider_quickbi._wait import messages
from airflow_provider_quickbi._wait.conclusion import conclude
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.models import MailTaskRun

LIMITED = f"Mail task m: {messages.RATE_LIMITED}"


def test_rate_limiting_is_logged_once_it_has_lasted_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = WaitLog(logging.getLogger("of a wait"))
    with caplog.at_level(logging.INFO):
        for now, message in enumerate([LIMITED] * 59 + ["Mail task m: No run yet."] + [LIMITED] * 60):
            log.report(message, float(now))
        assert caplog.messages == ["Mail task m: No run yet."]

        log.report(LIMITED, 120.0)

    assert caplog.messages == ["Mail task m: No run yet.", LIMITED]


@pytest.mark.parametrize(
    ("exec_time", "warnings"),
    [
        ("2026-07-01T23:59:59+08:00", 1),
        ("2026-07-02T00:00:00+08:00", 0),
        ("2026-07-02T08:59:00+08:00", 0),
        ("2026-07-02T09:01:00+08:00", 0),
    ],
)
def test_the_latest_run_is_old_if_it_is_of_an_earlier_day_where_quick_bi_is(
    exec_time: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    run = MailTaskRun(mail_id="m", task_id="1", status="SENT", exec_time=datetime.fromisoformat(exec_time))
    wait = WaitState(subject=MailTaskSubject("m"), selector=RunSelector(), since=0.0, run=run)
    group = WaitGroup(waits=(wait,), evaluations=(Evaluation(Outcome.SUCCEEDED, "sent", run),))
    sensor = SimpleNamespace(
        log=logging.getLogger("of a sensor"), silent_fail=False, on_missed="fail", outlets=[], quickbi_conn_id="unused"
    )
    started_at_nine = SimpleNamespace(start_date=datetime(2026, 7, 2, 1, tzinfo=UTC))

    conclude(sensor, group, {"dag_run": started_at_nine}, several=False)

    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == warnings
