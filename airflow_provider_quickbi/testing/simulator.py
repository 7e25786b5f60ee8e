"""Quick BI without a network: everything that the simulator knows and returns, free of sockets."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing.accounts import Accounts
from airflow_provider_quickbi.testing.calls import Call, CallLog, CallsPerSecond, RateLimiter
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.datasets import DatasetStore
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Callback, Faults, Response
from airflow_provider_quickbi.testing.mails import MailStore
from airflow_provider_quickbi.testing.signature import SignedRequest, parse_query

API_VERSION: Final = "2022-01-01"
_ENVELOPE: Final = frozenset({"Action", "Version", "Format", "SignatureType"})
_SECRET_HEADERS: Final = frozenset({"authorization", "x-acs-security-token", "x-acs-bearer-token"})

Handler = Callable[[Mapping[str, str]], object]
"""Carries an operation out: takes the parameters, returns the ``Result``, may raise :class:`Refusal`."""


class QuickBISimulator(MailStore, Accounts, Faults, RateLimiter, CallLog):
    """A Quick BI organisation: accounts, mail tasks, datasets, limits and faults, and responses to signed requests.

    Any thread may call its methods. :class:`~airflow_provider_quickbi.testing.LocalQuickBI` serves it over HTTP.

    :param access_key_id: of the first account.
    :param access_key_secret: of the first account.
    :param calls_per_second: such as ``DOCUMENTED_CALLS_PER_SECOND``; see :meth:`limit_calls`; counted by ``clock``.
    :param timezone: of ``execTime``, and of times given to the simulator without an offset.
    :param run_duration: seconds that a started run takes.
    :param run_appears_after: seconds until a started run appears.
    :param calls_kept: how many calls ``calls`` holds; the counters stay exact.
    """

    def __init__(
        self,
        *,
        access_key_id: str = "local-access-key-id",
        access_key_secret: str = "local-access-key-secret",  # noqa: S107 - opens nothing but this simulator
        calls_per_second: CallsPerSecond = None,
        timezone: str = "Asia/Shanghai",
        run_duration: float = 0.0,
        run_appears_after: float = 0.0,
        calls_kept: int = 10_000,
    ) -> None:
        self.access_key_id = access_key_id
        self.access_key_secret = access_key_secret
        self._initial = calls_per_second, calls_kept
        clock = Clock(ZoneInfo(timezone))
        MailStore.__init__(self, clock, run_duration, run_appears_after)
        self.datasets = DatasetStore(clock, run_duration, run_appears_after)
        self.connections_opened = 0
        """Over how many connections calls have come."""
        self._call_numbers = count(1)
        self.reset()

    def when_called(self, action: str | None, callback: Callback, *, nth: int | None = None) -> None:
        """Do something at an exact call, before the simulator looks at it.

        The callback runs in a thread of its own; the client waits for it, other clients do not. It may use every method
        of the simulator, and may return a :class:`Fault` for this call. What it raises makes the call fail with 500
        and is raised again when the server stops.

        :param action: the operation; None for every one.
        :param callback: takes the :class:`Call`.
        :param nth: only the nth such call from now, counted from 1; default every one.
        """
        numbers = count(1)

        def concerns(call: Call) -> bool:
            return action in (None, call.action) and (nth is None or next(numbers) == nth)

        self._hooks.append((concerns, callback))

    def register(self, action: str, handler: Handler) -> None:
        """Let the simulator respond to a further operation, or to a known one differently.

        :param action: the operation.
        :param handler: takes the parameters as a mapping of text to text and returns the ``Result``; raises
            :class:`Refusal` to respond with an error.
        """
        self._operations[action] = handler

    def reset(self) -> None:
        """Start afresh: real time, the first account and the first limits only, and nothing that was added since."""
        calls_per_second, calls_kept = self._initial
        self.forget_runs()
        self.datasets.forget_runs()
        self.clock.reset()
        Accounts.__init__(self)
        self.add_account(self.access_key_id, self.access_key_secret)
        Faults.__init__(self)
        RateLimiter.__init__(self, calls_per_second, self.clock.time)
        CallLog.__init__(self, calls_kept)
        self.callback_errors: list[BaseException] = []
        """What callbacks of :meth:`when_called`, or fault choosers, raised."""
        self._operations: dict[str, Handler] = {
            "GetMailTaskList": self.get_mail_task_list,
            "GetMailTaskStatus": self.get_mail_task_status,
            "ManualRunMailTask": self.manual_run_mail_task,
            "AllotDatasetAccelerationTask": self.datasets.allot_dataset_acceleration_task,
            "QueryAccelerationLogByCubeId": self.datasets.query_acceleration_log_by_cube_id,
            "QueryDatasetList": self.datasets.query_dataset_list,
            "QueryLastAccelerationEngineJob": self.datasets.query_last_acceleration_engine_job,
        }
        self._hooks: list[tuple[Callable[[Call], bool], Callback]] = []

    # Responding

    def receive(self, request: SignedRequest, connection_id: int, remote_port: int) -> Call:
        """Return the call that a request makes, for the log."""
        params = dict(parse_query(request.raw_query))
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            params.update(parse_query(request.body.decode(errors="replace")))
        return Call(
            next(self._call_numbers),
            request.headers.get("x-acs-action") or params.get("Action", ""),
            {name: value for name, value in params.items() if name not in _ENVELOPE},
            {name: value for name, value in request.headers.items() if name not in _SECRET_HEADERS},
            time.monotonic(),
            time.time(),
            connection_id,
            remote_port,
        )

    def callbacks_for(self, call: Call) -> list[Callback]:
        """Return the callbacks that a call sets off; counts the call for those that wait for the nth."""
        return [callback for concerns, callback in list(self._hooks) if concerns(call)]

    def respond(self, request: SignedRequest, call: Call) -> Response:
        """Carry a call out and write the documented response, whose outcome is filled into the call."""
        try:
            result = self._carry_out(request, call)
        except Refusal as refusal:
            return self.refuse(refusal, request, call)
        call.code, call.http_status = "OK", 200
        return _write(200, {"Result": result, "Success": True}, {})

    def refuse(self, refusal: Refusal, request: SignedRequest, call: Call) -> Response:
        """Write the documented error body."""
        call.code, call.http_status = refusal.code, refusal.http_status
        body = {
            "HostId": request.headers.get("host", ""),
            "Code": refusal.code,
            "Message": refusal.message,
            "Recommend": f"https://api.aliyun.com/troubleshoot?q={refusal.code}&product=quickbi-public",
        }
        return _write(refusal.http_status, body, refusal.headers)

    def _carry_out(self, request: SignedRequest, call: Call) -> object:
        if request.method not in ("POST", "GET"):
            raise Refusal("UnsupportedHTTPMethod")
        if request.path not in ("", "/"):
            raise Refusal("InvalidApi.NotFound")
        call.access_key_id = self.authenticate(request, time.time() + self.clock.skew)
        if request.named("x-acs-version", "Version") != API_VERSION:
            raise Refusal("InvalidVersion")
        handler = self._operations.get(call.action)
        if handler is None:
            raise Refusal("InvalidAction.NotFound")
        if self.seconds_to_wait(call.action) > 0:
            raise Refusal("Throttling.User")
        self.check_denials(call.action, call.mail_id)
        return handler(call.params)


def _write(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> Response:
    request_id = str(uuid.uuid4()).upper()
    text = json.dumps({"RequestId": request_id, **body}, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode(), {"x-acs-request-id": request_id, **headers})
