"""Every example in a real Airflow: scheduled, in a backfill, by hand, without a logical date, and by an asset."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from dev.standalone import AirflowDidNotStartError
from tests.live.conftest import BY_ASSET, EXAMPLES
from tests.live.runs import Run, status_calls, until

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Airflow, Api

SHANGHAI = ZoneInfo("Asia/Shanghai")
WAITS = {"daily-sales": "Daily sales", "daily-stock": "Daily stock levels"}
#: The examples on a schedule of time; the other one runs when a report was sent.
TIMED = sorted(EXAMPLES - {"quickbi_after_delivery"})


def last_due() -> datetime:
    """Return when the examples' schedule, 09:00 in Shanghai, was last due."""
    now = datetime.now(SHANGHAI)
    today = now.replace(hour=9, minute=0, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


@dataclass
class World:
    """The local Quick BI of the examples and the Airflow that runs them."""

    quickbi: LocalQuickBI
    airflow: Airflow
    api: Api
    due: datetime = field(default_factory=last_due)
    sent: dict[str, str] = field(default_factory=dict)

    def send(self, when: datetime | None = None) -> dict[str, str]:
        """Let every awaited mail task have a run that was sent; return mail id to TaskId."""
        when = when or datetime.now(UTC)
        self.sent = {mail_id: self.quickbi.add_run(mail_id, exec_time=when, status="SENT") for mail_id in WAITS}
        return self.sent

    def runs(self, dag_id: str) -> dict[str, Run]:
        """Return the DAG runs by their ids."""
        found = self.api.get(f"/dags/{dag_id}/dagRuns?limit=50")["dag_runs"]
        return {run["dag_run_id"]: Run(self.airflow, self.api, dag_id, run["dag_run_id"]) for run in found}

    def appears(self, dag_id: str, prefix: str) -> Run:
        """Wait for a DAG run whose id starts with a prefix."""

        def found() -> Run | None:
            return next((run for id_, run in self.runs(dag_id).items() if id_.startswith(prefix)), None)

        what = f"{dag_id} has a run {prefix}"
        return until(found, what, explain=lambda: str(sorted(self.runs(dag_id)))) or pytest.fail(what)

    def awaits(self, run: Run, task_id: str, mail_id: str) -> None:
        """Wait until a task has polled a mail task in vain and waits in the triggerer."""
        before = len(status_calls(self.quickbi, mail_id))
        run.reaches(task_id, "deferred")
        until(lambda: len(status_calls(self.quickbi, mail_id)) > before, f"{mail_id} is polled", explain=run.describe)

    def green(self, run: Run, sent: dict[str, str] | None = None) -> None:
        """Assert that a run succeeded, having waited for the runs that were sent."""
        sent = sent or self.sent
        run.succeed(timeout=300)
        assert set(run.states().values()) == {"success"}, run.describe()
        match run.dag_id.removeprefix(BY_ASSET):
            case "quickbi_wait_for_scheduled_report":
                assert run.xcom("report_sent")["task_id"] == sent["daily-sales"]
                assert f"Archiving run {sent['daily-sales']}" in run.logs()
            case "quickbi_list_and_wait":
                waited = {run.xcom("report_sent", index)["task_id"] for index in range(len(WAITS))}
                assert waited == set(sent.values())
            case "quickbi_wait_in_a_window":
                assert run.xcom("sales_of_the_day")["task_id"] == sent["daily-sales"]
                assert run.xcom("stock_after_nine")["task_id"] == sent["daily-stock"]
            case "quickbi_send_report":
                own = run.xcom("send_report")
                assert own["status"] == "SENT"
                assert any(own["task_id"] in known.values() for known in self.quickbi.runs("weekly-review"))
                assert f"Run {own['task_id']}" in run.logs()
            case "quickbi_refresh_and_send":
                assert run.xcom("refresh")["status"] == "SUCCESS"
                assert run.xcom("sent")["status"] == "SENT"
                assert run.xcom("refresh")["ended_at"] <= run.xcom("sent")["exec_time"]
            case "quickbi_notify_on_failure":
                assert "The load succeeded: no mail." in run.logs()
                assert self.quickbi.starts("load-failed") == 0
            case other:
                raise AssertionError(other)


@pytest.fixture(scope="module")
def world(quickbi: LocalQuickBI, airflow: Airflow, api: Api) -> World:
    """Mail tasks of the examples, whose latest runs started within five minutes after the examples were last due."""
    for mail_id, name in WAITS.items():
        quickbi.add_mail_task(name, mail_id=mail_id)
    quickbi.add_mail_task("A load failed", mail_id="load-failed")
    quickbi.add_mail_task("Weekly review", mail_id="weekly-review", run_duration=1)
    quickbi.datasets.add("Sales", dataset_id="sales-cube")
    world = World(quickbi, airflow, api)
    world.send(min(world.due + timedelta(minutes=5), datetime.now(SHANGHAI)))
    for dag_id in TIMED:
        api.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})
    return world


