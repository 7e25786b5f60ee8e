"""The operations of Quick BI that the simulator carries out: parameters in, the documented ``Result`` out.

Documentation: https://help.aliyun.com/zh/quick-bi/developer-reference/api-quickbi-public-2022-01-01-overview
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from airflow_provider_quickbi.testing.accounts import Account
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.state import MailStore, MailTask, Run

Handler = Callable[[Mapping[str, str]], object]
"""Carries an operation out: takes the parameters, returns the ``Result``, may raise :class:`Refusal`."""

StatusList = Literal["latest"] | int


@dataclass(slots=True)
class Shapes:
    """Where the documentation leaves the shape of an answer open.

    :param status_list: how many recent runs GetMailTaskStatus answers with when it is asked without a TaskId:
        ``"latest"``, the default, or a number.
    :param shuffle: whether those runs come in a random order.
    :param task_id_as_string: whether ``taskId`` is a JSON string; default a JSON integer.
    :param no_such_page: ``Pre`` and ``Next`` where there is no such page: None or 0.
    :param page_size: the ``PageSize`` when none is asked for.
    :param max_page_size: larger page sizes are silently cut to this one.
    :param seed: of the random order.
    """

    status_list: StatusList = "latest"
    shuffle: bool = False
    task_id_as_string: bool = False
    no_such_page: Literal[0] | None = None
    page_size: int = 25
    max_page_size: int = 100
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.status_list != "latest" and (not isinstance(self.status_list, int) or self.status_list < 1):
            raise ValueError(f"status_list must be 'latest' or a number from 1, got {self.status_list!r}.")
        if self.page_size < 1 or self.max_page_size < 1:
            raise ValueError("page_size and max_page_size must be at least 1.")
        self._random = random.Random(self.seed)  # noqa: S311 - repeats a test, guards nothing

    def pick_runs(self, store: MailStore, mail: MailTask) -> list[Run]:
        """Return the runs of a mail that a status call without a TaskId answers with."""
        runs = store.latest_runs(mail, 1 if self.status_list == "latest" else self.status_list)
        if self.shuffle:
            self._random.shuffle(runs)
        return runs


def _is_int64(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def _number(params: Mapping[str, str], name: str, default: int) -> int:
    value = params.get(name)
    if value is None or value == "":
        return default
    if not _is_int64(value) or int(value) < 1:
        raise Refusal("Invalid.Parameter", f"The parameter {name} must be a number from 1, got {value!r}.")
    return int(value)


def _required_mail(params: Mapping[str, str], store: MailStore, account: Account) -> MailTask:
    mail_id = params.get("MailId", "")
    if not mail_id:
        raise Refusal("MailId.Is.Null")
    mail = store.find_mail(mail_id)
    if mail is None or not account.sees(mail_id):
        raise Refusal("Mail.Not.Found")
    return mail


def get_mail_task_list(
    params: Mapping[str, str], store: MailStore, account: Account, shapes: Shapes
) -> dict[str, object]:
    """Answer GetMailTaskList: one page of the mail tasks that the caller may see."""
    page_num = _number(params, "PageNum", 1)
    page_size = min(_number(params, "PageSize", shapes.page_size), shapes.max_page_size)
    paused = params.get("Paused")
    if paused not in (None, "", "true", "false"):
        raise Refusal("Invalid.Parameter", f"The parameter Paused must be true or false, got {paused!r}.")
    nick = params.get("UserNick")
    mails = [
        mail
        for mail in store.mails()
        if account.sees(mail.mail_id)
        and (not paused or mail.paused == (paused == "true"))
        and (not nick or mail.owner == nick)
    ]
    total_pages = -(-len(mails) // page_size)
    begin = (page_num - 1) * page_size
    return {
        "PageNum": page_num,
        "PageSize": page_size,
        "TotalNum": len(mails),
        "TotalPages": total_pages,
        "Pre": page_num - 1 if 1 < page_num <= total_pages + 1 else shapes.no_such_page,
        "Next": page_num + 1 if page_num < total_pages else shapes.no_such_page,
        "Data": [
            {
                "MailId": mail.mail_id,
                "Paused": mail.paused,
                "BizOwnerUserId": mail.owner_id,
                "BizOwnerName": mail.owner,
                "SubscribeName": mail.subscribe_name,
            }
            for mail in mails[begin : begin + page_size]
        ],
    }


def get_mail_task_status(
    params: Mapping[str, str], store: MailStore, account: Account, shapes: Shapes
) -> list[dict[str, object]]:
    """Answer GetMailTaskStatus: the run of a TaskId, or the latest run (or runs) of a mail."""
    mail = _required_mail(params, store, account)
    task_id = params.get("TaskId")
    if task_id:
        if not _is_int64(task_id):
            raise Refusal("Invalid.Param.Error", f"The parameter TaskId must be a number, got {task_id!r}.")
        run = store.find_run(int(task_id))
        runs = [run] if run is not None and run.mail_id == mail.mail_id else []
    else:
        runs = shapes.pick_runs(store, mail)
    now = store.clock.time()
    return [
        {
            "execTime": store.exec_time(run).replace(tzinfo=None).isoformat(" "),
            "mailId": run.mail_id,
            "status": run.status_at(now),
            "taskId": str(run.task_id) if shapes.task_id_as_string else run.task_id,
        }
        for run in runs
    ]


def manual_run_mail_task(params: Mapping[str, str], store: MailStore, account: Account, _shapes: Shapes) -> bool:
    """Answer ManualRunMailTask: start a run; the answer is only true."""
    store.start_manually(_required_mail(params, store, account))
    return True


def query_user_info_by_account(
    params: Mapping[str, str], store: MailStore, _account: Account, _shapes: Shapes
) -> dict[str, object]:
    """Answer QueryUserInfoByAccount, an operation beyond mails: the owners of mail tasks are the users."""
    wanted = params.get("Account", "")
    if not wanted:
        raise Refusal("Invalid.Parameter", "The parameter Account is required.")
    for mail in store.mails():
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


Operation = Callable[[Mapping[str, str], MailStore, Account, Shapes], object]

OPERATIONS: Mapping[str, Operation] = {
    "GetMailTaskList": get_mail_task_list,
    "GetMailTaskStatus": get_mail_task_status,
    "ManualRunMailTask": manual_run_mail_task,
    "QueryUserInfoByAccount": query_user_info_by_account,
}
