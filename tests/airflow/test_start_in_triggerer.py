"""A sensor that starts in the triggerer: as on a worker, and on a worker where something is wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi.api.clock import Clock, use
from airflow_provider_quickbi.testing import Fault

pytestmark = pytest.mark.skipif(not _airflow.triggers_start_tasks(), reason="Airflow 3.3 and later")

DUE = datetime(2026, 7, 1, 1, 0, tzinfo=UTC)
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
TIMEOUT = 600.0


class Supervisor:
    """What a trigger can store and read while it runs: the XComs of its task by key, and connections."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.lengths: dict[str, int | None] = {}
        self.refuses: set[str] = set()

    def wait(self) -> Any:
        """Return what is stored of the wait's evaluation, ``None`` if it has not started."""
        stored = self.xcoms.get("quickbi_wait")
        return stored and stored["evaluations"][0]

    async def asend(self, message: Any) -> Any:
        match type(message).__name__:
            case "SetXCom":
                if message.key in self.refuses:
                    raise RuntimeError("the API server is away")
                self.xcoms[message.key] = message.value
                self.lengths[message.key] = message.mapped_length
            case "DeleteXCom":
                self.xcoms.pop(message.key, None)
            case "GetXCom":
                return SimpleNamespace(value=self.xcoms.get(message.key))
            case _:
                return self.send(message)
        return None

    def send(self, message: Any) -> Any:
        """Return a connection of the metadata database."""
        from airflow.models.connection import Connection
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse
        from airflow.utils.session import create_session

        if type(message).__name__ != "GetConnection":
            return None
        with create_session() as session:
            found = session.query(Connection).filter(Connection.conn_id == message.conn_id).one_or_none()
            if found is None:
                return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": message.conn_id})
            names = ("conn_id", "conn_type", "host", "schema", "login", "password", "port", "extra")
            return ConnectionResult(**{name: getattr(found, name) for name in names})


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    from airflow.sdk.execution_time import task_runner

    found = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", found, raising=False)
    return found


class Started:
    """A task that Airflow has deferred without a worker.

    :param dag: of the task, with the id ``wait``.
    :param run_type: of the DAG run.
    :param try_number: of the task.
    :param deferred_at: when Airflow deferred it; by default now.
    :param conf: of the DAG run.
    """

    def __init__(
        self,
        dag: Any,
        run_type: str = "scheduled",
        try_number: int = 1,
        deferred_at: datetime | None = None,
        conf: dict[str, Any] | None = None,
    ) -> None:
        self.task = dag.get_task("wait")
        self._dag = dag
        self._deferred_at = deferred_at or datetime.now(UTC)
        no_interval = run_type == "asset_triggered"
        self._dag_run = {
            "dag_id": dag.dag_id,
            "run_id": "r",
            "logical_date": None if no_interval else DUE - timedelta(days=1),
            "data_interval_start": None if no_interval else DUE - timedelta(days=1),
            "data_interval_end": None if no_interval else DUE,
            "run_after": DUE,
            "start_date": DUE + timedelta(seconds=5),
            "end_date": None,
            "run_type": run_type,
            "state": "running",
            "conf": conf,
            "consumed_asset_events": [],
            "partition_key": None,
        }
        self._ti = {
            "id": uuid.UUID(int=7),
            "dag_version_id": uuid.UUID(int=8),
            "task_id": "wait",
            "dag_id": dag.dag_id,
            "run_id": "r",
            "try_number": try_number,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
        }

    def trigger(self) -> Any:
        """Return the trigger as Airflow's triggerer makes it of what the DAG processor stored."""
        from airflow.executors.workloads.task import TaskInstanceDTO
        from airflow.jobs.triggerer_job_runner import TriggerRunner
        from airflow.models.trigger import Trigger
        from airflow.serialization.decoders import smart_decode_trigger_kwargs
        from airflow.serialization.serialized_objects import DagSerialization

        encoded = DagSerialization.to_dict(self._dag)
        arguments: Any = DagSerialization.from_dict(encoded).get_task("wait").start_trigger_args
        stored = Trigger(classpath=arguments.trigger_cls, kwargs=arguments.trigger_kwargs)
        decoded = {name: smart_decode_trigger_kwargs(value) for name, value in stored.kwargs.items()}
        module, _, name = arguments.trigger_cls.rpartition(".")
        trigger = getattr(__import__(module, fromlist=[name]), name)(**decoded)
        ti = TriggerRunner.create_runtime_ti(TaskInstanceDTO(**self._ti), encoded, self._dag_run)
        context = ti.get_template_context()
        trigger.task_instance = ti
        trigger.timeout_after = self._deferred_at + arguments.timeout
        trigger.render_template_fields(context)
        return trigger

    def on_worker(self) -> tuple[Any, Any]:
        """Return the task, rendered, and its context as a worker has them."""
        from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun
        from airflow.sdk.api.datamodels._generated import TIRunContext
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        server = TIRunContext.model_construct(dag_run=DagRun(**self._dag_run), max_tries=0)
        ti = RuntimeTaskInstance.model_construct(**self._ti, task=self.task, _ti_context_from_server=server)
        context = ti.get_template_context()
        ti.render_templates(context)
        return ti.task, context


