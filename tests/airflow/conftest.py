"""Runs DAGs in Airflow itself, in this process: a migrated database for the session, and a DAG file for each run."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import logging
import os
import re
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.datasets import ACTIONS, Datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_quickbi.testing import LocalQuickBI

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
#: Seconds after which a DAG run has gone wrong, and a wait that should end before; both far beyond what is needed.
RUN_LIMIT = 300.0
WAIT_LIMIT = 120.0
#: What stands for "this try failed and Airflow would try again": the next try is far away and the run is left alone.
FAR_AWAY = timedelta(hours=1)

#: How a sensor is told to wait in each mode.
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}

#: The DAG files import what they hold from here.
_CASE = ModuleType("quickbi_dag_of_this_test")
_DAG_FILE = f"""\
from airflow.providers.common.compat.sdk import DAG
from {_CASE.__name__} import build

dag: DAG = build()
"""


#: How Airflow 3.0 prints what comes through ``logging``, and what only its developers want to see.
_LOGGED = re.compile(r"\[\d{4}-\d\d-\d\d.*\{\w+\.py:\d+\}|[-\d]+ [:\d]+ \[debug ")


class _Parked(Exception):
    """Nothing is left to run but tasks that wait for their next try."""


class _Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: dict[int, logging.LogRecord] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.records[id(record)] = record

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        """Keep what these loggers log."""
        loggers = [logging.getLogger(name) for name in names]
        before = [(logger.level, logger.handlers.copy()) for logger in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger, (level, handlers) in zip(loggers, before, strict=True):
                logger.handlers[:] = handlers
                logger.setLevel(level)

    def texts(self) -> list[str]:
        lines = logging.Formatter("%(levelname)s %(message)s")
        return [line for record in self.records.values() for line in lines.format(record).splitlines()]


class Ran:
    """What a DAG run has left behind.

    :param dag_id: of the DAG.
    :param errors: task -> what its tries raised.
    :param lines: what was logged.
    """

    def __init__(self, dag_id: str, errors: dict[str, list[BaseException]], lines: list[str]) -> None:
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        self.dag_id = dag_id
        self.errors = errors
        self.lines = lines
        self.log = "\n".join(lines)
        with create_session() as session:
            run = session.query(DagRun).filter(DagRun.dag_id == dag_id).one()
            self.run_id = run.run_id
            tasks = run.get_task_instances(session=session)
            self.states = {named(task): None if task.state is None else str(task.state) for task in tasks}
            self.tries = {named(task): task.try_number for task in tasks}

    def xcoms(self, key: str = "return_value") -> dict[str, Any]:
        """Return task -> XCom, read as the JSON that is stored."""
        from airflow.models import xcom
        from airflow.utils.session import create_session

        model = getattr(xcom, "XComModel", None) or xcom.BaseXCom
        with create_session() as session:
            rows = session.query(model).filter(model.dag_id == self.dag_id, model.key == key).all()
            return {named(row): json.loads(row.value) if isinstance(row.value, bytes) else row.value for row in rows}

    def error(self, task: str) -> BaseException:
        """Return what the only failed try of a task raised."""
        (error,) = self.errors[task]
        return error

    def notified(self, *texts: str) -> list[str]:
        """Return the lines of the log that hold all these texts."""
        return [line for line in self.lines if all(text in line for text in texts)]

    def asset_extras(self) -> list[dict[str, Any]]:
        """Return the extras of the asset events that the run has caused."""
        try:
            from airflow.models.asset import AssetEvent
        except ImportError:
            from airflow.models.dataset import DatasetEvent as AssetEvent  # type: ignore[no-redef]
        from airflow.utils.session import create_session

        with create_session() as session:
            events = session.query(AssetEvent).filter(AssetEvent.source_dag_id == self.dag_id)
            return [event.extra for event in events.order_by(AssetEvent.id)]


def named(row: Any) -> str:
    """Return the task of a task instance or an XCom, with its map index if it is mapped."""
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


class Airflow:
    """Runs DAGs with ``dag.test()``.

    :param dags_folder: where Airflow finds DAG files.
    """

    def __init__(self, dags_folder: Path) -> None:
        self.dags_folder = dags_folder
        self.printed: Callable[[], str] = str
        self._numbers = itertools.count(1)
        dags_folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def bag(path: Path) -> Any:
        """Let Airflow parse a DAG file, or all in a folder."""
        try:
            from airflow.dag_processing.dagbag import DagBag
        except ImportError:
            from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
        return DagBag(path)

    def parse(self, make: Callable[[], Any], **dag_arguments: Any) -> Any:
        """Write a DAG file and let Airflow parse it.

        :param make: makes the tasks.
        :param dag_arguments: of the DAG.
        :raises ImportError: with Airflow's import error.
        """
        dag_id = f"case_{next(self._numbers)}"

        def build() -> Any:
            from airflow.providers.common.compat.sdk import DAG

            begin = datetime(2026, 1, 1, tzinfo=UTC)
            with DAG(dag_id, schedule=None, start_date=begin, **dag_arguments) as dag:
                make()
            return dag

        vars(_CASE)["build"] = build
        return self._parse(f"{dag_id}.py", _DAG_FILE)

    def parse_source(self, text: str) -> Any:
        """Write a DAG file with this text and let Airflow parse it.

        :raises ImportError: with Airflow's import error.
        """
        return self._parse(f"source_{next(self._numbers)}.py", text)

    def _parse(self, name: str, text: str) -> Any:
        for old in self.dags_folder.glob("*.py"):
            old.unlink()
        file = self.dags_folder / name
        file.write_text(text)
        bag = self.bag(file)
        if bag.import_errors:
            raise ImportError("\n".join(bag.import_errors.values()))
        if AIRFLOW < (3,):  # from 3.1 on dag.test() does it
            bag.sync_to_db()
        elif AIRFLOW < (3, 1):
            from airflow.dag_processing.bundles.manager import DagBundlesManager

            DagBundlesManager().sync_bundles_to_db()
            bag.sync_to_db("dags-folder", None)
        (dag,) = bag.dags.values()
        return dag

    def run_file(self, file: Path) -> Ran:
        """Run the DAG of a file."""
        return self.run_parsed(self._parse(file.name, file.read_text()))

    def run_source(self, text: str, *, event: tuple[Any, dict[str, Any]] | None = None) -> Ran:
        """Run the DAG of a file with this text.

        :param event: an asset and the extra of its event that has caused the run.
        """
        parsed = self.parse_source(text)
        if event is None:
            return self.run_parsed(parsed)
        with _caused_by(*event):
            return self.run_parsed(parsed)

    @staticmethod
    def watchers(asset: Any) -> list[Any]:
        """Return the triggers of the watchers of an asset, as the triggerer makes them from what is stored."""
        found = []
        for watcher in asset.watchers:
            classpath, arguments = watcher.trigger.serialize()
            module, _, name = classpath.rpartition(".")
            found.append(getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments))))
        return found

    def run(self, make: Callable[[], Any], *, retries: int = 1, retry_delay: timedelta = FAR_AWAY, **dag: Any) -> Ran:
        """Run a DAG until nothing is left to do, or nothing but waiting for a retry.

        :param make: makes the tasks.
        :param retries: of each task.
        :param retry_delay: far away by default, so that the state ``up_for_retry`` stays to be looked at.
        :param dag: further arguments of the DAG.
        """
        return self.run_parsed(self.parse(make, default_args={"retries": retries, "retry_delay": retry_delay}, **dag))

    def run_parsed(self, parsed: Any) -> Ran:
        """Run a DAG that Airflow has parsed."""
        self.printed()
        messages = _Messages()
        errors: dict[str, list[BaseException]] = defaultdict(list)
        try:
            with pytest.MonkeyPatch.context() as patch, messages.of("", "airflow", "airflow.task"):
                patch.setattr(time, "sleep", _without_idling(parsed.dag_id))
                _note_errors(parsed, errors, patch)
                parsed.test()
        except _Parked:
            pass
        except BaseException as error:
            # In Airflow 2.11 this one falls through dag.test(), once the task's state is set.
            if type(error).__name__ != "AirflowTaskTimeout":
                raise
        finally:
            _forget_session()
        return Ran(parsed.dag_id, errors, self._lines(messages))

    @staticmethod
    def outcome(parsed: Any) -> Ran:
        """Return what the run of a DAG has left behind, without what it raised and logged."""
        return Ran(parsed.dag_id, {}, [])

    def _lines(self, messages: _Messages) -> list[str]:
        if AIRFLOW < (3,):
            return messages.texts()
        # Airflow 3 logs with structlog, of which only the printed lines can be seen.
        printed = self.printed().splitlines()
        if AIRFLOW < (3, 1):  # 3.0 logs only in part with it, prints the rest twice, and what dag.test() does besides.
            printed = [line for line in printed if not _LOGGED.match(line)]
            return messages.texts() + printed
        return printed


@contextmanager
def _caused_by(asset: Any, extra: dict[str, Any]) -> Iterator[None]:
    """Let the next DAG run be one that an event of an asset has caused; ``dag.test()`` itself knows no events."""
    from airflow.models.asset import AssetEvent, AssetModel, association_table
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import event

    with create_session() as session:
        known = session.query(AssetModel).filter(AssetModel.uri == asset.uri).one_or_none()
        if known is None:
            known = AssetModel(name=asset.name, uri=asset.uri, group=asset.group, extra={})
            session.add(known)
            session.flush()
        happened = AssetEvent(asset_id=known.id, extra=extra)
        session.add(happened)
        session.flush()
        event_id = happened.id

    def tie(_: Any, connection: Any, run: Any) -> None:
        connection.execute(association_table.insert().values(dag_run_id=run.id, event_id=event_id))

    event.listen(DagRun, "after_insert", tie)
    try:
        yield
    finally:
        event.remove(DagRun, "after_insert", tie)


def _note_errors(parsed: Any, errors: dict[str, list[BaseException]], patch: pytest.MonkeyPatch) -> None:
    """Note what each try of a task raises."""
    if AIRFLOW < (3,):

        def note_error(context: Any) -> None:
            errors[named(context["ti"])].append(context["exception"])

        for task in parsed.tasks:
            task.on_failure_callback = [note_error, *_listed(task.on_failure_callback)]
            task.on_retry_callback = [note_error, *_listed(task.on_retry_callback)]
        return
    from airflow.sdk.execution_time import supervisor

    run_task_in_process = supervisor.run_task_in_process

    def run_and_note(ti: Any, *args: Any, **kwargs: Any) -> Any:
        result = run_task_in_process(ti, *args, **kwargs)
        if result.error is not None:
            errors[named(ti)].append(result.error)
        return result

    # Below 3.2 callbacks are not told what was raised, if it is dag.test() that runs the task.
    patch.setattr(supervisor, "run_task_in_process", run_and_note)


def _listed(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return [callbacks] if callable(callbacks) else list(callbacks)


def _forget_session() -> None:
    from airflow import settings

    assert settings.Session is not None
    settings.Session.remove()


def _without_idling(dag_id: str) -> Callable[[float], None]:
    """Return a ``time.sleep`` that shortens the seconds for which ``dag.test()`` idles, and ends what cannot go on."""
    sleep = time.sleep
    give_up_at = time.monotonic() + RUN_LIMIT

    def sleep_less(seconds: float) -> None:
        caller = sys._getframe(1).f_code
        if not (caller.co_name == "test" and caller.co_filename.endswith("dag.py")):
            sleep(seconds)
            return
        if _waits_for_a_retry(dag_id):
            raise _Parked
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{dag_id} is not over after {RUN_LIMIT} s")
        sleep(0.02)

    return sleep_less


def _waits_for_a_retry(dag_id: str) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import State

    with create_session() as session:
        states = {state for (state,) in session.query(TaskInstance.state).filter(TaskInstance.dag_id == dag_id)}
    return "up_for_retry" in states and states <= {"up_for_retry", None, *State.finished}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let only warnings about this project's modules be errors here, where the whole of Airflow runs in the process."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi"))


@pytest.fixture(scope="session")
def airflow_session() -> Airflow:
    """A migrated database and an empty DAGs folder, for all tests."""
    home = Path(os.environ["AIRFLOW_HOME"])
    assert home.name.startswith("airflow-provider-quickbi-tests-")
    from airflow.utils import db
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF").close())
    db.initdb()
    sys.modules[_CASE.__name__] = _CASE
    if AIRFLOW >= (3,):
        _mend_dag_test()
    airflow = Airflow(home / "dags")
    airflow.run(_do_nothing)  # what is slow the first time should not be part of a test
    return airflow


def _mend_dag_test() -> None:
    """Let ``dag.test()`` of Airflow 3.0 to 3.2 be like a worker in what matters, and faster."""
    from airflow.sdk.execution_time import supervisor
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from structlog.dev import RichTracebackFormatter, plain_traceback

    # It makes an API server for every task, which takes a second, and a picture of every traceback, which does, too.
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    RichTracebackFormatter.__call__ = lambda _, *arguments: plain_traceback(*arguments)  # type: ignore[method-assign]

    first_reschedule_date = RuntimeTaskInstance.get_first_reschedule_date

    def as_a_worker_gets_it(ti: Any, context: Any) -> datetime | None:
        """Return an instant; 3.0 has text here, with which its own sensors fail."""
        found = first_reschedule_date(ti, context)
        return datetime.fromisoformat(found) if isinstance(found, str) else found

    RuntimeTaskInstance.get_first_reschedule_date = as_a_worker_gets_it  # type: ignore[assignment, method-assign]


def _do_nothing() -> None:
    from airflow.providers.common.compat.sdk import BaseOperator

    class Nothing(BaseOperator):
        def execute(self, context: Any) -> None:
            """Do nothing."""

    Nothing(task_id="nothing")


@pytest.fixture
def airflow(airflow_session: Airflow, capfd: pytest.CaptureFixture[str]) -> Airflow:
    """Airflow, to run a DAG in."""
    airflow_session.printed = lambda: capfd.readouterr().out
    return airflow_session


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """What is waited for: ``mail``, or for tests marked with ``both`` also ``dataset``."""
    return str(getattr(request, "param", "mail"))


@pytest.fixture
def quickbi(quickbi: LocalQuickBI, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Quick BI for each test, without the documented pace."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000, read_timeout=5)
    )
    return quickbi if kind == "mail" else Datasets(quickbi)


@pytest.fixture(autouse=True)
def _impatience(impatient: None) -> None:
    """Wait for nothing here that is not what a test is about."""


@pytest.fixture
def airflow_version() -> tuple[int, ...]:
    """Major and minor number."""
    return AIRFLOW


@pytest.fixture
def remembers(mode: str) -> bool:
    """Whether a wait knows what it has learnt at its next look: a rescheduled one needs Airflow 3.3."""
    return mode != "reschedule" or AIRFLOW >= (3, 3)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way to wait."""
    return request.param


