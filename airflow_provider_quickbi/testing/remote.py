"""Controls a simulator that runs in another process, with the methods that :class:`LocalQuickBI` has."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit

from airflow_provider_quickbi.testing.calls import Call

if TYPE_CHECKING:
    from ssl import SSLContext

    from airflow_provider_quickbi.testing.accounts import AccountChanges, AccountSettings
    from airflow_provider_quickbi.testing.faults import Fault
    from airflow_provider_quickbi.testing.limits import CallsPerSecond


class RemoteQuickBI:
    """A simulator in another process, seen through its control interface.

    Every method has the meaning of the one of the same name of
    :class:`~airflow_provider_quickbi.testing.LocalQuickBI`. Callables (``when_called``, ``register``, faults that
    choose) cannot travel to another process and are missing here.

    :param url: the address that the simulator printed, such as ``http://127.0.0.1:8765``.
    :param timeout: how many seconds an answer may take; default 10.
    :param ssl_context: a client-side context for an https address.
    :raises ValueError: the address is not an http or https one.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, ssl_context: SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"The address of a simulator looks like http://127.0.0.1:8765, got {url!r}.")
        self.url = url.rstrip("/")
        self.scheme: str = parts.scheme
        self.host: str = parts.hostname
        self.port: int = parts.port or (443 if parts.scheme == "https" else 80)
        self.clock = RemoteClock(self)
        self._timeout = timeout
        self._ssl_context = ssl_context

    @property
    def access_key_id(self) -> str:
        """The AccessKey id of the first account."""
        return str(self.connection()["login"])

    @property
    def access_key_secret(self) -> str:
        """The AccessKey secret of the first account."""
        return str(self.connection()["password"])

    def connection(self, **extra: object) -> dict[str, Any]:
        """Return the Airflow connection to the simulator."""
        connection: dict[str, Any] = self._get("connection")
        return {**connection, "host": self.host, "port": self.port, "schema": self.scheme, "extra": extra}

    def connection_json(self, **extra: object) -> str:
        """Return :meth:`connection` as JSON text, the value for ``AIRFLOW_CONN_QUICKBI_DEFAULT``."""
        return json.dumps(self.connection(**extra))

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
        """Add a mail task; returns its ``MailId``."""
        added = self._post(
            "add_mail_task",
            name=name,
            mail_id=mail_id,
            owner=owner,
            owner_id=owner_id,
            paused=paused,
            run_duration=run_duration,
            run_appears_after=run_appears_after,
            run_outcome=run_outcome,
            refuse_while_running=refuse_while_running,
        )
        return str(added)

    def remove_mail_task(self, mail_id: str) -> None:
        """Remove a mail task with its runs and schedules."""
        self._post("remove_mail_task", mail_id=mail_id)

    def set_paused(self, mail_id: str, paused: bool = True) -> None:
        """Pause or resume the schedule of a mail task."""
        self._post("set_paused", mail_id=mail_id, paused=paused)

    def mail_tasks(self) -> list[dict[str, object]]:
        """Return every mail task as JSON data."""
        tasks: list[dict[str, object]] = self._get("mail_tasks")
        return tasks

    def add_run(
        self,
        mail_id: str,
        *,
        exec_time: datetime | str | None = None,
        status: str | None = None,
        duration: float | None = None,
        outcome: str = "SENT",
        appears_after: float = 0.0,
    ) -> str:
        """Add a run of a mail; returns its ``TaskId`` as a string."""
        added = self._post(
            "add_run",
            mail_id=mail_id,
            exec_time=exec_time,
            status=status,
            duration=duration,
            outcome=outcome,
            appears_after=appears_after,
        )
        return str(added)

    def finish_run(self, task_id: str | int, status: str = "SENT") -> None:
        """Give a run a status from now on, whatever its duration says."""
        self._post("finish_run", task_id=str(task_id), status=status)

    def runs(self, mail_id: str) -> list[dict[str, str]]:
        """Return the runs of a mail, the oldest first."""
        runs: list[dict[str, str]] = self._post("runs", mail_id=mail_id)
        return runs

    def mails_sent(self, mail_id: str, origin: str | None = None) -> int:
        """Count the runs of a mail that reached ``SENT``."""
        return int(self._post("mails_sent", mail_id=mail_id, origin=origin))

    def starts(self, mail_id: str) -> int:
        """Count the manual starts of a mail that were accepted."""
        return int(self._post("starts", mail_id=mail_id))

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
        outcome: str | Sequence[str] = "SENT",
    ) -> None:
        """Let runs of a mail start by themselves as the clock passes."""
        self._post(
            "add_schedule",
            mail_id=mail_id,
            every=every,
            cron=cron,
            times=list(times),
            first=first,
            duration=duration,
            appears_after=appears_after,
            outcome=outcome,
        )

    def set_manual_start(
        self,
        mail_id: str,
        *,
        duration: float | None = None,
        appears_after: float | None = None,
        outcome: str | Sequence[str] | None = None,
        refuse_while_running: bool | None = None,
    ) -> None:
        """Decide how the runs that ManualRunMailTask starts go; what is not given stays as it is."""
        self._post(
            "set_manual_start",
            mail_id=mail_id,
            duration=duration,
            appears_after=appears_after,
            outcome=outcome,
            refuse_while_running=refuse_while_running,
        )

    def limit_manual_starts(
        self, mail_id: str, *, calls: int = 0, minutes: float = 0, announced_minutes: int = 5, language: str = "en"
    ) -> None:
        """Refuse manual starts with ``MailApi.Beyond.ScheduleLimit``."""
        self._post(
            "limit_manual_starts",
            mail_id=mail_id,
            calls=calls,
            minutes=minutes,
            announced_minutes=announced_minutes,
            language=language,
        )

    def refuse_manual_start(self, mail_id: str, code: str, *, times: int | None = 1) -> None:
        """Refuse manual starts with a code such as ``"Timer.Schedule.Task"``."""
        self._post("refuse_manual_start", mail_id=mail_id, code=code, times=times)

    def add_account(self, access_key_id: str, access_key_secret: str, **settings: Unpack[AccountSettings]) -> None:
        """Add an account, or replace the one with the same id."""
        self._post("add_account", access_key_id=access_key_id, access_key_secret=access_key_secret, **settings)

    def change_account(self, access_key_id: str, **settings: Unpack[AccountChanges]) -> None:
        """Change an account."""
        self._post("change_account", access_key_id=access_key_id, **settings)

    def add_bearer_token(
        self, token: str, *, access_key_id: str | None = None, expires_at: datetime | str | float | None = None
    ) -> None:
        """Accept a bearer token."""
        self._post("add_bearer_token", token=token, access_key_id=access_key_id, expires_at=expires_at)

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
        """Refuse calls from now on, until :meth:`allow`."""
        self._post(
            "deny",
            code=code,
            action=action,
            mail_id=mail_id,
            access_key_id=access_key_id,
            message=message,
            access_denied_detail=access_denied_detail,
        )

    def allow(self, action: str | None = None, *, access_key_id: str | None = None) -> None:
        """Take denials back."""
        self._post("allow", action=action, access_key_id=access_key_id)

    def limit_calls(self, calls_per_second: CallsPerSecond) -> None:
        """Change the limits of calls a second."""
        if isinstance(calls_per_second, Mapping):
            named = {"*" if action is None else action: rate for action, rate in calls_per_second.items()}
            self._post("limit_calls", calls_per_second=named)
        else:
            self._post("limit_calls", calls_per_second=calls_per_second)

    def fail(
        self,
        action: str | None,
        *faults: Fault,
        times: int | None = 1,
        probability: float = 1.0,
        mail_id: str | None = None,
        seed: int | None = None,
    ) -> None:
        """Let calls go wrong."""
        self._post(
            "fail",
            action=action,
            faults=[fault.as_json() for fault in faults],
            times=times,
            probability=probability,
            mail_id=mail_id,
            seed=seed,
        )

    def clear_faults(self) -> None:
        """Let no call go wrong any more."""
        self._post("clear_faults")

    def drop_connections(self) -> int:
        """Close every open connection of a client; returns how many were open."""
        return int(self._post("drop_connections"))

    @property
    def calls(self) -> list[Call]:
        """The latest calls whose outcome is known, in that order."""
        return [Call(**call) for call in self._get("calls")]

    def count(self, action: str | None = None, code: str | None = None) -> int:
        """Count calls whose outcome is known."""
        return int(self._post("count", action=action, code=code))

    def counters(self) -> dict[str, dict[str, int]]:
        """Return operation to outcome to number of calls."""
        counters: dict[str, dict[str, int]] = self._get("counters")
        return counters

    @property
    def connections_opened(self) -> int:
        """How many connections clients have opened; control connections do not count."""
        return int(self._get("connections_opened"))

    def state(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        state: dict[str, Any] = self._get("state")
        return state

    def reset(self) -> None:
        """Start afresh."""
        self._post("reset")

    def move_clock(self, **moves: object) -> dict[str, Any]:
        """Move the clock as ``POST /_local/clock`` does; :attr:`clock` has methods for it."""
        clock: dict[str, Any] = self._post("clock", **moves)
        return clock

    def _get(self, path: str, /) -> Any:
        return self._exchange("GET", path, None)

    def _post(self, path: str, /, **arguments: object) -> Any:
        return self._exchange("POST", path, json.dumps(arguments, default=_write_time))

    def _exchange(self, method: str, path: str, body: str | None) -> Any:
        with closing(self._connect()) as connection:
            connection.request(method, f"/_local/{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        if response.status != 200:
            error = KeyError if answer.get("kind") == "KeyError" else ValueError
            raise error(answer["error"])
        return answer["result"]

    def _connect(self) -> http.client.HTTPConnection:
        if self.scheme == "https":
            return http.client.HTTPSConnection(self.host, self.port, timeout=self._timeout, context=self._ssl_context)
        return http.client.HTTPConnection(self.host, self.port, timeout=self._timeout)


class RemoteClock:
    """The clock of a simulator in another process; as :class:`~airflow_provider_quickbi.testing.Clock`."""

    def __init__(self, quickbi: RemoteQuickBI) -> None:
        self._quickbi = quickbi

    @property
    def skew(self) -> float:
        """Seconds that the server's wall clock is ahead when it judges signatures."""
        return float(self._quickbi.move_clock()["skew"])

    @skew.setter
    def skew(self, seconds: float) -> None:
        self._quickbi.move_clock(skew=seconds)

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return bool(self._quickbi.move_clock()["frozen"])

    def now(self) -> datetime:
        """Return the simulated time, in UTC."""
        return self._move()

    def time(self) -> float:
        """Return the simulated time in seconds since 1970."""
        return self._move().timestamp()

    def advance(self, seconds: float) -> datetime:
        """Move the time forward by seconds; returns the new time."""
        return self._move(advance=seconds)

    def set(self, when: datetime | str) -> datetime:
        """Move the time to an instant; returns it."""
        return self._move(set=when)

    def freeze(self, at: datetime | str | None = None) -> datetime:
        """Let time stand still, by default where it is; returns where."""
        return self._move(freeze=at)

    def unfreeze(self) -> datetime:
        """Let a frozen clock run on; returns its time."""
        return self._move(unfreeze=True)

    def _move(self, **moves: object) -> datetime:
        return datetime.fromisoformat(self._quickbi.move_clock(**moves)["now"])


def _write_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be sent to a simulator in another process.")
