"""Keeps what was called: a log of bounded length, and counters that stay exact."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """One call as the server saw it.

    :param number: 1 for the first call the server received.
    :param action: the operation; empty if the request names none.
    :param params: the parameters of the query and of a form body.
    :param headers: the request's headers under lower-case names, without credentials.
    :param monotonic_time: when it arrived, in seconds of the monotonic clock of the server's process.
    :param wall_time: when it arrived, in seconds since 1970, in real time.
    :param connection_id: 1 for the first connection over which a call came.
    :param remote_port: the client's port.
    :param access_key_id: who called; None as long as nobody is authenticated.
    :param http_status: the status that was sent; None if no complete response was sent, or none yet.
    :param code: ``"OK"``, the ``Code`` of a refusal, or the kind of the fault that took the response's place.
    :param fault: the kind of the injected fault; None if there was none.
    """

    number: int
    action: str
    params: dict[str, str]
    headers: dict[str, str]
    monotonic_time: float
    wall_time: float
    connection_id: int
    remote_port: int
    access_key_id: str | None = None
    http_status: int | None = None
    code: str = ""
    fault: str | None = None

    @property
    def mail_id(self) -> str | None:
        """The requested ``MailId``, if any."""
        return self.params.get("MailId")


class CallLog:
    """The calls of a server whose outcome is known.

    :param calls_kept: how many are kept; the counters stay exact.
    """

    def __init__(self, calls_kept: int) -> None:
        self._calls: deque[Call] = deque(maxlen=calls_kept)
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def log(self, call: Call) -> None:
        """Add a call."""
        self._calls.append(call)
        self._counts[call.action][call.code] += 1

    @property
    def calls(self) -> list[Call]:
        """The latest calls, in the order in which they ended."""
        return list(self._calls)

    def counters(self) -> dict[str, dict[str, int]]:
        """Return operation to outcome to number of calls."""
        return {action: dict(outcomes) for action, outcomes in list(self._counts.items())}

    def count(self, action: str | None = None, code: str | None = None) -> int:
        """Count calls, including those that :attr:`calls` no longer holds.

        :param action: only calls of this operation.
        :param code: only calls with this outcome: ``"OK"``, a ``Code``, or the kind of a fault such as ``"reset"``.
        """
        return sum(
            number
            for counted, outcomes in self.counters().items()
            for outcome, number in outcomes.items()
            if action in (None, counted) and code in (None, outcome)
        )
