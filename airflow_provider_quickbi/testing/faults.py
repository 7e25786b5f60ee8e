"""What can go wrong between a client and Quick BI, as things that a test can order."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.errors import Refusal

HTML_503: Final = (
    "<html><head><title>503 Service Temporarily Unavailable</title></head>"
    "<body><center><h1>503 Service Temporarily Unavailable</h1></center></body></html>"
)

Wire = Literal["answer", "reset", "hang", "half_body", "half_json", "wrong_types", "oversized"]
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
    :param refusal: the ``Code``, ``Message`` and ``AccessDeniedDetail`` of an error body; None for no such body.
    :param processed: whether the operation is carried out before the answer goes wrong.
    :param seconds: how long to wait before anything else (``processed`` false), before the answer (``processed`` true),
        or, for a hang, before the server closes the connection (0: it waits for the client).
    :param size: bytes of an oversized body.
    """

    kind: str
    wire: Wire = "answer"
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    refusal: tuple[str, str | None, Mapping[str, object] | None] | None = None
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
        return Fault("throttled", refusal=(code, None, None), headers=headers)

    @staticmethod
    def error(
        code: str,
        message: str | None = None,
        *,
        status: int | None = None,
        access_denied_detail: Mapping[str, object] | None = None,
    ) -> Fault:
        """Answer with the documented error body.

        :param code: the ``Code``.
        :param message: the ``Message``; default the usual one of the code.
        :param status: the HTTP status; default the usual one of the code.
        :param access_denied_detail: what RAM adds to a denial.
        """
        return Fault("error", status=status, refusal=(code, message, access_denied_detail))

    @staticmethod
    def internal_error() -> Fault:
        """Answer 400 with ``Internal.System.Error``, as Quick BI does."""
        return Fault("internal_error", refusal=("Internal.System.Error", None, None))

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
        code, message, detail = self.refusal
        return Refusal(code, message, http_status=self.status, access_denied_detail=detail, headers=dict(self.headers))

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
                refusal=None if refusal is None else (refusal[0], refusal[1], refusal[2]),
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
    :param probability: with which it hits a call that it concerns, 0 to 1.
    :param mail_id: only calls for this mail; None for every one.
    :param seed: of the random numbers, so that a test repeats.
    :param hits: how many calls it has hit.
    """

    action: str | None
    faults: tuple[Fault, ...] | ChooseFault
    times: int | None
    probability: float = 1.0
    mail_id: str | None = None
    seed: int = 0
    hits: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie between 0 and 1, got {self.probability}.")
        if not callable(self.faults) and not self.faults:
            raise ValueError("A rule needs at least one fault.")
        self._random = random.Random(self.seed)  # noqa: S311 - repeats a test, guards nothing

    def choose(self, call: Call) -> Fault | None:
        """Return the fault that hits a call, or None; counts the hit."""
        if self.action not in (None, call.action) or self.mail_id not in (None, call.mail_id):
            return None
        if self.probability < 1 and self._random.random() >= self.probability:
            return None
        fault = self.faults(call) if callable(self.faults) else self.faults[self.hits % len(self.faults)]
        if fault is not None:
            self.hits += 1
        return fault

    @property
    def exhausted(self) -> bool:
        """Whether it will never hit a call again."""
        return self.times is not None and self.hits >= self.times


class FaultQueue:
    """The faults that are waiting for calls. Safe to use from several threads.

    Each call is hit by the first rule in the queue that concerns it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[FaultRule] = []

    @property
    def rules(self) -> list[FaultRule]:
        """The rules that can still hit a call, in their order."""
        with self._lock:
            return list(self._rules)

    def add(self, rule: FaultRule) -> None:
        """Append a rule."""
        with self._lock:
            self._rules.append(rule)

    def remove(self, rule: FaultRule) -> None:
        """Take a rule out; nothing happens if it is not in the queue any more."""
        with self._lock:
            self._rules = [other for other in self._rules if other is not rule]

    def clear(self) -> None:
        """Take every rule out."""
        with self._lock:
            self._rules.clear()

    def choose(self, call: Call) -> Fault | None:
        """Return the fault that hits a call, or None."""
        if not self._rules:
            return None
        with self._lock:
            for rule in self._rules:
                fault = rule.choose(call)
                if fault is not None:
                    if rule.exhausted:
                        self._rules.remove(rule)
                    return fault
        return None
