"""A local Quick BI that behaves like a recording, so that what one account does can be tried and tested anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from datetime import timezone as fixed_offset
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing import LocalQuickBI, Refusal
from airflow_provider_quickbi.testing.__main__ import main as simulate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_quickbi._check.behaviour import Behaviour, EmptyResponse
    from airflow_provider_quickbi._check.recording import Recording

_KEYS = ("execTime", "mailId", "status", "taskId")


def imitate(quickbi: LocalQuickBI, behaviour: Behaviour) -> None:
    """Let a local Quick BI behave like an account; call it again after mail tasks were added.

    It responds to ``GetMailTaskStatus`` by itself, from the mail tasks and runs that the simulator has.

    :param behaviour: how; what is not known stays as documented.
    """
    for task in quickbi.mail_tasks():
        quickbi.set_manual_start(
            str(task["mail_id"]),
            duration=behaviour.run_duration,
            appears_after=behaviour.start_delay,
            outcome=behaviour.outcome,
        )
        if behaviour.start_limit_minutes is not None:
            _limit_starts(quickbi, str(task["mail_id"]), behaviour.start_limit_minutes)
        if task["paused"] and behaviour.paused_start not in (None, "runs", "never_runs"):
            quickbi.refuse_manual_start(str(task["mail_id"]), str(behaviour.paused_start), times=None)
    if behaviour.status_calls_per_second is not None:
        quickbi.limit_calls({"GetMailTaskStatus": behaviour.status_calls_per_second})
    quickbi.register("GetMailTaskStatus", _Status(quickbi, behaviour))


def _limit_starts(quickbi: LocalQuickBI, mail_id: str, minutes: int) -> None:
    if minutes:
        quickbi.limit_manual_starts(mail_id, minutes=minutes)
    else:
        quickbi.refuse_manual_start(mail_id, "MailApi.Beyond.ScheduleLimit", times=1)


@dataclass(slots=True)
class _Status:
    """Responds to ``GetMailTaskStatus`` as an account does."""

    quickbi: LocalQuickBI
    behaviour: Behaviour
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - an order, no secret
    _finished: dict[str, float] = field(default_factory=dict)
    _resent: set[str] = field(default_factory=set)

    def __call__(self, parameters: Mapping[str, str]) -> object:
        mail_id = parameters.get("MailId", "")
        task = next((task for task in self.quickbi.mail_tasks() if task["mail_id"] == mail_id), None)
        if task is None:
            raise Refusal("Mail.Not.Found")
        runs = self._visible(mail_id)
        if task["paused"] and self.behaviour.paused_start == "never_runs":
            runs = [run for run in runs if run["origin"] != "manual"]
        requested = parameters.get("TaskId")
        if requested:
            return self._requested(mail_id, runs, requested)
        if not runs:
            return self._empty(self.behaviour.never_ran, mail_id, runs)
        newest_first = runs[::-1][: self.behaviour.runs_per_response or 1]
        if self.behaviour.order == "oldest_first":
            newest_first.reverse()
        elif self.behaviour.order == "unordered":
            self._random.shuffle(newest_first)
        return [self._shaped(run, mail_id) for run in newest_first]

    def _requested(self, mail_id: str, runs: list[dict[str, str]], task_id: str) -> object:
        kept = runs[-1:] if self.behaviour.keeps_runs is False else runs
        found = [run for run in kept if run["task_id"] == task_id]
        if found:
            return [self._shaped(run, mail_id) for run in found]
        return self._empty(self.behaviour.unknown_task_id, mail_id, runs)

    def _visible(self, mail_id: str) -> list[dict[str, str]]:
        """Return the runs that have appeared, the oldest first, after Quick BI has resent what it resends."""
        now = self.quickbi.clock.time()
        delay = self.behaviour.start_delay or 0.0
        visible = []
        for run in self.quickbi.runs(mail_id):
            late = delay if run["origin"] == "manual" else 0.0
            if datetime.fromisoformat(run["exec_time"]).timestamp() + late <= now:
                visible.append(run)
                if run["status"] in ("SENT", "FAILED"):
                    self._finished.setdefault(run["task_id"], now)
        after = self.behaviour.resent_after
        if after is None or not visible or visible[-1]["status"] != "FAILED":
            return visible
        failed = visible[-1]
        if failed["task_id"] not in self._resent and now - self._finished[failed["task_id"]] >= after:
            self._resent.add(failed["task_id"])
            self.quickbi.add_run(mail_id)
            return self._visible(mail_id)
        return visible

    def _shaped(self, run: dict[str, str], mail_id: str) -> dict[str, object]:
        moment = datetime.fromisoformat(run["exec_time"]).astimezone(_zone(self.behaviour.timezone or "Asia/Shanghai"))
        values: dict[str, object] = {
            "exectime": moment.strftime("%Y-%m-%d %H:%M:%S"),
            "mailid": mail_id,
            "status": self._status(run) + (self.behaviour.status_padding or ""),
            "taskid": run["task_id"] if self.behaviour.task_id_type == "string" else int(run["task_id"]),
        }
        return {key: values.get(key.lower()) for key in self.behaviour.status_keys or _KEYS}

    def _status(self, run: dict[str, str]) -> str:
        finished = self._finished.get(run["task_id"])
        for change in self.behaviour.status_changes or ():
            elapsed = self.quickbi.clock.time() - (finished or 0.0)
            if finished is not None and change["from"] == run["status"] and elapsed >= change["after"]:
                return str(change["to"])
        return run["status"]

    def _empty(self, shape: EmptyResponse | None, mail_id: str, runs: list[dict[str, str]]) -> object:
        if shape is None:
            return []
        if "code" in shape:
            raise Refusal(str(shape["code"]))
        if shape.get("result") == "latest":
            return [self._shaped(run, mail_id) for run in runs[-1:]]
        if shape.get("result") == "null fields":
            return [dict.fromkeys(self.behaviour.status_keys or _KEYS)]
        return shape.get("result")


def _zone(name: str) -> tzinfo:
    if name[:1] in "+-":
        offset = datetime.strptime(name, "%z").utcoffset()
        return fixed_offset(offset) if offset is not None else UTC
    return ZoneInfo(name)


def populate(quickbi: LocalQuickBI, recording: Recording) -> None:
    """Add mail tasks like those of a recording, or one if it has none."""
    for number, task in enumerate(recording.mail_tasks or ({"ran": True},), 1):
        mail_id = quickbi.add_mail_task(
            f"Recorded mail task {number}", mail_id=f"{number:032x}", paused=bool(task.get("paused"))
        )
        if task.get("ran"):
            quickbi.add_run(mail_id, exec_time=datetime.fromtimestamp(quickbi.clock.time() - 3600 * number, UTC))


def main(recording: Recording, arguments: Sequence[str]) -> int:
    """Run a simulator that behaves like a recording until SIGINT or SIGTERM.

    :param arguments: of ``python -m airflow_provider_quickbi.testing``.
    :returns: the exit status.
    """

    def prepare(quickbi: LocalQuickBI) -> None:
        populate(quickbi, recording)
        imitate(quickbi, recording.behaviour)

    return simulate(arguments, prepare, ", like the recording")