def events(*triggers: Any) -> list[Any]:
    """Run triggers together on one event loop, and return their events."""

    async def run() -> list[Any]:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(anext(trigger.run()) for trigger in triggers))

    return asyncio.run(run())


def on_worker(case: Started, event: Any = None) -> Any:
    """Start the task on a worker, or resume it there with an event."""
    task, context = case.on_worker()
    context["ti"] = SimpleNamespace(xcom_push=lambda **kwargs: None, try_number=1, max_tries=0)
    return task._wait_deferred(context) if event is None else task.execute_complete(context, event)


@pytest.fixture
def started(airflow, quickbi, supervisor):
    """Parse a DAG with one sensor."""

    def start(schedule: Any = "0 9 * * *", **given: Any) -> Started:
        from airflow.providers.common.compat.sdk import DAG

        from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

        of_run = {name: given.pop(name) for name in ("run_type", "try_number", "deferred_at", "conf") if name in given}
        arguments = {"deferrable": True, "poke_interval": 0.05, "timeout": TIMEOUT, **given}
        if "subscribe_name" not in given:
            arguments.setdefault("mail_id", "report")
        with DAG("d", schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            QuickBIMailTaskSensor(task_id="wait", **arguments)
        return Started(dag, **of_run)

    return start


# As on a worker


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual", "asset_triggered"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"window": "day"},
        {"window": "schedule", "clock_skew": 5},
        {"window": "latest"},
        {"schedule": "0 * * * *"},
        {"executed_after": "{{ dag_run.run_after }}", "start_timeout": timedelta(minutes=5)},
        {"executed_after": "2026-07-01T09:00:00", "executed_before": "{{ macros.ds_add('2026-07-01', 1) }}"},
        {"quickbi_task_id": "{{ 7218865303929605212 }}", "unreachable_timeout": 60},
        {"mail_id": ["report", "{{ run_id }}"], "require": "any", "on_failed": "wait", "silent_fail": True},
    ],
    ids=lambda given: ",".join(given) or "nothing",
)
def test_a_wait_starts_in_the_triggerer_with_what_it_would_start_with_on_a_worker(started, run_type, given):
    from airflow_provider_quickbi._wait.triggerer_start import start_in_triggerer

    case = started(run_type=run_type, deferred_at=NOON, **given)
    trigger = case.trigger()
    with use(Clock(NOON.timestamp)):
        task, context = case.on_worker()
        there = task._start(context)
        here, options = asyncio.run(
            start_in_triggerer(trigger.start, trigger.since, trigger.task_instance, trigger.log)
        )

    assert encode_group(here) == encode_group(there)
    assert options.poke_interval == task.poke_interval
    assert options.quickbi_conn_id == "quickbi_default"


