"""What a DAG run has left behind, and the ends that a pair of sensors can have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def named(row: Any) -> str:
    """Return the task of a task instance or an XCom, with its map index if it is mapped."""
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


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
        return [extra for _, extra in self.asset_events()]

    def asset_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the URI and the extra of each asset event that the run has caused."""
        try:
            from airflow.models.asset import AssetEvent
        except ImportError:
            from airflow.models.dataset import DatasetEvent as AssetEvent  # type: ignore[no-redef]
        from airflow.utils.session import create_session

        with create_session() as session:
            events = session.query(AssetEvent).filter(AssetEvent.source_dag_id == self.dag_id)
            return [(event.uri, event.extra) for event in events.order_by(AssetEvent.id)]


class Expect:
    """The ends that a pair of sensors can have, see the fixture ``wait``."""

    @staticmethod
    def success(ran: Ran, xcoms: dict[str, Any]) -> None:
        """Each task succeeds, with this XCom."""
        assert ran.states == dict.fromkeys(xcoms, "success"), ran.log
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
