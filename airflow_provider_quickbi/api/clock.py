"""The clock that everything in this package reads and sleeps by, so that a test can replace it in one place."""

from __future__ import annotations

import asyncio
import time as machine_time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


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


#: The machine's clock, the default everywhere.
SYSTEM_CLOCK = Clock()
