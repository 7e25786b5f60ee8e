"""Mail tasks, and the operations on them: parameters in, the documented ``Result`` out."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_quickbi.testing.errors import SCHEDULE_LIMIT_MESSAGES, Refusal
from airflow_provider_quickbi.testing.parameters import is_int64, read_number, write_page
from airflow_provider_quickbi.testing.runs import Subject, read_outcomes
from airflow_provider_quickbi.testing.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_quickbi.testing.shapes import Shapes


@dataclass(slots=True)
class _StartLimit:
    """How ``MailApi.Beyond.ScheduleLimit`` refuses starts."""

    until: float = -math.inf
    calls: int = 0
    minutes: int = 5
    language: str = "en"


@dataclass(slots=True, kw_only=True)
class MailTask(Subject):
    """A subscription."""

    owner: str
    owner_id: str
    limit: _StartLimit = field(default_factory=_StartLimit)


class MailStore(RunStore[MailTask]):
    """The mail tasks of an organisation."""

    kind: ClassVar = "mail task"
    running_status: ClassVar = "PROCESSING"
    success_status: ClassVar = "SENT"
    failure_status: ClassVar = "FAILED"
    already_running: ClassVar = "MailTask.Already.Running"

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
        :param run_duration: as ``duration`` of :meth:`set_manual_start`.
        :param run_appears_after: as ``appears_after`` of :meth:`set_manual_start`.
        :returns: its ``MailId``.
        :raises ValueError: there is a mail task with this id already.
        """
        mail_id = mail_id or str(uuid.uuid4())
        owner_id = owner_id or uuid.uuid5(uuid.NAMESPACE_OID, owner).hex
        self._add(
            MailTask(id=mail_id, name=name, rules=self._new_rules(), paused=paused, owner=owner, owner_id=owner_id)
        )
        self.set_manual_start(mail_id, duration=run_duration, appears_after=run_appears_after)
        return mail_id

    def remove_mail_task(self, mail_id: str) -> None:
        """Remove a mail task with its runs and schedules."""
        self._remove(mail_id)

    def set_paused(self, mail_id: str, paused: bool = True) -> None:
        """Pause or resume the schedule of a mail task."""
        self.get(mail_id).paused = paused

    def mail_tasks(self) -> list[dict[str, Any]]:
        """Return every mail task as JSON data, in the order in which they were added."""
        return [
            {
                "mail_id": mail.id,
                "name": mail.name,
                "paused": mail.paused,
                "owner": mail.owner,
                "owner_id": mail.owner_id,
                "starts": mail.rules.accepted,
                "mails_sent": self.succeeded(mail.id),
            }
            for mail in self.all()
        ]

    def mails_sent(self, mail_id: str, origin: str | None = None) -> int:
        """Count the runs that reached ``SENT``, see :meth:`succeeded`."""
        return self.succeeded(mail_id, origin)

    def set_manual_start(
        self,
        mail_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> None:
        """Decide how the runs that ManualRunMailTask starts go; what is not given stays as it is.

        :param mail_id: of which mail task.
        :param duration: seconds that a run is processing once it appeared; ``math.inf`` until :meth:`finish_run`.
        :param appears_after: seconds until a run appears in GetMailTaskStatus.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :param refuse_while_running: whether a start is refused while a run is processing; default it is.
        """
        change_rules(self.get(mail_id), duration, appears_after, outcome, refuse_while_running)

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
        :raises ValueError: the language is not one of them.
        """
        if language not in SCHEDULE_LIMIT_MESSAGES:
            raise ValueError(f"language must be one of {', '.join(SCHEDULE_LIMIT_MESSAGES)}, got {language!r}.")
        until = self.clock.time() + minutes * 60 if minutes else -math.inf
        self.get(mail_id).limit = _StartLimit(until, calls, announced_minutes, language)

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse starts with a code such as ``"Timer.Schedule.Task"``.

        :param mail_id: of which mail task.
        :param code: the ``Code`` of the refusal.
        :param times: how many calls to refuse; ``None`` for every one from now on.
        """
        self.get(mail_id).rules.refusals.append((code, math.inf if times is None else times))

    def _check_start(self, subject: MailTask, now: float) -> None:
        limit = subject.limit
        if not subject.rules.refusals and (now < limit.until or limit.calls > 0):
            limit.calls -= now >= limit.until
            minutes = math.ceil((limit.until - now) / 60) if now < limit.until else limit.minutes
            raise Refusal("MailApi.Beyond.ScheduleLimit", SCHEDULE_LIMIT_MESSAGES[limit.language] % minutes)
        super()._check_start(subject, now)


def change_rules(
    subject: Subject,
    duration: float | None,
    appears_after: float | None,
    outcome: str | Sequence[str] | None,
    refuse_while_running: bool | None,
) -> None:
    """Change how starts through the API go; what is ``None`` stays as it is."""
    rules = subject.rules
    if duration is not None:
        rules.duration = duration
    if appears_after is not None:
        rules.appears_after = appears_after
    if outcome is not None:
        rules.outcomes = read_outcomes(outcome)
    if refuse_while_running is not None:
        rules.refuse_while_running = refuse_while_running


# Operations: https://help.aliyun.com/zh/quick-bi/developer-reference/api-quickbi-public-2022-01-01-overview


def _required_mail(params: Mapping[str, str], mails: MailStore) -> MailTask:
    mail_id = params.get("MailId", "")
    if not mail_id:
        raise Refusal("MailId.Is.Null")
    mail = mails.find(mail_id)
    if mail is None:
        raise Refusal("Mail.Not.Found")
    return mail


def get_mail_task_list(params: Mapping[str, str], mails: MailStore, shapes: Shapes) -> dict[str, object]:
    """Carry out GetMailTaskList: one page of the mail tasks."""
    paused = params.get("Paused")
    if paused not in (None, "", "true", "false"):
        raise Refusal("Invalid.Parameter", f"The parameter Paused must be true or false, got {paused!r}.")
    nick = params.get("UserNick")
    found = [
        {
            "MailId": mail.id,
            "Paused": mail.paused,
            "BizOwnerUserId": mail.owner_id,
            "BizOwnerName": mail.owner,
            "SubscribeName": mail.name,
        }
        for mail in mails.all()
        if (not paused or mail.paused == (paused == "true")) and (not nick or mail.owner == nick)
    ]
    page_size = min(read_number(params, "PageSize", shapes.page_size), shapes.max_page_size)
    page = write_page(found, read_number(params, "PageNum", 1), page_size)
    number, pages = int(page["PageNum"]), int(page["TotalPages"])
    return {
        **page,
        "Pre": number - 1 if 1 < number <= pages + 1 else shapes.no_such_page,
        "Next": number + 1 if number < pages else shapes.no_such_page,
    }


def get_mail_task_status(params: Mapping[str, str], mails: MailStore, shapes: Shapes) -> list[dict[str, object]]:
    """Carry out GetMailTaskStatus: the run of a TaskId, or the latest run (or runs) of a mail task."""
    mail = _required_mail(params, mails)
    task_id = params.get("TaskId")
    if task_id:
        if not is_int64(task_id):
            raise Refusal("Invalid.Param.Error", f"The parameter TaskId must be a number, got {task_id!r}.")
        run = mails.find_run(int(task_id))
        runs = [run] if run is not None and run.subject_id == mail.id else []
    else:
        runs = shapes.order(mails.latest_runs(mail, 1 if shapes.status_list == "latest" else shapes.status_list))
    now = mails.clock.time()
    return [
        {
            "execTime": mails.exec_time(run).replace(tzinfo=None).isoformat(" "),
            "mailId": run.subject_id,
            "status": run.status_at(now),
            "taskId": str(run.run_id) if shapes.task_id_as_string else run.run_id,
        }
        for run in runs
    ]


def manual_run_mail_task(params: Mapping[str, str], mails: MailStore, _shapes: Shapes) -> bool:
    """Carry out ManualRunMailTask: start a run; the result is only true."""
    mails.start_run(_required_mail(params, mails))
    return True


def query_user_info_by_account(params: Mapping[str, str], mails: MailStore, _shapes: Shapes) -> dict[str, object]:
    """Carry out QueryUserInfoByAccount: the owners of mail tasks are the users."""
    wanted = params.get("Account", "")
    if not wanted:
        raise Refusal("Invalid.Parameter", "The parameter Account is required.")
    for mail in mails.all():
        if wanted in (mail.owner, mail.owner_id):
            return {
                "AccountId": mail.owner_id,
                "AccountName": mail.owner,
                "AdminUser": False,
                "AuthAdminUser": False,
                "Email": "",
                "IsDeleted": False,
                "NickName": mail.owner,
                "Phone": "",
                "RoleIdList": [],
                "UserId": mail.owner_id,
                "UserType": 1,
            }
    raise Refusal("User.Not.In.Organization")


MAIL_OPERATIONS = {
    "GetMailTaskList": get_mail_task_list,
    "GetMailTaskStatus": get_mail_task_status,
    "ManualRunMailTask": manual_run_mail_task,
    "QueryUserInfoByAccount": query_user_info_by_account,
}
