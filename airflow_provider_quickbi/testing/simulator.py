"""Quick BI without a network: everything that the simulator knows and answers, free of sockets and threads."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing.accounts import Account, AccountBook, AccountChanges, AccountSettings, Denial
from airflow_provider_quickbi.testing.calls import OK, Call, CallLog, visible_headers
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import ChooseFault, Fault, FaultQueue, FaultRule
from airflow_provider_quickbi.testing.limits import CallsPerSecond, RateLimiter
from airflow_provider_quickbi.testing.operations import OPERATIONS, Handler, Shapes, StatusList
from airflow_provider_quickbi.testing.signature import NonceWindow, SignedRequest, collect_headers, parse_query, verify
from airflow_provider_quickbi.testing.state import SENT, MailStore, MailTask

if TYPE_CHECKING:
    from datetime import datetime

API_VERSION: Final = "2022-01-01"

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ENVELOPE_PARAMS: Final = frozenset({"Action", "Version", "Format", "SignatureType"})

Callback = Callable[[Call], Fault | None]
"""What :meth:`QuickBISimulator.when_called` runs: sees the call, may act on the simulator, may return a fault."""


class SimulatorSettings(TypedDict, total=False):
    """The keyword arguments of :class:`QuickBISimulator`, which documents them."""

    access_key_id: str
    access_key_secret: str
    calls_per_second: CallsPerSecond
    limits_follow_clock: bool
    throttling_code: str
    announce_retry_after: bool
    verify_signatures: bool
    timezone: str
    run_duration: float
    run_appears_after: float
    status_list: StatusList
    shuffle_status_list: bool
    task_id_as_string: bool
    no_such_page: Literal[0] | None
    page_size: int
    max_page_size: int
    seed: int
    calls_kept: int
    runs_kept: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer.

    :param status: the HTTP status.
    :param body: the body.
    :param headers: headers on top of the content type.
    """

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Hook:
    action: str | None
    callback: Callback
    nth: int | None
    seen: int = 0

    def concerns(self, call: Call) -> bool:
        if self.action not in (None, call.action):
            return False
        self.seen += 1
        return self.nth is None or self.seen == self.nth