def trigger(world: World, dag_id: str, how: str) -> Run:
    """Start a DAG run by hand, through the API without a logical date, or by an asset event."""
    if how == "by an asset":
        name = next(asset for asset in world.api.get("/assets?limit=100")["assets"] if asset["name"] == "live_example")
        variant = BY_ASSET + dag_id
        known = set(world.runs(variant))
        world.api.post("/assets/events", {"asset_id": name["id"]})
        new = until(lambda: sorted(set(world.runs(variant)) - known), f"{variant} is triggered")
        return world.runs(variant)[new[0]]
    if how == "by hand":
        known = set(world.runs(dag_id))
        world.airflow.run("dags", "trigger", dag_id)
        new = until(lambda: sorted(set(world.runs(dag_id)) - known), f"{dag_id} is triggered")
        return world.runs(dag_id)[new[0]]
    return Run.triggered(world.airflow, world.api, dag_id)


# The first tests see only the run of the schedule, the later ones a new one; so their order counts.


@pytest.mark.parametrize("dag_id", TIMED)
def test_an_example_is_green_when_its_schedule_starts_it(dag_id: str, world: World) -> None:
    world.green(world.appears(dag_id, "scheduled__"))


@pytest.mark.parametrize("dag_id", TIMED)
def test_a_backfill_of_an_example_never_takes_the_run_of_another_day(dag_id: str, world: World) -> None:
    before = world.due - timedelta(days=1)
    day = before.strftime("%Y-%m-%d")

    def created() -> bool:
        """Create it; on sqlite, another part of Airflow may be writing just then."""
        try:
            first = before.replace(hour=0).isoformat()
            last = before.replace(hour=23).isoformat()
            world.airflow.run("backfill", "create", "--dag-id", dag_id, "--from-date", first, "--to-date", last)
        except AirflowDidNotStartError as error:
            if "database is locked" not in str(error):
                raise
            return False
        return True

    until(created, f"the backfill of {day} is created")
    run = world.appears(dag_id, "backfill__")
    run.finish(timeout=300)

    assert datetime.fromisoformat(run.get("run_after")).astimezone(SHANGHAI).date() == before.date()
    states = run.states()
    match dag_id:
        case "quickbi_send_report" | "quickbi_refresh_and_send" | "quickbi_notify_on_failure":
            world.green(run)  # starts a run of its own
        case "quickbi_list_and_wait":
            assert states == {"list_mail_tasks": "success", "report_sent[0]": "failed", "report_sent[1]": "failed"}
        case "quickbi_wait_for_scheduled_report":
            assert states == {"report_sent": "failed", "archive": "upstream_failed"}
        case "quickbi_wait_in_a_window":
            assert states["sales_of_the_day"] == "failed", run.describe()
            assert states["stock_after_nine"] == "skipped", run.describe()
            assert states["compare"] in ("skipped", "upstream_failed")
    if dag_id not in ("quickbi_send_report", "quickbi_refresh_and_send", "quickbi_notify_on_failure"):
        assert "can no longer be seen" in run.logs()


@pytest.mark.parametrize("how", ["by hand", "without a logical date", "by an asset"])
@pytest.mark.parametrize("dag_id", TIMED)
def test_an_example_is_green_when_it_is_started(dag_id: str, how: str, world: World) -> None:
    sent = world.send()
    if how == "by an asset":
        world.api.request("PATCH", f"/dags/{BY_ASSET}{dag_id}", {"is_paused": False})

    run = trigger(world, dag_id, how)
    if dag_id == "quickbi_wait_in_a_window":
        # Its second task waits for a report that starts after the DAG run was due, which is now.
        world.awaits(run, "stock_after_nine", "daily-stock")
        run.sees(lambda: run.states()["sales_of_the_day"] == "success", "the first task is green")
        stock = world.quickbi.add_run("daily-stock", exec_time=datetime.now(UTC), status="SENT")
        sent = {**sent, "daily-stock": stock}

    world.green(run, sent)


def test_the_example_with_a_watcher_runs_when_a_report_was_sent_and_by_hand(world: World) -> None:
    dag_id = "quickbi_after_delivery"
    world.api.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})
    before = len(status_calls(world.quickbi, "daily-sales"))
    until(lambda: len(status_calls(world.quickbi, "daily-sales")) > before, "the watcher polls")

    sent = world.send()["daily-sales"]
    run = world.appears(dag_id, "asset_triggered__")
    run.succeed()
    assert sent in run.logs()

    for how in ("by hand", "without a logical date"):
        trigger(world, dag_id, how).succeed()
    with pytest.raises(AirflowDidNotStartError, match="schedule"):
        world.airflow.run(
            "backfill", "create", "--dag-id", dag_id, "--from-date", "2026-02-01", "--to-date", "2026-02-02"
        )
