"""Quick BI without a network: everything that the simulator knows and returns, free of sockets."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypedDict, Unpack
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing.accounts import AccountBook
from airflow_provider_quickbi.testing.calls import OK, Call, CallLog, visible_headers
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.controls import Controls
from airflow_provider_quickbi.testing.datasets import DATASET_OPERATIONS, DatasetStore
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault, FaultQueue
from airflow_provider_quickbi.testing.limits import CallsPerSecond, RateLimiter
from airflow_provider_quickbi.testing.mails import MAIL_OPERATIONS, MailStore
from airflow_provider_quickbi.testing.shapes import Shapes, StatusList
from airflow_provider_quickbi.testing.signature import NonceWindow, SignedRequest, collect_headers, parse_query, verify

API_VERSION: Final = "2022-01-01"
_ENVELOPE_PARAMS: Final = frozenset({"Action", "Version", "Format", "SignatureType"})

Handler = Callable[[Mapping[str, str]], object]
"""Carries an operation out: takes the parameters, returns the ``Result``, may raise :class:`Refusal`."""

Callback = Callable[[Call], Fault | None]
"""What :meth:`QuickBISimulator.when_called` runs: sees the call, may act on the simulator, may return a fault."""


class SimulatorSettings(TypedDict, total=False):
    """The settings of a simulator.

    ``access_key_id``, ``access_key_secret``: of the first account.

    ``calls_per_second``: the limits: one number for each operation, a mapping of operation to number in which ``None``
    or ``"*"`` stands for every other one, or ``None``, the default: no limits. ``DOCUMENTED_CALLS_PER_SECOND`` holds
    what Quick BI documents. ``limits_follow_clock``: whether their seconds are those of ``clock``; default real ones.

    ``timezone``: of ``execTime``, and of times given to the simulator without an offset; default ``Asia/Shanghai``.

    ``run_duration``, ``run_appears_after``: seconds that a started run takes, and until it appears; default 0.

    ``status_list``: how many recent runs GetMailTaskStatus returns without a TaskId: ``"latest"``, the default, or a
    number. ``shuffle_status_list``: whether they come in a random order, of ``seed``.

    ``task_id_as_string``: whether ``taskId`` is a JSON string; default an integer. ``no_such_page``: ``Pre`` and
    ``Next`` where there is no such page: ``None`` or 0. ``max_page_size``: larger page sizes are silently cut to it;
    default 100.

    ``calls_kept``: how many calls ``calls`` holds; the counters stay exact. Default 10,000.
    """

    access_key_id: str
    access_key_secret: str
    calls_per_second: CallsPerSecond
    limits_follow_clock: bool
    timezone: str
    run_duration: float
    run_appears_after: float
    status_list: StatusList
    shuffle_status_list: bool
    task_id_as_string: bool
    no_such_page: Literal[0] | None
    max_page_size: int
    seed: int
    calls_kept: int


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response; the headers come on top of the content type."""

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


