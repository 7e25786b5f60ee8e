"""Keeps what was called: a log of bounded length, and counters that stay exact."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OK: Final = "OK"
"""The ``code`` of a call that was answered with success."""

_SECRET_HEADERS: Final = frozenset({"authorization", "x-acs-security-token", "x-acs-bearer-token"})


@dataclass(slots=True)
class Call:
    """One call as the server saw it.

    :param number: 1 for the first call the server received.
    :param action: the operation; empty if the request names none.
    :param params: the parameters of the query and of a form body.
    :param headers: the request's headers under lower-case names, without credentials.
    :param monotonic_time: when it arrived, in seconds of the monotonic clock of the server's process.
    :param wall_time: when it arrived, in seconds since 1970, in real time.
    :param connection_id: 1 for the first connection the server accepted.
    :param remote_port: the client's port.
    :param http_method: the HTTP method.
    :param access_key_id: who called; None as long as nobody is authenticated.
    :param http_status: the status that was sent; None if no complete answer was sent, or none yet.
    :param code: ``"OK"``, the ``Code`` of a refusal, or the kind of the fault that took the answer's place.
    :param fault: the kind of the injected fault; None if there was none.
    :param processed: whether the operation was carried out, even if the client got no response.
    """

    number: int
    action: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    monotonic_time: float
    wall_time: float
    connection_id: int
    remote_port: int
    http_method: str = "POST"
    access_key_id: str | None = None
    http_status: int | None = None
    code: str = ""
    fault: str | None = None
    processed: bool = False

    @property
    def mail_id(self) -> str | None:
        """The requested ``MailId``, if any."""
        return self.params.get("MailId")

    def as_json(self) -> dict[str, Any]:
        """Return the call as plain JSON data."""
        return asdict(self)


def visible_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without credentials, for the log.

    :param headers: lower-case name to value.
    """
    return {name: value for name, value in headers.items() if name not in _SECRET_HEADERS}


@dataclass(slots=True)
class CallLog:
    """The calls of a server. Safe to use from several threads.

    :param length: how many calls are kept; older ones are dropped, the counters keep counting. Default 10,000.
    """

    length: int = 10_000
    _calls: deque[Call] = field(init=False, repr=False)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._calls = deque(maxlen=self.length)

    def add(self, call: Call) -> None:
        """Log a call whose outcome is known."""
        with self._lock:
            self._calls.append(call)
            self._counts[call.action, call.code] += 1

    @property
    def calls(self) -> list[Call]:
        """The latest calls whose outcome is known, in that order."""
        with self._lock:
            return list(self._calls)

    def count(self, action: str | None = None, code: str | None = None) -> int:
        """Count calls whose outcome is known, including those that :attr:`calls` no longer holds.

        :param action: only calls of this operation; default all.
        :param code: only calls with this outcome: ``"OK"``, a ``Code``, or the kind of a fault such as ``"reset"``;
            default all.
        """
        with self._lock:
            return sum(
                number
                for (counted_action, counted_code), number in self._counts.items()
                if (action is None or counted_action == action) and (code is None or counted_code == code)
            )

    def counters(self) -> dict[str, dict[str, int]]:
        """Return operation to outcome to number of calls."""
        with self._lock:
            table: dict[str, dict[str, int]] = {}
            for (action, code), number in self._counts.items():
                table.setdefault(action, {})[code] = number
            return table

    def clear(self) -> None:
        """Forget every call and set the counters to 0."""
        with self._lock:
            self._calls.clear()
            self._counts.clear()
