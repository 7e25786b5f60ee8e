"""Mail tasks, and the operations on them: parameters in, the documented ``Result`` out."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_quickbi.testing.errors import SCHEDULE_LIMIT_MESSAGES, Refusal
from airflow_provider_quickbi.testing.runs import Refusing, Run, RunStore, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class MailStore(RunStore):
    """The mail tasks of an organisation."""

    kind: ClassVar = "mail task"
    running_status: ClassVar = "PROCESSING"
    success_status: ClassVar = "SENT"
    already_running: ClassVar = "MailTask.Already.Running"

    status_list: int = 1
    """How many recent runs GetMailTaskStatus returns without a TaskId. Like the rest, it is not documented."""
    shuffle_status_list: bool = False
    """Whether they come in a random order."""
    task_id_as_string: bool = False
    """Whether ``taskId`` is a JSON string; default an integer."""
    no_such_page: Literal[0] | None = None
    """``Pre`` and ``Next`` where there is no such page."""
    max_page_size: int = 100
    """Larger page sizes of GetMailTaskList are silently cut to it."""

    def add_mail_task(
        self,
        name: str,
        *,
        mail_id: str | None = None,
        owner: str = "owner",
        owner_id: str | None = None,
        paused: bool = False,
        run_duration: float | None = None,
        run_appears_after: float | None = None,
    ) -> str:
        """Add a mail task.

        :param name: its ``SubscribeName``; names need not be unique.
        :param mail_id: its ``MailId``; default a new UUID.
        :param owner: its ``BizOwnerName``.
        :param owner_id: its ``BizOwnerUserId``; by default made from the owner's name.
        :param paused: whether its schedule is paused.
        :param run_duration: as ``duration`` of :meth:`set_start`.
        :param run_appears_after: as ``appears_after`` of :meth:`set_start`.
        :returns: its ``MailId``.
        :raises ValueError: there is a mail task with this id already.
        """
        owner_id = owner_id or uuid.uuid5(uuid.NAMESPACE_OID, owner).hex
        mail_id = self._add(mail_id, name, owner=owner, owner_id=owner_id)
        self.set_paused(mail_id, paused)
        self.set_start(mail_id, duration=run_duration, appears_after=run_appears_after)
        return mail_id

    def set_paused(self, mail_id: str, paused: bool = True) -> None:
        """Pause or resume the schedule of a mail task."""
        self._get(mail_id).paused = paused

    def mail_tasks(self) -> list[dict[str, Any]]:
        """Return every mail task as JSON data, in the order in which they were added."""
        return [
            {
                "mail_id": mail.id,
                "name": mail.name,
                "paused": mail.paused,
                **mail.details,
                "starts": mail.starts,
                "mails_sent": self.succeeded(mail.id),
            }
            for mail in self._all()
        ]

    def _describe(self, run: Run, now: float) -> dict[str, Any]:
        exec_time = self.local_time(run.started_at).isoformat()
        return {"task_id": str(run.run_id), "status": run.status_at(now), "exec_time": exec_time}

    remove_mail_task = RunStore.remove
    set_manual_start = RunStore.set_start
    refuse_manual_start = RunStore.refuse_start
    mails_sent = RunStore.succeeded

    def limit_manual_starts(
        self,
        mail_id: str,
        *,
        calls: int = 0,
        minutes: float | None = None,
        announced_minutes: int = 5,
        language: str = "en",
    ) -> None:
        """Refuse starts with ``MailApi.Beyond.ScheduleLimit``.

        :param mail_id: of which mail task.
        :param calls: refuse so many calls, announcing ``announced_minutes`` in each.
        :param minutes: refuse every call for so long, announcing what is left.
        :param announced_minutes: the minutes in the message.
        :param language: of the message, ``"en"`` or ``"zh"``.
        :raises KeyError: there is no such mail task or language.
        """
        code, message = "MailApi.Beyond.ScheduleLimit", SCHEDULE_LIMIT_MESSAGES[language]
        refusals = self._get(mail_id).refusals
        if minutes:
            refusals.append(Refusing(code, message, until=self.clock.time() + minutes * 60))
        refusals.append(Refusing(code, message % announced_minutes, calls=calls))

    # Operations: https://help.aliyun.com/zh/quick-bi/developer-reference/api-quickbi-public-2022-01-01-overview

    def _required_mail(self, params: Mapping[str, str]) -> Subject:
        mail_id = params.get("MailId", "")
        return self._get(mail_id, refusal="Mail.Not.Found" if mail_id else "MailId.Is.Null")

    def get_mail_task_list(self, params: Mapping[str, str]) -> dict[str, Any]:
        """Carry out GetMailTaskList: one page of the mail tasks."""
        paused, nick = params.get("Paused", ""), params.get("UserNick", "")
        if paused not in ("", "true", "false"):
            raise Refusal("Invalid.Parameter", f"The parameter Paused must be true or false, got {paused!r}.")
        found = [
            {
                "MailId": mail.id,
                "Paused": mail.paused,
                "BizOwnerUserId": mail.details["owner_id"],
                "BizOwnerName": mail.details["owner"],
                "SubscribeName": mail.name,
            }
            for mail in self._all()
            if paused in ("", str(mail.paused).lower()) and nick in ("", mail.details["owner"])
        ]
        size = min(read_number(params, "PageSize", 25), self.max_page_size)
        page = write_page(found, read_number(params, "PageNum", 1), size)
        number, pages = page["PageNum"], page["TotalPages"]
        return {
            **page,
            "Pre": number - 1 if 1 < number <= pages + 1 else self.no_such_page,
            "Next": number + 1 if number < pages else self.no_such_page,
        }

    def get_mail_task_status(self, params: Mapping[str, str]) -> list[dict[str, Any]]:
        """Carry out GetMailTaskStatus: the run of a TaskId, or the latest run (or runs) of a mail task."""
        mail, task_id = self._required_mail(params), params.get("TaskId")
        if not task_id:
            runs = self.latest_runs(mail, self.status_list)
            if self.shuffle_status_list:
                random.shuffle(runs)
        elif is_int64(task_id):
            runs = [run for run in self.latest_runs(mail, None) if run.run_id == int(task_id)]
        else:
            raise Refusal("Invalid.Param.Error", f"The parameter TaskId must be a number, got {task_id!r}.")
        now = self.clock.time()
        return [
            {
                "execTime": self.local_time(run.started_at).replace(tzinfo=None).isoformat(" "),
                "mailId": mail.id,
                "status": run.status_at(now),
                "taskId": str(run.run_id) if self.task_id_as_string else run.run_id,
            }
            for run in runs
        ]

    def manual_run_mail_task(self, params: Mapping[str, str]) -> bool:
        """Carry out ManualRunMailTask: start a run; the result is only true."""
        self.start_run(self._required_mail(params))
        return True


def is_int64(text: str) -> bool:
    """Whether a text is a whole number of at most 19 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 19


def read_number(params: Mapping[str, str], name: str, default: int) -> int:
    """Return a parameter, or refuse one that is no number from 1."""
    value = params.get(name) or str(default)
    if not is_int64(value) or int(value) < 1:
        raise Refusal("Invalid.Parameter", f"The parameter {name} must be a number from 1, got {value!r}.")
    return int(value)


def write_page(items: Sequence[object], number: int, size: int) -> dict[str, Any]:
    """Return one page of a result."""
    return {
        "PageNum": number,
        "PageSize": size,
        "TotalNum": len(items),
        "TotalPages": -(-len(items) // size),
        "Data": list(items[(number - 1) * size : number * size]),
    }