class QuickBISimulator(Controls):
    """A Quick BI organisation: accounts, mail tasks, datasets, limits and faults, and responses to signed requests.

    It has the methods of its parts, see :data:`~airflow_provider_quickbi.testing.controls.CONTROLS`. They may be called
    from any thread. :class:`~airflow_provider_quickbi.testing.LocalQuickBI` puts it behind a real HTTP server.

    :param settings: see :class:`SimulatorSettings`.
    """

    def __init__(self, **settings: Unpack[SimulatorSettings]) -> None:
        self.access_key_id = settings.get("access_key_id", "local-access-key-id")
        self.access_key_secret = settings.get("access_key_secret", "local-access-key-secret")
        self.timezone = settings.get("timezone", "Asia/Shanghai")
        self._initial_limits = settings.get("calls_per_second")
        zone = ZoneInfo(self.timezone)
        self.clock = Clock(zone)
        self.limiter = RateLimiter(
            self._initial_limits, self.clock.time if settings.get("limits_follow_clock") else time.monotonic
        )
        self.accounts = AccountBook()
        self.accounts.add_account(self.access_key_id, self.access_key_secret)
        starts = settings.get("run_duration", 0.0), settings.get("run_appears_after", 0.0)
        self.mails = MailStore(self.clock, zone, *starts)
        self.datasets = DatasetStore(self.clock, zone, *starts)
        self.faults = FaultQueue()
        self.call_log = CallLog(settings.get("calls_kept", 10_000))
        self.shapes = Shapes(
            settings.get("status_list", "latest"),
            settings.get("shuffle_status_list", False),
            settings.get("task_id_as_string", False),
            settings.get("no_such_page"),
            settings.get("max_page_size", 100),
            settings.get("seed", 0),
        )
        self.callback_errors: list[BaseException] = []
        """What callbacks of :meth:`when_called`, or fault choosers, raised."""
        self.connections_opened = 0
        """How many connections clients have opened; those of the control interface do not count."""
        self._nonces = NonceWindow()
        self._handlers: dict[str, Handler] = {}
        self._hooks: list[_Hook] = []
        self._guard = threading.Lock()
        self._call_number = 0

    def when_called(self, action: str | None, callback: Callback, *, nth: int | None = None) -> None:
        """Do something at an exact call, before the simulator looks at it.

        The callback runs in a thread of its own; the client waits for it, other clients do not. It may use every method
        of the simulator, and may return a :class:`Fault` for this call. What it raises makes the call fail with 500
        and is raised again when the server stops.

        :param action: the operation; None for every one.
        :param callback: takes the :class:`Call`.
        :param nth: only the nth such call from now, counted from 1; default every one.
        """
        with self._guard:
            self._hooks.append(_Hook(action, callback, nth))

    def register(self, action: str, handler: Handler) -> None:
        """Let the simulator answer a further operation, or answer a known one differently.

        :param action: the operation.
        :param handler: takes the parameters as a mapping of text to text and returns the ``Result``; raises
            :class:`Refusal` to respond with an error.
        """
        self._handlers[action] = handler

    def reset(self) -> None:
        """Start afresh: real time, the first account and the first limits only, and nothing that was added since."""
        for part in (self.mails, self.datasets, self.accounts, self.call_log, self._nonces):
            part.clear()
        self.faults.clear_faults()
        self.clock.reset()
        self.accounts.add_account(self.access_key_id, self.access_key_secret)
        self.limiter.limit_calls(self._initial_limits)
        self._handlers.clear()
        self.callback_errors.clear()
        with self._guard:
            self._hooks.clear()

    # Responding

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
        """Take a request apart: into what its signature covers, and the call for the log."""
        if target.startswith(("http://", "https://")):  # the form that a proxy is sent
            target = "/" + target.split("//", 1)[1].partition("/")[2]
        path, _, raw_query = target.partition("?")
        request = SignedRequest(method, path, raw_query, collect_headers(headers), body)
        params = dict(parse_query(raw_query))
        if body and (request.headers.get("content-type") or "").startswith("application/x-www-form-urlencoded"):
            params.update(parse_query(body.decode(errors="replace")))
        with self._guard:
            self._call_number += 1
            number = self._call_number
        call = Call(
            number,
            request.headers.get("x-acs-action") or params.get("Action", ""),
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
        with self._guard:
            return [hook.callback for hook in self._hooks if hook.concerns(call)]

    def respond(self, request: SignedRequest, call: Call) -> Response:
        """Carry a call out and write the documented response, whose outcome is filled into the call."""
        try:
            result = self._carry_out(request, call)
        except Refusal as refusal:
            return self.refuse(refusal, request, call)
        call.code, call.http_status, call.processed = OK, 200, True
        return _write(200, {"RequestId": _new_request_id(), "Result": result, "Success": True}, {})

    def refuse(self, refusal: Refusal, request: SignedRequest, call: Call) -> Response:
        """Write the documented error body."""
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
        return _write(refusal.http_status, body, refusal.headers)

    def _carry_out(self, request: SignedRequest, call: Call) -> object:
        if request.method not in ("POST", "GET"):
            raise Refusal("UnsupportedHTTPMethod")
        if request.path not in ("", "/"):
            raise Refusal("InvalidApi.NotFound")
        call.access_key_id = access_key_id = self._authenticate(request)
        if _named(request, "x-acs-version", "Version") != API_VERSION:
            raise Refusal("InvalidVersion")
        handler = self._find_handler(call.action)
        with self._guard:
            if self.limiter.seconds_to_wait(call.action) > 0:
                raise Refusal("Throttling.User")
        self.accounts.check(call.action, access_key_id, call.mail_id)
        return handler(call.params)

    def _find_handler(self, action: str) -> Handler:
        if action in self._handlers:
            return self._handlers[action]
        if action in MAIL_OPERATIONS:
            return lambda params: MAIL_OPERATIONS[action](params, self.mails, self.shapes)
        if action in DATASET_OPERATIONS:
            return lambda params: DATASET_OPERATIONS[action](params, self.datasets, self.shapes)
        raise Refusal("InvalidAction.NotFound")

    def _authenticate(self, request: SignedRequest) -> str:
        now = self.clock.wall_time()
        bearer_token = request.headers.get("x-acs-bearer-token")
        if bearer_token is not None and _named(request, "x-acs-signature-type", "SignatureType") == "BEARERTOKEN":
            return self.accounts.verify_bearer_token(bearer_token, now)
        return verify(request, find_key=self.accounts.find_account, now=now, nonces=self._nonces)


def _named(request: SignedRequest, header: str, parameter: str) -> str | None:
    return request.headers.get(header) or dict(parse_query(request.raw_query)).get(parameter)


def _new_request_id() -> str:
    digits = os.urandom(16).hex().upper()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-A{digits[17:20]}-{digits[20:]}"


def _write(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode(), {"x-acs-request-id": body["RequestId"], **headers})
