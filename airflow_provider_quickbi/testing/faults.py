"""What can go wrong between a client and Quick BI, as things that a test can order."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from airflow_provider_quickbi.testing.calls import Call

HTML_503: Final = "<html><body><center><h1>503 Service Temporarily Unavailable</h1></center></body></html>"


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response; the headers come on top of the content type."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one call. Make it with one of the methods below."""

    kind: str  # its name in the call log
    wire: Literal["whole", "reset", "hang", "half_body", "half_json", "wrong_types"] = "whole"  # how it is sent
    status: int | None = None  # None: that of the true response
    headers: tuple[tuple[str, str], ...] = ()  # on top of the usual ones
    body: bytes | None = None  # None: that of the true response
    refusal: tuple[str, str | None] | None = None  # the Code and Message of an error body
    processed: bool = False  # whether the operation is carried out before the response goes wrong
    delay_before: float = 0.0  # seconds to wait before anything else
    delay_after: float = 0.0  # seconds to wait between the operation and the response

    @staticmethod
    def throttled(code: str = "Throttling.User", retry_after_ms: int | None = None) -> Fault:
        """Respond with 400 and a throttling code.

        :param code: ``"Throttling"``, ``"Throttling.User"`` or ``"Throttling.Api"``.
        :param retry_after_ms: the ``x-acs-retry-after`` header in milliseconds; left out if None.
        """
        headers = () if retry_after_ms is None else (("x-acs-retry-after", str(retry_after_ms)),)
        return Fault("throttled", refusal=(code, None), headers=headers)

    @staticmethod
    def error(code: str, message: str | None = None, *, status: int | None = None) -> Fault:
        """Respond with the documented error body; message and HTTP status are by default the usual ones of the code."""
        return Fault("error", status=status, refusal=(code, message))

    @staticmethod
    def internal_error() -> Fault:
        """Respond with 400 and ``Internal.System.Error``, as Quick BI does."""
        return Fault.error("Internal.System.Error")

    @staticmethod
    def unsuccessful(code: str | None = None, message: str | None = None) -> Fault:
        """Respond with 200 and ``"Success": false``, and carry nothing out; the body has what is given."""
        body = {"RequestId": "00000000-0000-0000-0000-000000000000", "Success": False, "Code": code, "Message": message}
        given = {name: value for name, value in body.items() if value is not None}
        return replace(Fault.custom(200, given), kind="unsuccessful")

    @staticmethod
    def html_503() -> Fault:
        """Respond with 503 and the HTML page of a proxy."""
        return replace(Fault.custom(503, HTML_503, {"Content-Type": "text/html"}), kind="html_503")

    @staticmethod
    def empty_502() -> Fault:
        """Respond with 502 and no body."""
        return replace(Fault.custom(502, b"", {"Content-Type": "text/html"}), kind="empty_502")

    @staticmethod
    def redirect(location: str, status: int = 302) -> Fault:
        """Respond with a redirection to a location; the status is 301, 302, 303, 307 or 308."""
        return replace(Fault.custom(status, b"", {"Location": location}), kind="redirect")

    @staticmethod
    def oversized(size: int = 64 * 1024 * 1024) -> Fault:
        """Respond with 200 and valid JSON of an absurd size, in bytes."""
        head, tail = b'{"RequestId":"', b'","Result":[],"Success":true}'
        return replace(Fault.custom(200, head + b"A" * (size - len(head) - len(tail)) + tail), kind="oversized")

    @staticmethod
    def custom(
        status: int = 200,
        body: bytes | str | Mapping[str, object] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        processed: bool = False,
    ) -> Fault:
        """Respond with anything.

        :param status: the HTTP status.
        :param body: bytes, text, or an object to send as JSON.
        :param headers: headers on top of the usual ones.
        :param processed: whether the operation is carried out first.
        """
        text = json.dumps(body, ensure_ascii=False) if isinstance(body, Mapping) else body
        raw = text.encode() if isinstance(text, str) else text
        return Fault("custom", status=status, headers=tuple((headers or {}).items()), body=raw, processed=processed)

    @staticmethod
    def reset(*, processed: bool = False) -> Fault:
        """Reset the connection (RST) instead of responding, perhaps after the operation was carried out."""
        return Fault("reset", wire="reset", processed=processed)

    @staticmethod
    def hang(*, processed: bool = False) -> Fault:
        """Never respond, perhaps after the operation was carried out; the connection stays open."""
        return Fault("hang", wire="hang", processed=processed)

    @staticmethod
    def answer_lost(how: Literal["reset", "hang", "unavailable"] = "reset") -> Fault:
        """Carry the operation out (the mail starts), then lose the response.

        :param how: ``"reset"`` the connection, ``"hang"``, or ``"unavailable"``: respond with an HTML 503.
        """
        lost = {"reset": Fault.reset(), "hang": Fault.hang(), "unavailable": Fault.html_503()}[how]
        return replace(lost, kind="answer_lost", processed=True)

    @staticmethod
    def half_body() -> Fault:
        """Carry the operation out, send half of the response's bytes and close the connection."""
        return Fault("half_body", wire="half_body", processed=True)

    @staticmethod
    def half_json() -> Fault:
        """Carry the operation out and send a complete HTTP response whose JSON stops in the middle."""
        return Fault("half_json", wire="half_json", processed=True)

    @staticmethod
    def wrong_types() -> Fault:
        """Carry the operation out and respond with JSON in which every value has another type than documented."""
        return Fault("wrong_types", wire="wrong_types", processed=True)

    @staticmethod
    def delay(seconds: float, *, processed: bool = False) -> Fault:
        """Respond normally, but late.

        :param seconds: how late, in real seconds.
        :param processed: whether the operation is carried out at once and only the response waits; default both wait.
        """
        before, after = (0.0, seconds) if processed else (seconds, 0.0)
        return Fault("delay", processed=True, delay_before=before, delay_after=after)

    def spoil(self, response: Response) -> Response:
        """Return what this fault makes of a response."""
        if self.wire == "half_json":
            return replace(response, body=response.body[: len(response.body) // 2])
        if self.wire == "wrong_types":
            result = _other_type(json.loads(response.body).get("Result"))
            return replace(response, body=json.dumps({"RequestId": 7, "Result": result, "Success": "yes"}).encode())
        if self.body is None:
            return response
        return Response(self.status or 200, self.body, dict(self.headers))


def _other_type(value: object) -> object:
    match value:
        case dict():
            return [_other_type(inner) for inner in value.values()]
        case list():
            return {str(number): _other_type(inner) for number, inner in enumerate(value)}
        case str() | bool() | None:
            return {"value": value}
    return [value]


Callback = Callable[[Call], Any]
"""Looks at a call that has just arrived; may act on the simulator, and may return a fault."""


@dataclass(slots=True, eq=False)
class _Rule:
    """Which calls go wrong: those of an operation and a mail task (None: of every one), so many times."""

    action: str | None
    mail_id: str | None
    faults: Iterator[Fault | Callback]
    left: float


class Faults:
    """The faults that wait for calls: each call is hit by the first rule that concerns it."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def fail(
        self, action: str | None, *faults: Fault | Callback, times: int | None = 1, mail_id: str | None = None
    ) -> None:
        """Let calls go wrong.

        ``fail("GetMailTaskStatus", Fault.reset(), Fault.html_503())`` resets the next call of the operation and
        responds to the one after it with 503. Rules queue up: a call is hit by the first rule that concerns it.

        :param action: the operation; None for every one.
        :param faults: what goes wrong with the first, the second, ... of the calls; or one callable that looks at each
            :class:`Call` and returns a fault or None.
        :param times: how often the sequence of faults is repeated (or the callable returns a fault); default once.
            None: for ever, until :meth:`clear_faults`.
        :param mail_id: only calls for this mail task; default every one.
        :raises ValueError: there is no fault.
        """
        if not faults:
            raise ValueError("fail() needs at least one fault.")
        left = math.inf if times is None else times * len(faults)
        self._rules.append(_Rule(action, mail_id, itertools.cycle(faults), left))

    def clear_faults(self) -> None:
        """Let no call go wrong any more."""
        self._rules.clear()

    def choose_fault(self, call: Call) -> Fault | None:
        """Return the fault that hits a call, or None."""
        for rule in list(self._rules):
            if rule.action not in (None, call.action) or rule.mail_id not in (None, call.mail_id):
                continue
            chosen = next(rule.faults)
            fault: Fault | None = chosen if isinstance(chosen, Fault) else chosen(call)
            if fault is not None:
                rule.left -= 1
                if rule.left < 1:
                    with suppress(ValueError):  # just cleared by another thread
                        self._rules.remove(rule)
                return fault
        return None
