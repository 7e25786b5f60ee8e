"""Counts calls: a log of bounded length, counters that stay exact, and the limits that Quick BI documents.

The documented limits: https://help.aliyun.com/zh/quick-bi/developer-reference/412695
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

DOCUMENTED_CALLS_PER_SECOND: Final[Mapping[str, float]] = {"GetMailTaskStatus": 1, "ManualRunMailTask": 1, "*": 50}
"""Calls a second for each operation; ``"*"`` stands for every operation that is not named."""

CallsPerSecond = Mapping[str, float] | float | None


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


class RateLimiter:
    """Lets at most so many calls of an operation through in any second, counted for the whole organisation.

    A rate below 1 lets one call through in ``1 / rate`` seconds. Refused calls are not counted.

    :param calls_per_second: see :meth:`limit_calls`.
    :param now: returns the time in seconds.
    """

    def __init__(self, calls_per_second: CallsPerSecond, now: Callable[[], float]) -> None:
        self._now = now
        self.limit_calls(calls_per_second)

    def limit_calls(self, calls_per_second: CallsPerSecond) -> None:
        """Change the limits of calls a second.

        :param calls_per_second: one for each operation, a mapping of operation to limit in which ``"*"`` stands for
            every other operation, or ``None`` for no limits.
        :raises ValueError: a limit is not above 0.
        """
        rates = {"*": calls_per_second} if isinstance(calls_per_second, (int, float)) else calls_per_second
        for action, rate in (rates or {}).items():
            if rate <= 0:
                raise ValueError(f"calls_per_second of {action} must be above 0, got {rate}.")
        self.calls_per_second: dict[str, float] = dict(rates or {})
        self._passed: dict[str, deque[float]] = {}

    def seconds_to_wait(self, action: str) -> float:
        """Count a call and return 0, or return how many seconds it comes too early."""
        rate = self.calls_per_second.get(action, self.calls_per_second.get("*"))
        if rate is None:
            return 0.0
        capacity = max(1, int(rate))
        now, window = self._now(), capacity / rate
        passed = self._passed.setdefault(action, deque(maxlen=capacity))
        if len(passed) == capacity and 0 <= now - passed[0] < window:
            return window - (now - passed[0])
        passed.append(now)
        return 0.0
