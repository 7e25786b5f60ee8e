"""The calls of one operation that all processes of an account share exactly, in one queue that Redis keeps.

Every process that has waiting callers holds one slot: a process that is killed costs that slot and no other. Slots lie
one interval apart, by the server's clock (the generic cell rate algorithm, with a hole where nobody wants a slot). A
process with a share of the waiting callers gets that share of the slots: its next slot lies so many intervals after the
one before. A slot that is free half an interval before it starts is anyone's.

Without Redis each process paces itself as :class:`~airflow_provider_quickbi.api.rate_limit.RateLimiter` does.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_quickbi.api.rate_limit import LATENESS_SECONDS, MARGIN, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.api.clock import Clock

log = logging.getLogger(__name__)

DEFAULT_REDIS_PORT = 6379

#: A process gets at least one slot in this many, however few of the waiting callers are its own.
SMALLEST_SHARE = 32
#: Seconds after which a Redis that was away is tried again.
PROBE_SECONDS = 15.0
#: Seconds between two checks whether a slot may be had sooner.
SHORTEST_CHECK_SECONDS = 0.25

# The state of a queue is a hash: process -> slot, ideal time of the one before, number of waiting callers; and "last"
# -> the latest slot that was used. All times are microseconds since the epoch, and less than 2^53.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local process, weight, renew = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local interval, least, earliest, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local taken, total, anchor, held, ideal, last = {}, weight, nil, nil, nil, nil
local state = redis.call('HGETALL', KEYS[1])
for i = 1, #state, 2 do
  local slot, base, waiting = string.match(state[i + 1], '^(%d+) (%d+) (%d+)$')
  slot, base, waiting = tonumber(slot), tonumber(base), tonumber(waiting)
  if slot <= now or (renew and state[i] == process) then last = math.max(last or slot, slot) end
  if slot + most * interval < now or slot > now + 4 * most * interval then
    redis.call('HDEL', KEYS[1], state[i])
  else
    anchor = math.max(anchor or slot, slot)
    if state[i] == process then
      held, ideal = slot, base
    elseif state[i] == 'last' then
      taken[#taken + 1] = slot
    elseif slot + interval > now then
      taken[#taken + 1] = slot
      total = total + waiting
    end
  end
end
local step = interval * math.min(most, total / weight)
local from, base = now + earliest, now - step
if held and renew then
  taken[#taken + 1] = held
  from = math.max(from, held + least)
  base = math.min(held, math.max(held - 2 * interval, ideal + step))
elseif held then
  base = ideal
end
ideal = base + step
local function free(slot)
  for _, other in ipairs(taken) do
    if math.abs(other - slot) < interval then return false end
  end
  return true
end
local slot = from
if anchor and (ideal > now or from > now or not free(now)) then
  slot = anchor + math.ceil((from - anchor) / interval) * interval
  if slot - now > interval / 2 or not free(slot) then
    slot = math.max(slot, anchor + math.floor((ideal - anchor) / interval) * interval)
    while not free(slot) do slot = slot + interval end
  end
end
if held and not renew and held >= from then slot = math.min(slot, held) end
redis.call('HSET', KEYS[1], process, string.format('%.0f %.0f %.0f', slot, base, weight))
if last then redis.call('HSET', KEYS[1], 'last', string.format('%.0f 0 0', last)) end
redis.call('PEXPIRE', KEYS[1], math.ceil((slot - now + 2 * most * interval) / 1000) + 60000)
return slot - now
"""


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where the Redis is through which processes share a limit.

    :param host: its name or address.
    :param port: default 6379.
    :param db: number of the database; default 0.
    :param username: ``None`` for the default user.
    :param password: ``None`` for none.
    :param ssl: whether to speak TLS.
    :param ssl_options: pairs of further ``ssl_...`` arguments of redis-py.
    :param timeout: seconds for a connection and for a response; default 1.
    :param unusable: why no request can succeed; ``None`` if one may.
    """

    host: str
    port: int = DEFAULT_REDIS_PORT
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl: bool = False
    ssl_options: tuple[tuple[str, Any], ...] = ()
    timeout: float = 1.0
    unusable: str | None = None


class RedisServer:
    """A Redis server that may be unavailable; logged once, and once more when it is back.

    :param clock: monotonic time in seconds.
    """

    def __init__(self, settings: RedisSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._reserve: Any = None
        self._away_until = -math.inf
        self._reported = False

    @property
    def available(self) -> bool:
        """Whether it responded last time, or may be tried again."""
        return self._clock() >= self._away_until

    def reserve(self, key: str, arguments: list[str | int], longest: float) -> float | None:
        """Reserve a slot of a queue.

        :param longest: the most seconds that a valid response may have.
        :returns: seconds until the slot; ``None`` if the server is away, slow or wrong, which is logged once.
        """
        try:
            if self._reserve is None:
                self._reserve = self._connect()
            microseconds = self._reserve(keys=[key], args=arguments)
            if not isinstance(microseconds, int) or not 0 <= microseconds <= longest * 1e6:
                raise ValueError(f"its response was {str(microseconds)[:50]!r}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with Redis, no wait fails for it
            self._report_away(error)
            return None
        if self._reported:
            log.info("Redis %s is available again; all processes share one queue of calls.", self._address)
        self._reported = False
        return microseconds / 1e6

    def _connect(self) -> Any:
        if self.settings.unusable is not None:
            raise ValueError(self.settings.unusable)
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        settings = self.settings
        client = redis.Redis(
            host=settings.host,
            port=settings.port,
            db=settings.db,
            username=settings.username,
            password=settings.password,
            ssl=settings.ssl,
            **dict(settings.ssl_options),
            socket_connect_timeout=settings.timeout,
            socket_timeout=settings.timeout,
            # A connection that the server closed while it was idle is opened again; what is slow is not tried again.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            protocol=2,  # a server before version 6 knows no other
        )
        return client.register_script(_RESERVE)

    def _report_away(self, error: Exception) -> None:
        self._away_until = self._clock() + PROBE_SECONDS
        if self._reported:
            return
        self._reported = True
        if isinstance(error, ImportError):
            reason = "redis-py is not installed: pip install 'airflow-provider-quickbi[redis]'"
        else:
            reason = f"{type(error).__name__}: {self._without_secret(str(error))}"
        log.warning(
            "Redis %s unavailable for pacing (%s). Each process paces itself until it is back.", self._address, reason
        )

    @property
    def _address(self) -> str:
        return f"{self.settings.host}:{self.settings.port}"

    def _without_secret(self, text: str) -> str:
        secret = self.settings.password
        return (text.replace(secret, "***") if secret else text)[:200]


class SharedRateLimiter(RateLimiter):
    """The calls of one operation that all processes of an account may make together.

    :param rate: calls per second that the service allows.
    :param key: of the queue; the same in all processes.
    """

    remote: ClassVar[bool] = True

    def __init__(self, rate: float, key: str, server: RedisServer, **options: Any) -> None:
        super().__init__(rate, **options)
        self._key = key
        self._server = server
        self._reserving = threading.Lock()
        self._process_id = -1
        self._process = ""
        self._blocked = 0
        self._slot_at: float | None = None
        self._check_at = math.inf

    def try_acquire(self) -> float:
        """Take this process's slot if it has come, or say how long to wait; it may take a request to Redis.

        :returns: 0 if the call may be made now, else seconds until trying again makes sense.
        """
        with self._reserving:
            if (seconds := self._try_held()) is not None:
                return seconds
            return self._try_reserve()

    def acquire_blocking(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Wait until a call may be made, holding the thread."""
        with self._guard:
            self._blocked += 1
        try:
            super().acquire_blocking(sleep)
        finally:
            with self._guard:
                self._blocked -= 1

    async def _try_acquire(self) -> float:
        # What is known here needs no request; another thread that makes one holds the lock meanwhile.
        if self._reserving.acquire(blocking=False):
            try:
                seconds = self._try_held()
            finally:
                self._reserving.release()
            if seconds is not None:
                return seconds
        return await asyncio.to_thread(self.try_acquire)

    def _try_held(self) -> float | None:
        """See :meth:`try_acquire` as far as that needs no Redis; ``None`` if it does."""
        if not self._server.available:
            self._slot_at = None
            return super().try_acquire()
        now = self._clock()
        if (pause := self._not_before - now) > self.slot:
            self._slot_at = None  # so far ahead nothing is reserved
            return pause
        if self._process_id != os.getpid():  # after a fork, too
            self._process_id, self._process, self._slot_at = os.getpid(), uuid.uuid4().hex, None
        if self._slot_at is None:
            return None
        if now >= self._slot_at:
            return self._take(now - self._slot_at)
        return min(self._slot_at, self._check_at) - now if now < self._check_at else None

    def _try_reserve(self) -> float:
        with self._guard:
            waiting = self._blocked + sum(len(line.callers) for line in self._lines.values())
        now, share = self._clock(), self.share.fraction
        arguments: list[str | int] = [
            self._process,
            max(1, waiting),
            int(self._slot_at is None),
            round(self.slot * 1e6),
            round(self.slot / share * 1e6) if share < 1 else 0,
            round((self._not_before - now) * 1e6) if self._not_before > now else 0,
            SMALLEST_SHARE,
        ]
        seconds = self._server.reserve(self._key, arguments, longest=8 * SMALLEST_SHARE * self.slot)
        if seconds is None:
            self._slot_at = None
            return super().try_acquire()
        now = self._clock()
        self._slot_at = now + seconds
        if seconds == 0:
            return self._take(0.0)
        # A little later than half an interval before a slot that others may have left.
        ahead = (seconds - 0.4 * self.slot) % self.slot
        skipped = math.ceil(max(0.0, SHORTEST_CHECK_SECONDS - ahead) / self.slot)
        self._check_at = now + ahead + skipped * self.slot if share == 1 else math.inf
        return min(self._slot_at, self._check_at) - now

    def _take(self, late: float) -> float:
        """Take the slot that has come, unless so late that the next one's owner would be disturbed."""
        self._slot_at = None
        if late > max(LATENESS_SECONDS, MARGIN / 2 * self.slot) and not self._was_late:
            self._was_late = True
            return self._try_reserve()
        self._was_late = False
        super().try_acquire()  # so that it is known where Redis is away afterwards
        return 0.0


def shared_rate_limiter(
    settings: RedisSettings, account: tuple[str, str], action: str, rate: float, clock: Clock
) -> SharedRateLimiter:
    """Return the rate limiter that an operation of an account has in all processes.

    :param account: whose calls they are; only its hash is stored.
    :param rate: calls per second that the service allows.
    :param clock: the time; the queue itself follows the Redis server's.
    """
    name = hashlib.sha256("\n".join(account).encode()).hexdigest()[:32]
    return SharedRateLimiter(
        rate,
        f"airflow-provider-quickbi:pace:{name}:{action}:{rate:g}",
        _server(settings, clock),
        clock=clock.monotonic,
        wall_clock=clock.time,
        sleep=clock.sleep_async,
    )


@lru_cache(maxsize=16)
def _server(settings: RedisSettings, clock: Clock) -> RedisServer:
    return RedisServer(settings, clock.monotonic)