def test_a_report_that_is_sent_ends_the_task_without_a_worker(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    task_id = quickbi.add_run("report", exec_time=DUE)

    (event,) = events(started(executed_after="{{ data_interval_end }}").trigger())

    assert type(event).__name__ == "TaskSuccessEvent"
    assert supervisor.xcoms["return_value"]["task_id"] == task_id
    assert supervisor.xcoms["quickbi_console_url"].startswith("http")


def test_of_several_mail_tasks_the_triggerer_stores_a_list_to_map_over(started, quickbi, supervisor):
    for mail_id in ("a", "b"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id, exec_time=DUE)

    (event,) = events(started(mail_id=["a", "b"], executed_after="{{ data_interval_end }}").trigger())

    assert type(event).__name__ == "TaskSuccessEvent"
    assert [run["mail_id"] for run in supervisor.xcoms["return_value"]] == ["a", "b"]
    assert supervisor.lengths["return_value"] == 2


def test_a_later_try_does_not_keep_the_result_of_an_earlier_one(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report", exec_time=DUE, outcome="FAILED")
    supervisor.xcoms["return_value"] = {"task_id": "of the first try"}

    (event,) = events(started(try_number=2, executed_after="{{ data_interval_end }}").trigger())

    assert event.payload["kind"] == "finished"
    assert "return_value" not in supervisor.xcoms


def test_a_later_try_that_cannot_start_in_the_triggerer_does_not_keep_it_either(started, quickbi, supervisor):
    supervisor.xcoms["return_value"] = {"task_id": "of the first try"}

    (event,) = events(started(try_number=2, quickbi_conn_id="only_workers_have_it").trigger())

    assert event.payload["kind"] == "start"
    assert "return_value" not in supervisor.xcoms


def test_a_later_try_ends_on_a_worker(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report", exec_time=DUE)

    (event,) = events(started(try_number=2, executed_after="{{ data_interval_end }}").trigger())

    assert type(event).__name__ == "TriggerEvent"
    assert event.payload["kind"] == "finished"


# Restarts


def _killed(trigger: Any, condition: Callable[[], Any]) -> None:
    """Run a trigger until something is so, and kill the triggerer."""

    async def run() -> None:
        running = asyncio.ensure_future(anext(trigger.run()))
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_a_trigger_that_is_made_anew_goes_on_where_the_last_one_was(started, quickbi, supervisor, at_poll):
    quickbi.add_mail_task("Report", mail_id="report")
    first = quickbi.add_run("report", exec_time=DUE, status="PROCESSING")
    case = started(executed_after="{{ data_interval_end }}")

    _killed(case.trigger(), lambda: (supervisor.wait() or {}).get("run"))
    quickbi.finish_run(first)
    quickbi.add_run("report", exec_time=DUE + timedelta(hours=1))  # it hides the first from whoever asks for the latest
    (event,) = events(case.trigger())

    assert type(event).__name__ == "TaskSuccessEvent"
    assert supervisor.xcoms["return_value"]["task_id"] == first


def test_a_recreated_trigger_neither_renders_nor_looks_up_names_again(started, quickbi, supervisor):
    """Meanwhile another mail task has the name, and the template would give another instant."""
    quickbi.add_mail_task("Report", mail_id="report")
    now = "{{ macros.datetime.now(macros.dateutil.tz.UTC) }}"
    case = started(subscribe_name="Report", executed_after=now, clock_skew=0, poke_interval=30)
    _killed(case.trigger(), supervisor.wait)
    quickbi.add_mail_task("Report", mail_id="another")
    task_id = quickbi.add_run("report", exec_time=datetime.now(UTC) + timedelta(seconds=1))
    listed = quickbi.count("GetMailTaskList")
    recreated = case.trigger()
    recreated.start = replace(recreated.start, poll=replace(recreated.start.poll, poke_interval=0.05))

    (event,) = events(recreated)

    assert type(event).__name__ == "TaskSuccessEvent"
    assert supervisor.xcoms["return_value"]["task_id"] == task_id
    assert quickbi.count("GetMailTaskList") == listed


def test_a_connection_that_is_unreadable_when_a_trigger_is_recreated_is_an_outage(
    started, quickbi, supervisor, monkeypatch
):
    quickbi.add_mail_task("Report", mail_id="report")
    case = started(executed_after="{{ data_interval_end }}", unreachable_timeout=0.5)
    _killed(case.trigger(), supervisor.wait)
    monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT")

    (event,) = events(case.trigger())

    assert event.payload["kind"] == "finished"
    assert event.payload["group"]["evaluations"][0]["outcome"] == "unavailable"


def test_a_later_try_is_not_pinned_to_the_run_of_an_earlier_one(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report", exec_time=DUE, outcome="FAILED")
    given = {"executed_after": "{{ data_interval_end }}"}
    first = started(**given).trigger()
    events(first)
    asyncio.run(first.store(first.wait.group))
    later = quickbi.add_run("report", exec_time=DUE + timedelta(hours=1))

    (event,) = events(started(try_number=2, deferred_at=datetime.now(UTC) + timedelta(minutes=5), **given).trigger())

    evaluation = event.payload["group"]["evaluations"][0]
    assert (evaluation["outcome"], evaluation["run"]["task_id"]) == ("succeeded", later)


def test_timeout_counts_from_when_airflow_deferred_the_task(started, quickbi):
    quickbi.add_mail_task("Report", mail_id="report")
    case = started(executed_after="{{ data_interval_end }}", deferred_at=datetime.now(UTC) - timedelta(seconds=TIMEOUT))

    (event,) = events(case.trigger())

    assert event.payload["kind"] == "finished"
    assert "timed_out" in str(event.payload["group"]["evaluations"]).lower()


# On a worker, where something is wrong


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"executed_after": "{{ data_interval_end }}", "run_type": "asset_triggered"}, "uses data_interval_end,"),
        ({"mail_id": "{{ dag_run.conf['report'] }}", "conf": {}}, r"mail_id uses dag_run\.conf\['report'\],"),
        ({"mail_id": "{{ dag_run.conf['report'] }}", "conf": {"report": ""}}, "mail_id is empty"),
        ({"executed_after": "{{ ds }} o'clock"}, "executed_after is"),
        ({"quickbi_conn_id": "no_such_connection"}, "no_such_connection"),
        ({"subscribe_name": "No such report"}, "No such report"),
        ({"mail_id": "{{ run_id }}", "outlets": "quickbi://x/other"}, "outlet"),
    ],
    ids=["no interval", "no conf", "empty", "instant", "connection", "name", "outlet"],
)
def test_what_is_wrong_is_said_on_a_worker_as_if_the_task_had_started_there(started, quickbi, given, said):
    from airflow_provider_quickbi.assets.quickbi import mail_task_asset

    if "outlets" in given:
        given = {**given, "outlets": [mail_task_asset("other")]}
    quickbi.add_mail_task("Report", mail_id="report")
    case = started(**given)

    (event,) = events(case.trigger())
    assert event.payload["kind"] == "start"
    errors = []
    for resume in (False, True):
        with pytest.raises(Exception, match=said) as caught:
            on_worker(case, event.payload if resume else None)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def test_a_wait_whose_xcoms_cannot_be_stored_starts_on_a_worker_with_its_time(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    supervisor.refuses = {"quickbi_wait"}
    case = started(executed_after="{{ data_interval_end }}", deferred_at=NOON)

    (event,) = events(case.trigger())

    assert event.payload["kind"] == "start"
    assert event.payload["carry"] == {"since": NOON.timestamp()}


def test_a_result_that_cannot_be_stored_ends_the_task_on_a_worker(started, quickbi, supervisor):
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report", exec_time=DUE)
    supervisor.refuses = {"return_value"}

    (event,) = events(started(executed_after="{{ data_interval_end }}").trigger())

    assert event.payload["kind"] == "finished"


# Names


def test_waits_that_start_together_share_one_list_of_names(started, quickbi, supervisor, monkeypatch):
    from airflow_provider_quickbi._wait import shared_listing

    monkeypatch.setattr(shared_listing, "FRESH_SECONDS", 600.0)  # however slow the machine is
    for number in range(30):
        quickbi.add_mail_task(f"Report {number}", mail_id=f"m{number}")
        quickbi.add_run(f"m{number}", exec_time=DUE)
    given = {"executed_after": "{{ data_interval_end }}"}

    ended = events(*(started(subscribe_name=f"Report {number}", **given).trigger() for number in range(30)))

    assert {type(event).__name__ for event in ended} == {"TaskSuccessEvent"}
    assert quickbi.count("GetMailTaskList") == 1


def test_a_name_is_looked_up_until_quick_bi_can_be_reached_again(started, quickbi, supervisor, monkeypatch):
    from airflow_provider_quickbi._wait import shared_listing

    monkeypatch.setattr(shared_listing, "FRESH_SECONDS", 0.0)
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report", exec_time=DUE)
    quickbi.fail("GetMailTaskList", Fault.internal_error(), times=8)

    (event,) = events(started(subscribe_name="Report", executed_after="{{ ds }}").trigger())

    assert type(event).__name__ == "TaskSuccessEvent"


def test_an_outage_of_the_name_lookup_is_not_tolerated_twice(started, quickbi, supervisor, monkeypatch):
    from airflow_provider_quickbi._wait import shared_listing
    from airflow_provider_quickbi.exceptions import QuickBIUnavailable

    monkeypatch.setattr(shared_listing, "FRESH_SECONDS", 0.0)
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.fail("GetMailTaskList", Fault.internal_error(), times=None)
    case = started(
        subscribe_name="Report",
        executed_after="{{ ds }}",
        unreachable_timeout=0.3,
    )

    (event,) = events(case.trigger())
    assert event.payload["kind"] == "start"
    tried = quickbi.count("GetMailTaskList")
    with pytest.raises(QuickBIUnavailable):
        on_worker(case, event.payload)

    assert quickbi.count("GetMailTaskList") <= 2 * tried
