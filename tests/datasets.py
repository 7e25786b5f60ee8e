"""A local Quick BI seen as one of datasets: what a test says of a mail task and its runs happens to a dataset.

So one test proves what holds for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_quickbi.testing import Fault, LocalQuickBI

#: Marks a test of what holds for mails and for refreshes.
both = pytest.mark.parametrize("kind", ["mail", "dataset"], indirect=True)


def dataset_in(mode: str) -> pytest.MarkDecorator:
    """Mark a test of a sensor that waits for a mail in every mode, and for a refresh in this one."""
    cases = [("mail", "poke"), ("mail", "reschedule"), ("mail", "deferrable"), ("dataset", mode)]
    return pytest.mark.parametrize(("kind", "mode"), cases, indirect=True)


ACTIONS = {"ManualRunMailTask": "AllotDatasetAccelerationTask", "GetMailTaskStatus": "QueryLastAccelerationEngineJob"}
STATUSES = {"SENT": "SUCCESS", "FAILED": "FAILURE", "PROCESSING": "RUNNING"}
CODES = {"MailTask.Already.Running": "Repeat.Running.Job", "Mail.Not.Found": "Cube.Not.Exist"}
LOG = "java.sql.SQLException: Access denied\n  for the reader of the source"
WORKSPACE = "workspace-1"


class Datasets:
    """Translates what a test says of mail tasks; everything else is the simulator's own.

    :param quickbi: the simulator.
    """

    def __init__(self, quickbi: LocalQuickBI) -> None:
        self._quickbi = quickbi
        self.cubes = quickbi.datasets
        self.cubes.failure_log = LOG

    def __getattr__(self, name: str) -> Any:
        return getattr(self._quickbi, name)

    def add_mail_task(
        self,
        name: str,
        *,
        mail_id: str | None = None,
        run_duration: float | None = None,
        run_appears_after: float | None = None,
        refuse_while_running: bool | None = None,
        **_owner: Any,
    ) -> str:
        added = self.cubes.add(name, dataset_id=mail_id, workspace_id=WORKSPACE)
        self.cubes.set_start(
            added, duration=run_duration, appears_after=run_appears_after, refuse_while_running=refuse_while_running
        )
        return added

    def remove_mail_task(self, mail_id: str) -> None:
        self.cubes.remove(mail_id)

    def set_manual_start(self, mail_id: str, *, outcome: str | Sequence[str] | None = None, **how: Any) -> None:
        given = [outcome] if isinstance(outcome, str) else outcome
        translated = None if given is None else [STATUSES.get(one, one) for one in given]
        self.cubes.set_start(mail_id, outcome=translated, **how)

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        self.cubes.refuse_start(mail_id, CODES.get(code, code), times=times)

    def limit_manual_starts(self, mail_id: str, *, calls: int, announced_minutes: int) -> None:
        """Throttle starts for minutes: a refresh knows no other limit."""
        throttled = Fault.throttled(retry_after_ms=announced_minutes * 60_000)
        self.fail("ManualRunMailTask", throttled, times=calls, mail_id=mail_id)

    def add_run(
        self, mail_id: str, *, exec_time: Any = None, status: str | None = None, outcome: str = "SENT", **how: Any
    ) -> str:
        return self.cubes.add_run(
            mail_id,
            exec_time=exec_time,
            status=STATUSES.get(status, status) if status else None,
            outcome=STATUSES.get(outcome, outcome),
            **how,
        )

    def finish_run(self, task_id: str, status: str = "SENT") -> None:
        self.cubes.finish_run(task_id, STATUSES.get(status, status))

    def runs(self, mail_id: str) -> list[dict[str, Any]]:
        """Return the refreshes, each with its id as that of a run, too."""
        return [{**refresh, "task_id": refresh["job_id"]} for refresh in self.cubes.runs(mail_id)]

    def xcom(self, mail_id: str, position: int = -1) -> dict[str, Any]:
        """Return the XCom that the newest refresh, or another one, should give."""
        refresh = self.cubes.runs(mail_id)[position]
        return {"dataset_id": mail_id, **{key: value for key, value in refresh.items() if key != "origin"}}

    def starts(self, mail_id: str) -> int:
        return self.cubes.starts(mail_id)

    def fail(
        self, action: str | None, *faults: Any, times: int | None = 1, mail_id: str | None = None, **options: Any
    ) -> Any:
        translated = ACTIONS.get(action or "", action)
        if mail_id is None:
            return self._quickbi.fail(translated, *faults, times=times, **options)
        in_turn = itertools.cycle(faults)

        def choose(call: Any) -> Any:
            return next(in_turn) if call.params.get("CubeId") == mail_id else None

        return self._quickbi.fail(translated, choose, times=None if times is None else times * len(faults), **options)

    def count(self, action: str | None = None, code: str | None = None) -> int:
        return self._quickbi.count(ACTIONS.get(action or "", action), code)

    def when_called(self, action: str | None, callback: Any, *, nth: int | None = None) -> None:
        self._quickbi.when_called(ACTIONS.get(action or "", action), callback, nth=nth)
