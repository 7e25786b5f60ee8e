"""Runs DAGs in Airflow itself, in this process: a migrated database for the session, and a DAG file for each run."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import logging
import re
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from .ran import Ran, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
#: Seconds after which a DAG run has gone wrong, and a wait that should end before; both far beyond what is needed.
RUN_LIMIT = 300.0
WAIT_LIMIT = 120.0
#: What stands for "this try failed and Airflow would try again": the next try is far away and the run is left alone.
FAR_AWAY = timedelta(hours=1)

#: The arguments of each mode.
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}

#: The DAG files import what they hold from here.
CASE = ModuleType("quickbi_dag_of_this_test")
_DAG_FILE = f"""\
from airflow.providers.common.compat.sdk import DAG
from {CASE.__name__} import build

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

        vars(CASE)["build"] = build
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
        :param retry_delay: far away by default, so that the state ``up_for_retry`` stays.
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
                _record_errors(parsed, errors, patch)
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


def _record_errors(parsed: Any, errors: dict[str, list[BaseException]], patch: pytest.MonkeyPatch) -> None:
    """Record what each try of a task raises."""
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

    # Below 3.2 callbacks do not get what was raised, if it is dag.test() that runs the task.
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
            raise TimeoutError(f"{dag_id} has not finished after {RUN_LIMIT} s")
        sleep(0.02)

    return sleep_less


def _waits_for_a_retry(dag_id: str) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import State

    with create_session() as session:
        states = {state for (state,) in session.query(TaskInstance.state).filter(TaskInstance.dag_id == dag_id)}
    return "up_for_retry" in states and states <= {"up_for_retry", None, *State.finished}


def fix_dag_test() -> None:
    """Let ``dag.test()`` of Airflow 3.0 to 3.2 be like a worker in what matters, and faster."""
    from airflow.sdk.execution_time import supervisor, task_runner
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from structlog.dev import RichTracebackFormatter, plain_traceback

    # It makes an API server for every task, which takes a second, and a picture of every traceback, which does, too.
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    RichTracebackFormatter.__call__ = lambda _, *arguments: plain_traceback(*arguments)  # type: ignore[method-assign]
    if hasattr(task_runner, "TypeAdapter"):  # it makes one for each template field of a task
        task_runner.TypeAdapter = functools.cache(task_runner.TypeAdapter)

    first_reschedule_date = RuntimeTaskInstance.get_first_reschedule_date

    def as_a_worker_gets_it(ti: Any, context: Any) -> datetime | None:
        """Return an instant; 3.0 has text here, with which its own sensors fail."""
        found = first_reschedule_date(ti, context)
        return datetime.fromisoformat(found) if isinstance(found, str) else found

    RuntimeTaskInstance.get_first_reschedule_date = as_a_worker_gets_it  # type: ignore[assignment, method-assign]


def hasten_api_server() -> None:
    """Let the API server of ``dag.test()`` analyse its endpoints' dependencies once, and not for each request."""
    from fastapi.dependencies import utils

    analyse = utils.get_dependant
    known: dict[Any, Any] = {}

    def analyse_once(**given: Any) -> Any:
        key = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in given.items())
        if key not in known:
            known[key] = analyse(**given)
        return known[key]

    utils.get_dependant = analyse_once


def do_nothing() -> None:
    from airflow.providers.common.compat.sdk import BaseOperator

    class Nothing(BaseOperator):
        def execute(self, context: Any) -> None:
            """Do nothing."""

    Nothing(task_id="nothing")
