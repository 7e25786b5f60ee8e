"""What can go wrong between a client and Quick BI, as things that a test can order."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.errors import Refusal

HTML_503: Final = (
    "<html><head><title>503 Service Temporarily Unavailable</title></head>"
    "<body><center><h1>503 Service Temporarily Unavailable</h1></center></body></html>"
)

Wire = Literal["whole", "reset", "hang", "half_body", "half_json", "wrong_types", "oversized"]
"""How the answer leaves the server: whole, not at all (reset, hang), cut off, with other JSON, or far too large."""

AnswerLost = Literal["reset", "hang", "unavailable"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one call. Make it with one of the methods below.

    :param kind: its name in the call log.
    :param wire: how the answer leaves the server.
    :param status: the HTTP status; None for that of the real answer.
    :param headers: headers of the answer; they come on top of the usual ones.
    :param body: the body; None for that of the real answer.
    :param refusal: the ``Code`` and ``Message`` of an error body; None for no such body.
    :param processed: whether the operation is carried out before the answer goes wrong.
    :param seconds: how long to wait before anything else (``processed`` false), before the answer (``processed`` true),
        or, for a hang, before the server closes the connection (0: it waits for the client).
    :param size: bytes of an oversized body.
    """

    kind: str
    wire: Wire = "whole"
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    refusal: tuple[str, str | None] | None = None
    processed: bool = False
    seconds: float = 0.0
    size: int = 0

    @property
    def code(self) -> str:
        """The outcome under which the call log counts it: the ``Code`` of its refusal, or its kind."""
        return self.refusal[0] if self.refusal else self.kind

    @staticmethod
    def throttled(code: str = "Throttling.User", retry_after_ms: int | None = None) -> Fault:
        """Answer 400 with a throttling code.

        :param code: ``"Throttling"``, ``"Throttling.User"`` or ``"Throttling.Api"``.
        :param retry_after_ms: the ``x-acs-retry-after`` header in milliseconds; left out if None.
        """
        headers = () if retry_after_ms is None else (("x-acs-retry-after", str(retry_after_ms)),)
        return Fault("throttled", refusal=(code, None), headers=headers)

    @staticmethod
    def error(code: str, message: str | None = None, *, status: int | None = None) -> Fault:
        """Answer with the documented error body.

        :param code: the ``Code``.
        :param message: the ``Message``; default the usual one of the code.
        :param status: the HTTP status; default the usual one of the code.
        """
        return Fault("error", status=status, refusal=(code, message))

    @staticmethod
    def internal_error() -> Fault:
        """Answer 400 with ``Internal.System.Error``, as Quick BI does."""
        return Fault("internal_error", refusal=("Internal.System.Error", None))

    @staticmethod
    def html_503() -> Fault:
        """Answer 503 with the HTML page of a proxy."""
        return Fault("html_503", status=503, headers=(("Content-Type", "text/html"),), body=HTML_503.encode())

    @staticmethod
    def empty_502() -> Fault:
        """Answer 502 without a body."""
        return Fault("empty_502", status=502, headers=(("Content-Type", "text/html"),), body=b"")

    @staticmethod
    def reset(*, processed: bool = False) -> Fault:
        """Reset the connection (RST) instead of answering.

        :param processed: whether the operation is carried out first.
        """
        return Fault("reset", wire="reset", processed=processed)

    @staticmethod
    def hang(seconds: float = 0.0, *, processed: bool = False) -> Fault:
        """Never answer; the connection stays open until the client gives up or the server stops.

        :param seconds: after so many seconds the server closes the connection; default 0, it does not.
        :param processed: whether the operation is carried out first.
        """
        return Fault("hang", wire="hang", processed=processed, seconds=seconds)

    @staticmethod
    def answer_lost(how: AnswerLost = "reset") -> Fault:
        """Carry the operation out (the mail starts), then lose the answer.

        :param how: ``"reset"`` the connection, ``"hang"``, or ``"unavailable"``: answer with an HTML 503.
        """
        if how == "unavailable":
            return replace(Fault.html_503(), kind="answer_lost", processed=True)
        lost = Fault.reset(processed=True) if how == "reset" else Fault.hang(processed=True)
        return replace(lost, kind="answer_lost")

    @staticmethod
    def half_body() -> Fault:
        """Carry the operation out, send half of the answer's bytes and close the connection."""
        return Fault("half_body", wire="half_body", processed=True)

    @staticmethod
    def half_json() -> Fault:
        """Carry the operation out and send a complete HTTP answer whose JSON stops in the middle."""
        return Fault("half_json", wire="half_json", processed=True)

    @staticmethod
    def wrong_types() -> Fault:
        """Carry the operation out and answer with JSON in which every value has another type than documented."""
        return Fault("wrong_types", wire="wrong_types", processed=True)

    @staticmethod
    def unsuccessful(code: str | None = None, message: str | None = None) -> Fault:
        """Answer 200 with ``"Success": false``; the operation is not carried out.

        :param code: the ``Code`` of the body; left out if None.
        :param message: the ``Message`` of the body; left out if None.
        """
        body: dict[str, object] = {"RequestId": "00000000-0000-0000-0000-000000000000", "Success": False}
        if code is not None:
            body["Code"] = code
        if message is not None:
            body["Message"] = message
        return Fault("unsuccessful", status=200, body=json.dumps(body, ensure_ascii=False).encode())

    @staticmethod
    def delay(seconds: float, *, processed: bool = False) -> Fault:
        """Answer normally, but late.

        :param seconds: how late, in real seconds.
        :param processed: whether the operation is carried out at once and only its answer is late; default the whole
            call waits.
        """
        return Fault("delay", seconds=seconds, processed=processed)

    @staticmethod
    def redirect(location: str, status: int = 302) -> Fault:
        """Answer with a redirection.

        :param location: where to.
        :param status: 301, 302, 303, 307 or 308.
        """
        return Fault("redirect", status=status, headers=(("Location", location),), body=b"")

    @staticmethod
    def oversized(size: int = 64 * 1024 * 1024) -> Fault:
        """Answer 200 with valid JSON of an absurd size.

        :param size: bytes of the body; default 64 MiB.
        """
        return Fault("oversized", wire="oversized", status=200, size=size)

    @staticmethod
    def custom(
        status: int = 200,
        body: bytes | str | Mapping[str, object] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        processed: bool = False,
    ) -> Fault:
        """Answer with anything.

        :param status: the HTTP status.
        :param body: bytes, text, or an object to send as JSON.
        :param headers: headers on top of the usual ones.
        :param processed: whether the operation is carried out first.
        """
        if isinstance(body, str):
            raw = body.encode()
        elif isinstance(body, bytes):
            raw = body
        else:
            raw = json.dumps(body, ensure_ascii=False).encode()
        pairs = tuple((headers or {}).items())
        return Fault("custom", status=status, headers=pairs, body=raw, processed=processed)

    def make_refusal(self) -> Refusal:
        """Return the refusal that this fault answers with; only for faults that have one."""
        if self.refusal is None:
            raise ValueError(f"The fault {self.kind} has no error body.")
        code, message = self.refusal
        return Refusal(code, message, http_status=self.status, headers=dict(self.headers))

    def as_json(self) -> dict[str, Any]:
        """Return the fault as plain JSON data, for the control interface."""
        data = asdict(self)
        data["body"] = None if self.body is None else base64.b64encode(self.body).decode()
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Fault:
        """Read what :meth:`as_json` returned.

        Only ``kind`` is required. ``body`` is base64.

        :raises ValueError: a field is unknown or missing.
        """
        fields = dict(data)
        try:
            body = fields.pop("body", None)
            headers = tuple((str(name), str(value)) for name, value in fields.pop("headers", ()))
            refusal = fields.pop("refusal", None)
            return Fault(
                **fields,
                headers=headers,
                body=None if body is None else base64.b64decode(body),
                refusal=None if refusal is None else (refusal[0], refusal[1]),
            )
        except (TypeError, IndexError) as error:
            raise ValueError(f"This is not a fault: {error}") from error


