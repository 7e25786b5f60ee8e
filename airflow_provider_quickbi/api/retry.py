"""How often a read is retried, kept apart from the client so that a DAG file need not import it."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which delays a read is retried after throttling or a transient error.

    :param attempts: calls in total, at least 1; default 5.
    :param first_delay: seconds before the second attempt; each further delay doubles, with jitter; default 0.5.
    :param max_delay: longest delay in seconds, unless the service asks for more; default 8.
    """

    attempts: int = 5
    first_delay: float = 0.5
    max_delay: float = 8.0

    def delay(self, attempt: int, retry_after: float | None) -> float:
        """Return the seconds to wait after an attempt.

        :param attempt: number of the attempt, from 1.
        :param retry_after: seconds the service asked for, if it did.
        """
        backoff = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads calls, protects nothing
        return max(jittered, retry_after or 0.0)


NO_RETRY = RetryPolicy(attempts=1)