class QuickBISimulator:
    """A Quick BI organisation: accounts, mail tasks, runs, limits and faults, and the answers to signed requests.

    It has no network. :class:`~airflow_provider_quickbi.testing.LocalQuickBI` puts it behind a real HTTP server. Every
    method may be called from any thread.

    :param access_key_id: the AccessKey id of the first account.
    :param access_key_secret: its secret.
    :param calls_per_second: the limits of calls a second: one number for each operation, a mapping of operation to
        number in which ``None`` stands for every other operation, or ``None``, the default: no limits.
        ``DOCUMENTED_CALLS_PER_SECOND`` holds what Quick BI documents.
    :param limits_follow_clock: whether seconds of the limits are those of :attr:`clock`; default real seconds.
    :param throttling_code: the ``Code`` for calls beyond the limits.
    :param announce_retry_after: whether such an answer has the header ``x-acs-retry-after``; default it has not.
    :param verify_signatures: whether signatures are verified; default they are.
    :param timezone: the time zone of ``execTime``, and of times given to the simulator without an offset.
    :param run_duration: seconds that a manual or scheduled run is processing unless its mail says otherwise; default 0.
    :param run_appears_after: seconds until such a run shows up unless its mail says otherwise; default 0.
    :param status_list: how many recent runs GetMailTaskStatus answers with when asked without a TaskId: ``"latest"``,
        the default, or a number.
    :param shuffle_status_list: whether those runs come in a random order.
    :param task_id_as_string: whether ``taskId`` is a JSON string; default a JSON integer.
    :param no_such_page: ``Pre`` and ``Next`` where there is no such page: None or 0.
    :param page_size: the page size when none is asked for; default 25.
    :param max_page_size: larger page sizes are silently cut to this one; default 100.
    :param seed: of everything random.
    :param calls_kept: how many calls :attr:`calls` keeps; the counters stay exact. Default 10,000.
    :param runs_kept: how many runs of a mail are kept; the counters stay exact. Default 10,000.
    """

    def __init__(
        self,
        *,
        access_key_id: str = "local-access-key-id",
        access_key_secret: str = "local-access-key-secret",  # noqa: S107 - opens nothing but this simulator
        calls_per_second: CallsPerSecond = None,
        limits_follow_clock: bool = False,
        throttling_code: str = "Throttling.User",
        announce_retry_after: bool = False,
        verify_signatures: bool = True,
        timezone: str = "Asia/Shanghai",
        run_duration: float = 0.0,
        run_appears_after: float = 0.0,
        status_list: StatusList = "latest",
        shuffle_status_list: bool = False,
        task_id_as_string: bool = False,
        no_such_page: Literal[0] | None = None,
        page_size: int = 25,
        max_page_size: int = 100,
        seed: int = 0,
        calls_kept: int = 10_000,
        runs_kept: int = 10_000,
    ) -> None:
        self.access_key_id = access_key_id
        self.access_key_secret = access_key_secret
        self.throttling_code = throttling_code
        self.announce_retry_after = announce_retry_after
        self.verify_signatures = verify_signatures
        self.timezone = timezone
        self.faults = FaultQueue()
        self._zone = ZoneInfo(timezone)
        self.clock = Clock(self._zone)
        self._limits_follow_clock = limits_follow_clock
        self._initial_calls_per_second = calls_per_second
        self._limiter = self._make_limiter(calls_per_second)
        self._accounts = AccountBook()
        self._accounts.add(access_key_id, access_key_secret)
        self._nonces = NonceWindow()
        self._store = MailStore(
            self.clock, self._zone, run_duration=run_duration, run_appears_after=run_appears_after, runs_kept=runs_kept
        )
        self.shapes = Shapes(
            status_list, shuffle_status_list, task_id_as_string, no_such_page, page_size, max_page_size, seed
        )
        self._seed = seed
        self._log = CallLog(calls_kept)
        self._handlers: dict[str, Handler] = {}
        self._hooks: list[_Hook] = []
        self._lock = threading.Lock()
        self._call_number = 0
        self._connection_number = 0
        self._forgotten_connections = 0
        self.callback_errors: list[BaseException] = []
        """What callbacks of :meth:`when_called`, or fault choosers, raised."""

    # Mail tasks

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
        run_outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> str:
        """Add a mail task.

        :param name: its ``SubscribeName``; names need not be unique.
        :param mail_id: its ``MailId``; default a new UUID.
        :param owner: its ``BizOwnerName``.
        :param owner_id: its ``BizOwnerUserId``; by default made from the owner's name.
        :param paused: whether its schedule is paused.
        :param run_duration: as ``duration`` of :meth:`set_manual_start`.
        :param run_appears_after: as ``appears_after`` of :meth:`set_manual_start`.
        :param run_outcome: as ``outcome`` of :meth:`set_manual_start`.
        :param refuse_while_running: as in :meth:`set_manual_start`.
        :returns: its ``MailId``.
        :raises ValueError: there is a mail task with this id already.
        """
        mail = self._store.add_mail(name, mail_id=mail_id, owner=owner, owner_id=owner_id, paused=paused)
        self._store.set_manual_start(
            mail.mail_id,
            duration=run_duration,
            appears_after=run_appears_after,
            outcome=run_outcome,
            refuse_while_running=refuse_while_running,
        )
        return mail.mail_id

    def remove_mail_task(self, mail_id: str) -> None:
        """Remove a mail task with its runs and schedules.

        :param mail_id: which.
        :raises KeyError: there is no such mail task.
        """
        self._store.remove_mail(mail_id)

    def set_paused(self, mail_id: str, paused: bool = True) -> None:
        """Pause or resume the schedule of a mail task.

        :param mail_id: which.
        :param paused: True to pause, False to resume.
        :raises KeyError: there is no such mail task.
        """
        self._store.set_paused(mail_id, paused)

    def mail_tasks(self) -> list[dict[str, object]]:
        """Return every mail task as JSON data, in the order in which they were added."""
        return [self._describe_mail(mail) for mail in self._store.mails()]

    # Runs

    def add_run(
        self,
        mail_id: str,
        *,
        exec_time: datetime | str | None = None,
        status: str | None = None,
        duration: float | None = None,
        outcome: str = SENT,
        appears_after: float = 0.0,
    ) -> str:
        """Add a run of a mail, as if something had started it. Without further arguments it is ``SENT`` at once.

        :param mail_id: of which mail.
        :param exec_time: when it starts: a datetime or an ISO 8601 string, without an offset in the simulator's time
            zone. Default now; may lie in the past or the future.
        :param status: its status. With ``duration``, the status while it runs; without, the status that it keeps until
            :meth:`finish_run`.
        :param duration: seconds from its appearance until it ends with ``outcome``. Default 0.
        :param outcome: its status once the duration is over; default ``"SENT"``.
        :param appears_after: seconds from ``exec_time`` until it shows up; default 0.
        :returns: its ``TaskId``, as a string.
        :raises KeyError: there is no such mail task.
        """
        run = self._store.add_run(
            mail_id, exec_time=exec_time, status=status, duration=duration, outcome=outcome, appears_after=appears_after
        )
        return str(run.task_id)

    def finish_run(self, task_id: str | int, status: str = SENT) -> None:
        """Give a run a status from now on, whatever its duration says.

        :param task_id: which run.
        :param status: ``"SENT"``, ``"FAILED"`` or anything else.
        :raises KeyError: there is no such run.
        """
        self._store.finish_run(task_id, status)

    def runs(self, mail_id: str) -> list[dict[str, str]]:
        """Return the runs of a mail, the oldest first, including those that have not appeared yet.

        :param mail_id: of which mail.
        :returns: for each run ``task_id``, ``status``, ``exec_time`` (ISO 8601) and ``origin`` (``manual``,
            ``schedule`` or ``added``).
        :raises KeyError: there is no such mail task.
        """
        return self._describe_runs(self._store.mail(mail_id))

    def mails_sent(self, mail_id: str, origin: str | None = None) -> int:
        """Count the runs of a mail that reached ``SENT``.

        :param mail_id: of which mail.
        :param origin: only runs started like this: ``"manual"``, ``"schedule"`` or ``"added"``; default all.
        :raises KeyError: there is no such mail task.
        """
        return self._store.mails_sent(mail_id, origin)

    def starts(self, mail_id: str) -> int:
        """Count the manual starts of a mail that were accepted, whether or not the client got to know.

        :param mail_id: of which mail.
        :raises KeyError: there is no such mail task.
        """
        return self._store.mail(mail_id).starts

    def add_schedule(
        self,
        mail_id: str,
        *,
        every: float | None = None,
        cron: str | None = None,
        times: Iterable[datetime | str] = (),
        first: datetime | str | None = None,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] = SENT,
    ) -> None:
        """Let runs of a mail start by themselves as the clock passes. A paused mail skips its times.

        :param mail_id: of which mail.
        :param every: seconds between two runs.
        :param cron: a cron line such as ``30 8 * * *``, in the simulator's time zone.
        :param times: single times at which a run starts; may be combined with ``every`` and ``cron``.
        :param first: when the first run of ``every`` starts; default ``every`` seconds from now.
        :param duration: seconds that a run is processing; default ``run_duration`` of the simulator.
        :param appears_after: seconds until a run shows up; default ``run_appears_after`` of the simulator.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :raises KeyError: there is no such mail task.
        :raises ValueError: none of the three is given, ``every`` is not above 0, or ``cron`` is not a cron line.
        """
        self._store.add_schedule(
            mail_id,
            every=every,
            cron=cron,
            times=times,
            first=first,
            duration=duration,
            appears_after=appears_after,
            outcome=outcome,
        )

    # Manual starts

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

        :param mail_id: of which mail.
        :param duration: seconds that a run is processing once it appeared; ``math.inf`` until :meth:`finish_run`.
        :param appears_after: seconds until a run shows up in GetMailTaskStatus.
        :param outcome: the status a run ends with; a sequence gives one to each run in turn, the last one stays.
        :param refuse_while_running: whether a start is refused with ``MailTask.Already.Running`` while a run is
            processing; default it is.
        :raises KeyError: there is no such mail task.
        """
        self._store.set_manual_start(
            mail_id,
            duration=duration,
            appears_after=appears_after,
            outcome=outcome,
            refuse_while_running=refuse_while_running,
        )

    def limit_manual_starts(
        self, mail_id: str, *, calls: int = 0, minutes: float = 0, announced_minutes: int = 5, language: str = "en"
    ) -> None:
        """Refuse manual starts with ``MailApi.Beyond.ScheduleLimit``. Without ``calls`` and ``minutes``, stop doing so.

        :param mail_id: of which mail.
        :param calls: how many calls to refuse.
        :param minutes: for how many minutes of :attr:`clock` to refuse; the message names what is left of them.
        :param announced_minutes: the minutes that the message names when ``calls`` are counted; default 5.
        :param language: ``"en"`` or ``"zh"``: the language of the message.
        :raises KeyError: there is no such mail task.
        :raises ValueError: the language is not known.
        """
        self._store.limit_manual_starts(
            mail_id, calls=calls, minutes=minutes, announced_minutes=announced_minutes, language=language
        )

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse manual starts with a code such as ``"Timer.Schedule.Task"``.

        :param mail_id: of which mail.
        :param code: the ``Code`` of the refusal.
        :param times: how many calls to refuse; None for every one from now on.
        :raises KeyError: there is no such mail task.
        """
        self._store.refuse_manual_start(mail_id, code, times=times)

    # Callers

    def add_account(self, access_key_id: str, access_key_secret: str, **settings: Unpack[AccountSettings]) -> None:
        """Add an account, or replace the one with the same id.

        :param access_key_id: its AccessKey id.
        :param access_key_secret: its AccessKey secret.
        :param settings: ``security_token`` (the STS token that has to come along), ``security_token_expires_at`` (a
            datetime, an ISO 8601 string, UTC unless it has an offset, or seconds since 1970; judged by real time),
            ``active`` and ``visible_mail_ids`` (None for every mail).
        """
        self._accounts.add(access_key_id, access_key_secret, **settings)

    def change_account(self, access_key_id: str, **settings: Unpack[AccountChanges]) -> None:
        """Change an account.

        :param access_key_id: whose.
        :param settings: as for :meth:`add_account`, or ``access_key_secret``.
        :raises KeyError: there is no such account.
        """
        self._accounts.change(access_key_id, **settings)

    def add_bearer_token(
        self, token: str, *, access_key_id: str | None = None, expires_at: datetime | str | float | None = None
    ) -> None:
        """Accept a bearer token.

        :param token: the token.
        :param access_key_id: the account on whose behalf it calls; default the first one.
        :param expires_at: when it ends: a datetime, an ISO 8601 string or seconds since 1970; None for never.
        """
        self._accounts.add_bearer_token(token, access_key_id or self.access_key_id, expires_at)

    def deny(
        self,
        code: str,
        *,
        action: str | None = None,
        mail_id: str | None = None,
        access_key_id: str | None = None,
        message: str | None = None,
        access_denied_detail: Mapping[str, object] | None = None,
    ) -> None:
        """Refuse calls from now on, until :meth:`allow`.

        :param code: the ``Code``, such as ``"Mail.Forbidden.Access"``, ``"Access.Forbidden"`` or ``"Forbidden.RAM"``.
        :param action: only this operation; default every one.
        :param mail_id: only this mail; default every one.
        :param access_key_id: only this caller; default every one.
        :param message: the ``Message``; default the usual one of the code.
        :param access_denied_detail: the ``AccessDeniedDetail`` that RAM adds.
        """
        self._accounts.deny(Denial(code, action, mail_id, access_key_id, message, access_denied_detail))

    def allow(self, action: str | None = None, *, access_key_id: str | None = None) -> None:
        """Take denials back.

        :param action: those of this operation; default all.
        :param access_key_id: those of this caller; default all.
        """
        self._accounts.allow(action, access_key_id)

    # Limits, faults and hooks

    def limit_calls(self, calls_per_second: CallsPerSecond) -> None:
        """Change the limits of calls a second.

        :param calls_per_second: as in the constructor; None for no limits.
        """
        self._limiter = self._make_limiter(calls_per_second)

    @property
    def calls_per_second(self) -> dict[str | None, float]:
        """The limits in force, ``None`` standing for every other operation; empty if nothing is limited."""
        return self._limiter.calls_per_second

    def fail(
        self,
        action: str | None,
        *faults: Fault | ChooseFault,
        times: int | None = 1,
        probability: float = 1.0,
        mail_id: str | None = None,
        seed: int | None = None,
    ) -> FaultRule:
        """Let calls go wrong.

        ``fail("GetMailTaskStatus", Fault.reset(), Fault.html_503())`` resets the next call of the operation and answers
        the one after it with 503. Rules queue up: a call is hit by the first rule that concerns it.

        :param action: the operation; None for every one.
        :param faults: what goes wrong with the first, the second, ... of the calls; or one callable that looks at each
            call and returns a fault or None.
        :param times: how often the sequence of faults is gone through (or the callable returns a fault); default once.
            None: for ever, until :meth:`clear_faults`.
        :param probability: with which a call is hit, 0 to 1; default 1.
        :param mail_id: only calls for this mail; default every one.
        :param seed: of the random numbers behind ``probability``; default the simulator's.
        :returns: the rule; its ``hits`` counts.
        :raises ValueError: there is no fault, or the probability is not one.
        """
        if len(faults) == 1 and not isinstance(faults[0], Fault):
            chosen: tuple[Fault, ...] | ChooseFault = faults[0]
            total = times
        else:
            if not all(isinstance(fault, Fault) for fault in faults):
                raise TypeError("fail() takes faults made with Fault.…(), or one callable.")
            chosen = tuple(fault for fault in faults if isinstance(fault, Fault))
            total = None if times is None else times * len(chosen)
        rule = FaultRule(action, chosen, total, probability, mail_id, self._seed if seed is None else seed)
        self.faults.add(rule)
        return rule

    def clear_faults(self) -> None:
        """Let no call go wrong any more."""
        self.faults.clear()

    def when_called(self, action: str | None, callback: Callback, *, nth: int | None = None) -> None:
        """Do something at an exact call, before the simulator looks at it.

        The callback runs in a thread of its own; the client waits for it, other clients do not. It may use every method
        of the simulator, and may return a :class:`Fault` for this call. What it raises makes the call fail with 500
        and is raised again when the server stops.

        :param action: the operation; None for every one.
        :param callback: takes the :class:`Call`.
        :param nth: only the nth such call from now, counted from 1; default every one.
        """
        with self._lock:
            self._hooks.append(_Hook(action, callback, nth))

    def register(self, action: str, handler: Handler) -> None:
        """Let the simulator answer a further operation, or answer a known one differently.

        :param action: the operation.
        :param handler: takes the parameters as a mapping of text to text and returns the ``Result``; raises
            :class:`Refusal` to answer with an error.
        """
        self._handlers[action] = handler

    # What happened

    @property
    def calls(self) -> list[Call]:
        """The latest calls whose outcome is known, in that order."""
        return self._log.all()

    def count(self, action: str | None = None, code: str | None = None) -> int:
        """Count calls whose outcome is known, including those that :attr:`calls` no longer holds.

        :param action: only calls of this operation; default all.
        :param code: only calls with this outcome: ``"OK"``, a ``Code``, or the kind of a fault such as ``"reset"``;
            default all.
        """
        return self._log.count(action, code)

    def counters(self) -> dict[str, dict[str, int]]:
        """Return operation to outcome to number of calls."""
        return self._log.counts()

    @property
    def connections_opened(self) -> int:
        """How many connections clients have opened; those of the control interface do not count."""
        return self._connection_number - self._forgotten_connections

    def state(self) -> dict[str, object]:
        """Return everything as JSON data: clock, mail tasks with their runs, accounts, faults and counters."""
        return {
            "clock": {"now": self.clock.now().isoformat(), "frozen": self.clock.frozen, "skew": self.clock.skew},
            "timezone": self.timezone,
            "calls_per_second": {action or "*": rate for action, rate in self.calls_per_second.items()},
            "mail_tasks": [
                {**self._describe_mail(mail), "runs": self._describe_runs(mail)} for mail in self._store.mails()
            ],
            "accounts": [
                {
                    "access_key_id": account.access_key_id,
                    "active": account.active,
                    "temporary": account.security_token is not None,
                    "visible_mail_ids": None if account.visible_mail_ids is None else sorted(account.visible_mail_ids),
                }
                for account in self._accounts.all()
            ],
            "faults": [
                {"action": rule.action, "mail_id": rule.mail_id, "times": rule.times, "hits": rule.hits}
                for rule in self.faults.rules
            ],
            "counters": self.counters(),
            "connections_opened": self.connections_opened,
        }

    def reset(self) -> None:
        """Start afresh: real time, the first account only, and no mail tasks, calls, denials, faults or hooks.

        Operations that were registered are forgotten too, and the limits are those of the constructor again.
        """
        self.faults.clear()
        self.clock.reset()
        self._store.clear()
        self._accounts.clear()
        self._accounts.add(self.access_key_id, self.access_key_secret)
        self._nonces.clear()
        self._log.clear()
        self._limiter = self._make_limiter(self._initial_calls_per_second)
        self._handlers.clear()
        self.callback_errors.clear()
        with self._lock:
            self._hooks.clear()

    # Answering

    def note_connection(self) -> int:
        """Count a new connection and return its number."""
        with self._lock:
            self._connection_number += 1
            return self._connection_number

    def forget_connection(self) -> None:
        """Leave one connection out of :attr:`connections_opened`."""
        with self._lock:
            self._forgotten_connections += 1

    def receive(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        connection_id: int = 0,
        remote_port: int = 0,
    ) -> tuple[SignedRequest, Call]:
        """Take a request apart.

        :param method: the HTTP method.
        :param target: path and query as they were sent.
        :param headers: names and values in the order in which they were sent.
        :param body: the body.
        :param connection_id: on which connection it came.
        :param remote_port: the client's port.
        :returns: the request as the signature sees it, and the call for the log.
        """
        if target.startswith(("http://", "https://")):  # the form in which a proxy is asked
            target = "/" + target.split("//", 1)[1].partition("/")[2]
        path, _, raw_query = target.partition("?")
        request = SignedRequest(method, path, raw_query, collect_headers(headers), body)
        params = dict(parse_query(raw_query))
        if body and (request.headers.get("content-type") or "").startswith("application/x-www-form-urlencoded"):
            params.update(parse_query(body.decode(errors="replace")))
        action = request.headers.get("x-acs-action") or params.get("Action", "")
        with self._lock:
            self._call_number += 1
            number = self._call_number
        call = Call(
            number,
            action,
            {name: value for name, value in params.items() if name not in _ENVELOPE_PARAMS},
            visible_headers(request.headers),
            time.monotonic(),
            time.time(),
            connection_id,
            remote_port,
            method,
        )
        return request, call

    def callbacks_for(self, call: Call) -> list[Callback]:
        """Return the callbacks that a call sets off; counts the call for those that wait for the nth."""
        if not self._hooks:
            return []
        with self._lock:
            return [hook.callback for hook in self._hooks if hook.concerns(call)]

    def answer(self, request: SignedRequest, call: Call) -> Answer:
        """Carry a call out and write the documented answer.

        :param request: as :meth:`receive` returned it.
        :param call: as :meth:`receive` returned it; its ``code``, ``http_status`` and caller are filled in.
        :returns: the answer; every refusal is an answer too.
        """
        try:
            result = self._carry_out(request, call)
        except Refusal as refusal:
            return self.refuse(refusal, request, call)
        call.code, call.http_status, call.processed = OK, 200, True
        return _write_answer(200, {"RequestId": _new_request_id(), "Result": result, "Success": True}, {})

    def refuse(self, refusal: Refusal, request: SignedRequest, call: Call) -> Answer:
        """Write the documented error body.

        :param refusal: what to answer.
        :param request: the request, for its host.
        :param call: its ``code`` and ``http_status`` are filled in.
        """
        call.code, call.http_status = refusal.code, refusal.http_status
        request_id = _new_request_id()
        body: dict[str, object] = {
            "RequestId": request_id,
            "HostId": request.headers.get("host") or "",
            "Code": refusal.code,
            "Message": refusal.message,
            "Recommend": "https://api.aliyun.com/troubleshoot"
            f"?q={refusal.code}&product=quickbi-public&requestId={request_id}",
        }
        if refusal.access_denied_detail is not None:
            body["AccessDeniedDetail"] = refusal.access_denied_detail
        return _write_answer(refusal.http_status, body, refusal.headers)

    def log(self, call: Call) -> None:
        """Log a call whose outcome is known."""
        self._log.add(call)

    def _carry_out(self, request: SignedRequest, call: Call) -> object:
        if request.method not in ("POST", "GET"):
            raise Refusal("UnsupportedHTTPMethod")
        if request.path not in ("", "/"):
            raise Refusal("InvalidApi.NotFound")
        account = self._authenticate(request)
        call.access_key_id = account.access_key_id
        self._check_version(request)
        handler = self._find_handler(call.action, account)
        self._check_limit(call.action)
        self._accounts.check(call.action, account.access_key_id, call.mail_id)
        return handler(call.params)

    def _find_handler(self, action: str, account: Account) -> Handler:
        handler = self._handlers.get(action)
        if handler is not None:
            return handler
        operation = OPERATIONS.get(action)
        if operation is None:
            raise Refusal("InvalidAction.NotFound")
        return lambda params: operation(params, self._store, account, self.shapes)

    def _authenticate(self, request: SignedRequest) -> Account:
        now = self.clock.wall_time()
        bearer_token = request.headers.get("x-acs-bearer-token")
        if bearer_token is not None and _is_bearer(request):
            access_key_id = self._accounts.verify_bearer_token(bearer_token, now)
        elif not self.verify_signatures:
            access_key_id = self.access_key_id
        else:
            access_key_id = verify(request, find_key=self._accounts.find, now=now, nonces=self._nonces)
        account = self._accounts.find(access_key_id)
        if account is None:
            raise Refusal("InvalidAccessKeyId.NotFound")
        return account

    @staticmethod
    def _check_version(request: SignedRequest) -> None:
        version = request.headers.get("x-acs-version") or dict(parse_query(request.raw_query)).get("Version")
        if version != API_VERSION:
            raise Refusal("InvalidVersion")

    def _check_limit(self, action: str) -> None:
        with self._lock:
            seconds = self._limiter.seconds_to_wait(action)
        if seconds > 0:
            announced = {"x-acs-retry-after": str(max(1, round(seconds * 1000)))} if self.announce_retry_after else None
            raise Refusal(self.throttling_code, headers=announced)

    def _make_limiter(self, calls_per_second: CallsPerSecond) -> RateLimiter:
        return RateLimiter(calls_per_second, self.clock.time if self._limits_follow_clock else time.monotonic)

    def _describe_mail(self, mail: MailTask) -> dict[str, object]:
        return {
            "mail_id": mail.mail_id,
            "name": mail.subscribe_name,
            "paused": mail.paused,
            "owner": mail.owner,
            "owner_id": mail.owner_id,
            "starts": mail.starts,
            "mails_sent": self._store.mails_sent(mail.mail_id),
        }

    def _describe_runs(self, mail: MailTask) -> list[dict[str, str]]:
        now = self.clock.time()
        return [
            {
                "task_id": str(run.task_id),
                "status": run.status_at(now),
                "exec_time": self._store.exec_time(run).isoformat(),
                "origin": run.origin,
            }
            for run in list(mail.runs)
        ]


def _is_bearer(request: SignedRequest) -> bool:
    named = request.headers.get("x-acs-signature-type") or dict(parse_query(request.raw_query)).get("SignatureType")
    return named == "BEARERTOKEN"


def _new_request_id() -> str:
    digits = os.urandom(16).hex().upper()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-A{digits[17:20]}-{digits[20:]}"


def _write_answer(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> Answer:
    return Answer(status, _ENCODER.encode(body).encode(), {"x-acs-request-id": body["RequestId"], **headers})