ChooseFault = Callable[[Call], Fault | None]
"""Looks at a call that has just arrived and returns what goes wrong with it, or None."""


@dataclass(slots=True)
class FaultRule:
    """Which calls go wrong, how, and how often.

    :param action: the operation; None for every one.
    :param faults: the faults in turn, or one callable that chooses.
    :param times: how many calls it may still hit; None for all.
    :param mail_id: only calls for this mail task; None for every one.
    :param hits: how many calls it has hit.
    """

    action: str | None
    faults: tuple[Fault, ...] | ChooseFault
    times: int | None
    mail_id: str | None = None
    hits: int = 0

    def choose(self, call: Call) -> Fault | None:
        """Return the fault that hits a call, or None; counts the hit."""
        if self.action not in (None, call.action) or self.mail_id not in (None, call.mail_id):
            return None
        fault = self.faults(call) if callable(self.faults) else self.faults[self.hits % len(self.faults)]
        if fault is not None:
            self.hits += 1
        return fault


class FaultQueue:
    """The faults that are waiting for calls: each is hit by the first rule that concerns it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.rules: list[FaultRule] = []

    def fail(
        self, action: str | None, *faults: Fault | ChooseFault, times: int | None = 1, mail_id: str | None = None
    ) -> FaultRule:
        """Let calls go wrong.

        ``fail("GetMailTaskStatus", Fault.reset(), Fault.html_503())`` resets the next call of the operation and answers
        the one after it with 503. Rules queue up: a call is hit by the first rule that concerns it.

        :param action: the operation; None for every one.
        :param faults: what goes wrong with the first, the second, ... of the calls; or one callable that looks at each
            call and returns a fault or None.
        :param times: how often the sequence of faults is gone through (or the callable returns a fault); default once.
            None: for ever, until :meth:`clear_faults`.
        :param mail_id: only calls for this mail task; default every one.
        :returns: the rule; its ``hits`` counts.
        :raises ValueError: there is no fault.
        """
        if not faults:
            raise ValueError("fail() needs at least one fault.")
        made = tuple(fault for fault in faults if isinstance(fault, Fault))
        if len(made) == len(faults):
            rule = FaultRule(action, made, None if times is None else times * len(made), mail_id)
        elif len(faults) == 1 and not isinstance(faults[0], Fault) and callable(faults[0]):
            rule = FaultRule(action, faults[0], times, mail_id)
        else:
            raise TypeError("fail() takes faults made with Fault.…(), or one callable.")
        with self._lock:
            self.rules.append(rule)
        return rule

    def stop_failing(self, rule: FaultRule) -> None:
        """Take a rule back; nothing happens if it is not in the queue any more."""
        with self._lock:
            self.rules = [other for other in self.rules if other is not rule]

    def clear_faults(self) -> None:
        """Let no call go wrong any more."""
        with self._lock:
            self.rules.clear()

    def choose(self, call: Call) -> Fault | None:
        """Return the fault that hits a call, or None."""
        with self._lock:
            for rule in self.rules:
                fault = rule.choose(call)
                if fault is not None:
                    if rule.times is not None and rule.hits >= rule.times:
                        self.rules.remove(rule)
                    return fault
        return None
