"""The clock for all time and sleeping in this package, so a test replaces it in one place."""

from __future__ import annotations

import asyncio
import time as machine_time
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@dataclass(eq=False, slots=True)
class Clock:
    """A source of time and a way to let it pass; all values are seconds.

    :param time: seconds since the epoch, which all machines share.
    :param monotonic: seconds that never go backwards.
    :param sleep: blocks the thread.
    :param sleep_async: suspends the current task of the event loop.
    """

    time: Callable[[], float] = machine_time.time
    monotonic: Callable[[], float] = machine_time.monotonic
    sleep: Callable[[float], None] = machine_time.sleep
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep

    def now(self) -> datetime:
        """Return the time as an aware datetime."""
        return datetime.fromtimestamp(self.time(), UTC)


#: The clock of this process: the machine's, unless :func:`use` has set it.
CLOCK = Clock()


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Let the whole process use another clock; for tests.

    :param clock: what :data:`CLOCK` does until the block ends.
    """
    before = replace(CLOCK)
    _set(clock)
    try:
        yield
    finally:
        _set(before)


def _set(clock: Clock) -> None:
    for field in fields(Clock):
        setattr(CLOCK, field.name, getattr(clock, field.name))