@pytest.fixture
def at_look(quickbi: LocalQuickBI) -> Callable[[str, int, Callable[[], Any]], None]:
    """Do something when a mail task is asked for the nth time, before the answer is written."""

    def arrange(mail_id: str, nth: int, do: Callable[[], Any]) -> None:
        poll_count = itertools.count(1)

        def record(call: Any) -> None:
            if mail_id in (call.mail_id, call.params.get("CubeId")) and next(poll_count) == nth:
                do()

        quickbi.when_called("GetMailTaskStatus", record)

    return arrange


@pytest.fixture
def poll_count(quickbi: LocalQuickBI) -> Callable[[str], list[Any]]:
    """Return how often the status of a mail task or a dataset was asked for."""
    actions = ("GetMailTaskStatus", ACTIONS["GetMailTaskStatus"])
    return lambda mail_id: [
        call
        for call in quickbi.calls
        if call.action in actions and mail_id in (call.mail_id, call.params.get("CubeId"))
    ]


@pytest.fixture
def run_of(quickbi: Any, kind: str) -> Callable[[str], dict[str, str]]:
    """Return the XCom that the newest run should give."""

    def describe(mail_id: str, position: int = -1) -> dict[str, str]:
        if kind == "dataset":
            return dict(quickbi.xcom(mail_id, position))
        run = quickbi.runs(mail_id)[position]
        return {"mail_id": mail_id, **{key: run[key] for key in ("task_id", "status", "exec_time")}}

    return describe


