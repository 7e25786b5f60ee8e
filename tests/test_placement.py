"""Where a deferred wait ends: every row of the table in docs/sensor.md."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi._wait.placement import Ending, ending_of
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.assets.quickbi import mail_task_asset
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

DOCS = Path(__file__).resolve().parent.parent / "docs"


class WithPostExecute(QuickBIMailTaskSensor):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do something."""


def ending(sensor: type[QuickBIMailTaskSensor] = QuickBIMailTaskSensor, **given: Any) -> Ending:
    supported, several, is_open = (given.pop(name, default) for name, default in DEFAULTS.items())
    task = sensor(task_id="t", mail_id="m", deferrable=True, **given)
    selector = RunSelector() if is_open else RunSelector(executed_after=datetime(2026, 7, 1, tzinfo=UTC))
    group = WaitGroup.of([WaitState(subject=MailTaskSubject("m"), selector=selector, since=0.0)], required=1)
    return ending_of(task, group, supported=supported, several=several)


DEFAULTS = {"supported": True, "several": False, "is_open": False}
ROWS: dict[str, dict[str, Any]] = {
    "is none of the below": {},
    "has outlets": {"outlets": [mail_task_asset("m")]},
    "has an `on_success_callback` or a `post_execute`": {"on_success_callback": print},
    "waits for several (its XCom is a list)": {"several": True},
    'accepts any latest run (`window="latest"`, runs by hand)': {"is_open": True},
    "runs where a plugin has listeners, such as OpenLineage's": {"supported": False},
    "has `end_in_triggerer=False`": {"end_in_triggerer": False},
}


def test_every_row_of_the_table_is_tried() -> None:
    section = (DOCS / "sensor.md").read_text(encoding="utf-8").partition("### Where a wait ends")[2].partition("###")[0]
    rows = re.findall(r"^\| (.+?) \| (?:in|on) ", section, re.MULTILINE)
    assert rows == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_wait_ends_where_the_table_says(row: str) -> None:
    assert ending(**ROWS[row]) is (Ending.WORKER if ROWS[row] else Ending.TRIGGERER)


def test_a_task_with_post_execute_ends_on_a_worker_and_one_without_xcom_stores_none() -> None:
    assert ending(WithPostExecute) is Ending.WORKER
    assert ending(post_execute=lambda context, result: None) is Ending.WORKER
    assert ending(do_xcom_push=False) is Ending.TRIGGERER_WITHOUT_XCOM
