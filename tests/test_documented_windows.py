"""Every row of the tables about the usual mornings and about backfills does what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from jinja2 import Environment, StrictUndefined

from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Outcome, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._wait.window import Cause, DueTime, Window, select_window
from airflow_provider_quickbi.api.models import MailTaskRun

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHANGHAI = ZoneInfo("Asia/Shanghai")
SKEW = timedelta(seconds=60)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
#: A Monday; the days around it are named by their weekday.
MONDAY = datetime(2026, 6, 1, tzinfo=SHANGHAI)
SUNDAY, TUESDAY, WEDNESDAY = MONDAY - DAY, MONDAY + DAY, MONDAY + 2 * DAY


def at(day: datetime, clock: str) -> datetime:
    hour, minute = map(int, clock.split(":"))
    return day + timedelta(hours=hour, minutes=minute)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below a heading, by their first cell."""
    section = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells[2:]}


def run(started: datetime, status: str = "SENT") -> MailTaskRun:
    return MailTaskRun("m", str(int(started.timestamp())), status, started)


@dataclass(frozen=True)
class Morning:
    """A DAG run, and runs of the mail task that count for it or not."""

    due: datetime
    counts: tuple[datetime, ...]
    others: tuple[datetime, ...]
    every: timedelta = DAY
    cause: Cause = Cause.SCHEDULE

    def selector(self, advice: str) -> RunSelector:
        """Return what a sensor waits for that is written as a page says."""
        context = {
            "data_interval_end": self.due,
            "macros": SimpleNamespace(timedelta=timedelta),
            "ti": SimpleNamespace(xcom_pull=lambda task_id: {"task_id": run(self.counts[0]).task_id}),
        }
        given = {
            name: Environment(undefined=StrictUndefined, autoescape=False).from_string(value).render(context)  # noqa: S701 - no HTML
            for name, value in re.findall(r'`(\w+)="([^`]+)"`', advice)
        }
        if "quickbi_task_id" in given:
            return RunSelector(run_id=given["quickbi_task_id"])
        if "executed_after" in given:
            return RunSelector(
                executed_after=datetime.fromisoformat(given["executed_after"]),
                executed_before=datetime.fromisoformat(given["executed_before"]),
            )
        window = Window(given.get("window", "auto"))
        due = DueTime(self.cause, self.due, (self.due + self.every, self.due + 2 * self.every))
        selector, reason = select_window(window, due, timezone=SHANGHAI, clock_skew=SKEW, now=self.due)
        for meant in re.findall(r"`auto` means `(\w+)`", advice):
            assert f'means "{meant}"' in reason
        return selector


MORNINGS = {
    "The mail goes out at 08:30, the DAG runs daily at 09:00": Morning(
        at(MONDAY, "9:00"), (at(MONDAY, "8:30"),), (at(SUNDAY, "8:30"), at(TUESDAY, "8:30"))
    ),
    "The DAG runs daily at 08:00, the mail goes out at 08:30": Morning(
        at(MONDAY, "8:00"), (at(MONDAY, "8:30"),), (at(SUNDAY, "8:30"), at(TUESDAY, "8:30"))
    ),
    "The mail goes out every hour at :15, the DAG runs hourly at :00": Morning(
        at(MONDAY, "9:00"), (at(MONDAY, "9:15"),), (at(MONDAY, "8:15"), at(MONDAY, "10:15")), every=HOUR
    ),
    "The mail goes out every hour at :15, the DAG runs hourly at :30": Morning(
        at(MONDAY, "9:30"), (at(MONDAY, "9:15"),), (at(MONDAY, "8:15"), at(MONDAY, "10:15")), every=HOUR
    ),
    "The mail goes out on Mondays at 08:00, the DAG runs weekly on Mondays at 09:00": Morning(
        at(MONDAY, "9:00"), (at(MONDAY, "8:00"),), (at(MONDAY - 7 * DAY, "8:00"),), every=7 * DAY
    ),
    "The mail goes out on Mondays, the DAG runs daily": Morning(at(WEDNESDAY, "9:00"), (at(MONDAY, "8:00"),), ()),
    "The mail goes out at 23:50 or at 00:10, the DAG runs daily at 00:30": Morning(
        at(MONDAY, "0:30"),
        (at(SUNDAY, "23:50"), at(MONDAY, "0:10")),
        (at(SUNDAY, "0:10"), at(MONDAY, "23:50"), at(TUESDAY, "0:10")),
    ),
    "You trigger the DAG by hand": Morning(at(WEDNESDAY, "14:00"), (at(MONDAY, "8:00"),), (), cause=Cause.PERSON),
    "You trigger it by hand and want today's run only": Morning(
        at(MONDAY, "14:00"), (at(MONDAY, "8:00"),), (at(SUNDAY, "8:00"),), cause=Cause.PERSON
    ),
    "Another task starts the run": Morning(at(MONDAY, "9:00"), (at(MONDAY, "9:05"),), (at(MONDAY, "9:06"),)),
}


def test_every_morning_of_the_page_is_tried() -> None:
    assert set(rows("which-run.md", "The usual mornings")) == set(MORNINGS)


@pytest.mark.parametrize("what", MORNINGS)
def test_a_morning_is_as_the_page_says(what: str) -> None:
    morning = MORNINGS[what]
    selector = morning.selector(rows("which-run.md", "The usual mornings")[what][0])
    assert [started for started in morning.counts if not selector.matches(run(started))] == []
    assert [started for started in morning.others if selector.matches(run(started))] == []