@pytest.fixture
def wait(airflow: Airflow, quickbi: LocalQuickBI, sensor: Callable[..., Any]) -> Callable[..., Ran]:
    """Run a DAG with two sensors that wait alike: ``hard``, and ``soft``, which has ``soft_fail``."""

    def run(prepare: Callable[[str], Any] = lambda mail_id: None, *, mails: bool = True, **arguments: Any) -> Ran:
        for task_id in ("hard", "soft"):
            if mails:
                quickbi.add_mail_task(f"Report {task_id}", mail_id=task_id)
            prepare(task_id)

        def make() -> None:
            for task_id in ("hard", "soft"):
                sensor(task_id, soft_fail=task_id == "soft", **arguments)

        return airflow.run(make)

    return run


@pytest.fixture
def sensor_of(kind: str) -> Callable[..., Any]:
    """Make a sensor in a mode; it is called what it waits for is called unless it is told otherwise."""

    def make(mode: str, task_id: str, **arguments: Any) -> Any:
        from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor, QuickBIMailTaskSensor

        given = {"poke_interval": 0.05, "timeout": WAIT_LIMIT, **MODES[mode], **arguments}
        if kind == "dataset":
            return QuickBIDatasetRefreshSensor(task_id=task_id, dataset_id=given.pop("mail_id", task_id), **given)
        if "subscribe_name" not in arguments:
            given.setdefault("mail_id", task_id)
        return QuickBIMailTaskSensor(task_id=task_id, **given)

    return make


