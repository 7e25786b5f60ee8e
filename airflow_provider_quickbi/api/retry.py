"""How often a read is tried again: apart from what does it, so that a DAG file need not import that."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a read is tried again after throttling or a transient error.

    :param attempts: calls in all, at least 1.
    :param first_delay: seconds before the second attempt; each further delay doubles, with jitter.
    :param max_delay: seconds between two attempts at the most, unless the service asks for more.
    """

    attempts: int = 5
    first_delay: float = 0.5
    max_delay: float = 8.0

    def delay(self, attempt: int, asked_for: float | None) -> float:
        """Return the seconds to wait after an attempt, numbered from 1."""
        backoff = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads calls, protects nothing
        return max(jittered, asked_for or 0.0)


NO_RETRY = RetryPolicy(attempts=1)