def poll(cause: Cause, now: datetime, latest: MailTaskRun | None, due: datetime | None = None) -> Outcome:
    """Return what the first poll means for the DAG run of Monday, due at 09:00, unless another is given."""
    due = at(MONDAY, "9:00") if due is None else due
    times = DueTime(cause, due, (due + DAY, due + 2 * DAY))
    selector, _ = select_window(Window.AUTO, times, timezone=SHANGHAI, clock_skew=SKEW, now=now)
    wait = WaitState(subject=MailTaskSubject("m"), selector=selector, since=now.timestamp())
    return evaluate(wait, [latest] if latest else [], now.timestamp())[1].outcome


#: What starts the DAG run, when the sensor polls, and the latest run that Quick BI shows then; and what comes of it.
SCHEDULED = Cause.SCHEDULE
OF_MONDAY, OF_TUESDAY, OF_WEDNESDAY = (run(at(day, "9:30")) for day in (MONDAY, TUESDAY, WEDNESDAY))
OF_SUNDAY = run(at(SUNDAY, "9:30"))
CASES: dict[str, list[tuple[Cause, datetime, MailTaskRun | None, Outcome]]] = {
    "Scheduled, on time": [
        (SCHEDULED, at(MONDAY, "9:00"), OF_SUNDAY, Outcome.WAITING),
        (SCHEDULED, at(MONDAY, "9:31"), OF_MONDAY, Outcome.SUCCEEDED),
    ],
    "Scheduled, but starts at 15:00 after an outage": [(SCHEDULED, at(MONDAY, "15:00"), OF_MONDAY, Outcome.SUCCEEDED)],
    "Scheduled, but starts the next day at 08:00, before that day's report": [
        (SCHEDULED, at(TUESDAY, "8:00"), OF_MONDAY, Outcome.SUCCEEDED)
    ],
    "Scheduled, but starts the next day at 10:00, after that day's report": [
        (SCHEDULED, at(TUESDAY, "10:00"), OF_TUESDAY, Outcome.MISSED)
    ],
    "Backfill or `catchup=True` over three past days": [
        (SCHEDULED, at(WEDNESDAY, "12:00"), OF_WEDNESDAY, Outcome.MISSED),
        (SCHEDULED, at(WEDNESDAY, "12:00"), OF_MONDAY, Outcome.SUCCEEDED),
    ],
    "Backfill of a past day on which the mail task had its last run": [
        (SCHEDULED, at(WEDNESDAY, "12:00"), OF_MONDAY, Outcome.SUCCEEDED)
    ],
    "Backfill of a past day without any run since the day before": [
        (SCHEDULED, at(WEDNESDAY, "12:00"), OF_SUNDAY, Outcome.WINDOW_OVER),
        (SCHEDULED, at(WEDNESDAY, "12:00"), None, Outcome.WINDOW_OVER),
    ],
    "Backfill that includes today": [(SCHEDULED, at(MONDAY, "9:10"), OF_SUNDAY, Outcome.WAITING)],
    "Started by hand or through the API": [(Cause.PERSON, at(WEDNESDAY, "12:00"), OF_SUNDAY, Outcome.SUCCEEDED)],
    "Triggered by an asset": [
        (Cause.ASSET, at(MONDAY, "9:00"), OF_SUNDAY, Outcome.WAITING),
        (Cause.ASSET, at(MONDAY, "9:31"), OF_MONDAY, Outcome.SUCCEEDED),
        (Cause.ASSET, at(TUESDAY, "10:00"), OF_TUESDAY, Outcome.MISSED),
    ],
    "Cleared on the same day": [
        (SCHEDULED, at(MONDAY, "18:00"), OF_MONDAY, Outcome.SUCCEEDED),
        (SCHEDULED, at(MONDAY, "18:00"), run(at(MONDAY, "9:30"), "FAILED"), Outcome.FAILED),
    ],
    "Cleared on a later day": [
        (SCHEDULED, at(WEDNESDAY, "8:00"), OF_TUESDAY, Outcome.MISSED),
        (SCHEDULED, at(WEDNESDAY, "8:00"), OF_MONDAY, Outcome.SUCCEEDED),
    ],
}
#: What goes on from a stored state is tried where states are stored.
STORED = {
    "Retry after `QuickBIUnavailable`": (
        "airflow/test_outcomes.py",
        "test_a_retry_after_an_outage_goes_on_in_the_same_window",
    ),
    "Triggerer restarted, or the provider upgraded": (
        "airflow/test_triggers.py",
        "test_a_trigger_that_is_moved_goes_on_where_it_was",
    ),
}


def test_every_case_of_the_page_is_tried() -> None:
    assert set(rows("backfills.md", "Sensor")) == set(CASES) | set(STORED)
    for file, test in STORED.values():
        assert f"def {test}(" in (DOCS.parent / "tests" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("what", CASES)
def test_a_late_or_repeated_dag_run_ends_as_the_page_says(what: str) -> None:
    _, outcome = rows("backfills.md", "Sensor")[what]
    for cause, now, latest, expected in CASES[what]:
        assert poll(cause, now, latest) is expected
    ends = {expected for *_, expected in CASES[what]}
    assert ("QuickBIRunMissed" in outcome) == (Outcome.MISSED in ends) or outcome == "as scheduled"
    assert ("AirflowSensorTimeout" in outcome) == (Outcome.WINDOW_OVER in ends)