@pytest.fixture
def sensor(sensor_of: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Make a sensor in the mode of the test."""
    return functools.partial(sensor_of, mode)


class Expect:
    """The ends that a pair of sensors can have, see the fixture ``wait``."""

    @staticmethod
    def success(ran: Ran, xcoms: dict[str, Any]) -> None:
        assert ran.states == {"hard": "success", "soft": "success"}, ran.log
        assert ran.xcoms() == xcoms

    @staticmethod
    def final(ran: Ran, error: str, *texts: str) -> None:
        """Both end in this try: one fails, and the one with ``soft_fail`` is skipped."""
        assert ran.states == {"hard": "failed", "soft": "skipped"}, ran.log
        assert ran.tries == {"hard": 1, "soft": 1}
        Expect.raised(ran, "hard", error, *texts)
        assert ran.notified(f"{error}: ", "Skipping")
        assert ran.xcoms() == {}

    @staticmethod
    def retried(ran: Ran, error: str, *texts: str) -> None:
        """Both wait for their next try, with or without ``soft_fail``."""
        assert ran.states == {"hard": "up_for_retry", "soft": "up_for_retry"}, ran.log
        for task_id in ("hard", "soft"):
            Expect.raised(ran, task_id, error, *texts)

    @staticmethod
    def raised(ran: Ran, task_id: str, error: str, *texts: str) -> None:
        raised = ran.error(task_id)
        assert type(raised).__name__ == error
        for text in texts:
            assert text in str(raised)


@pytest.fixture
def expect() -> type[Expect]:
    return Expect


@pytest.fixture
def ago() -> SimpleNamespace:
    """Instants around now, in whole seconds, as Quick BI writes them."""
    now = datetime.now(UTC).replace(microsecond=0)
    return SimpleNamespace(now=now, hour=now - timedelta(hours=1), day=now - timedelta(days=1))
