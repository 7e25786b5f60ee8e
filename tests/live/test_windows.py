"""Catch-up and a real backfill over past days: only the day on which the report was sent turns green."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from dev.standalone import AirflowDidNotStartError
from tests.live.runs import Run, until

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Airflow, Api

MODES = ("poke", "deferrable")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAYS = [TODAY - timedelta(days=ago) for ago in (2, 1, 0)]


@pytest.fixture(scope="module", autouse=True)
def _sent_today(quickbi: LocalQuickBI) -> None:
    """The latest run is of today, a little after today's DAG run was due; yesterday's can no longer be seen."""
    quickbi.add_mail_task("Every morning", mail_id="live-window")
    for day in DAYS:
        quickbi.add_run("live-window", exec_time=min(day + timedelta(minutes=5), datetime.now(UTC)), status="SENT")


def finished(airflow: Airflow, api: Api, dag_id: str, days: list[datetime]) -> dict[datetime, Run]:
    """Wait until the DAG has run for each day, and return the runs."""

    def runs() -> dict[datetime, Run]:
        found = {
            datetime.fromisoformat(run["run_after"]): Run(airflow, api, dag_id, run["dag_run_id"])
            for run in api.get(f"/dags/{dag_id}/dagRuns?limit=50")["dag_runs"]
        }
        return found if set(days) <= set(found) else {}

    found = until(runs, f"{dag_id} runs for {days}", explain=lambda: str(api.get(f"/dags/{dag_id}/dagRuns")))
    for day in days:
        found[day].finish()
    return found


@pytest.mark.parametrize("mode", MODES)
def test_catching_up_turns_only_the_day_green_on_which_the_report_was_sent(
    mode: str, airflow: Airflow, api: Api
) -> None:
    dag_id = f"live_catchup_{mode}"
    api.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    runs = finished(airflow, api, dag_id, DAYS)

    for day in DAYS[:-1]:
        assert runs[day].states() == {"wait": "failed", "skip": "skipped"}, runs[day].describe()
        assert "can no longer be seen" in runs[day].logs()
    assert runs[TODAY].states() == {"wait": "success", "skip": "success"}, runs[TODAY].describe()


@pytest.mark.parametrize("mode", MODES)
def test_a_backfill_of_past_days_is_red_because_their_runs_can_no_longer_be_seen(
    mode: str, airflow: Airflow, api: Api
) -> None:
    dag_id = f"live_backfill_{mode}"
    api.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})
    first, last = (day.strftime("%Y-%m-%d") for day in (DAYS[0], DAYS[1]))

    def created() -> bool:
        """Create it; on sqlite, another part of Airflow may be writing just then."""
        try:
            airflow.run("backfill", "create", "--dag-id", dag_id, "--from-date", first, "--to-date", last)
        except AirflowDidNotStartError as error:
            if "database is locked" in str(error):
                return False
            if "AlreadyRunningBackfill" not in str(error):
                raise
        return True

    until(created, "the backfill is created")

    runs = finished(airflow, api, dag_id, DAYS[:-1])
    for day in DAYS[:-1]:
        assert runs[day].states() == {"wait": "failed", "skip": "skipped"}, runs[day].describe()
        assert "backfill" in runs[day].run_id
        assert 'window="auto" means "day" here: scheduled DAG run due' in runs[day].logs()
