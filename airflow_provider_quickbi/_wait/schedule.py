"""Which wait is polled next: the one that has most probably kept its task waiting, by how long past runs took; pure.

The duration of a run is modelled as log-logistic, whose median and spread come from the mail task's last runs. A poll
of a wait is worth the waiting that it is expected to end: ``W = tau * ((e^H - 1) / H - 1)``, about ``tau * H / 2``,
with ``tau`` seconds since its last poll and ``H`` the hazard that has accumulated since (``ln S(age then) -
ln S(age now)``). Every fourth call goes to the wait that has been in line the longest, so that early failures and
unusual durations are seen as well. While nothing has been learnt, calls go round as if this module did not exist.

Durations are kept in the process only. No store holds them at no cost: reading the XComs of earlier DAG runs takes a
request for each wait, a trigger's arguments must not grow, and the watcher's state holds what is not finished yet.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

#: Past runs that are remembered for each subject.
RUNS_KEPT = 16
#: Subjects whose past runs are remembered; the one that finished longest ago is forgotten first.
SUBJECTS_KEPT = 10_000
#: Every fourth call goes to the wait that has been queued longest.
TURNS = 4
#: Standard deviation of the logarithm of a duration that is assumed at first, and for how many runs that counts.
PRIOR_SPREAD, PRIOR_RUNS = 0.3, 1.0
#: Limits of a distribution's shape: hazard grows no slower than for a run of which nothing is known, and no
#: distribution is so narrow that a run which takes longer than ever is polled all the time.
LEAST_SHAPE, GREATEST_SHAPE = 1.0, 12.0
#: Ages are counted as at most so many medians.
_LONGEST = 1e6


class Duration(NamedTuple):
    """Between which two values the duration of a finished run lies, in seconds.

    :param least: from its start to the last poll that saw it unfinished; 0 if none did.
    :param most: from its start to the poll that saw it finished.
    """

    least: float
    most: float


class PendingPoll(NamedTuple):
    """What a caller that waits for a slot polls for.

    :param subject: of the run; ``None`` if no run has been seen, so that past runs say nothing.
    :param started_at: when the run started, or the wait if no run has been seen; seconds since the epoch.
    :param polled_at: when the last poll succeeded, in the same seconds.
    """

    subject: Hashable | None
    started_at: float
    polled_at: float


class Distribution(NamedTuple):
    """A log-logistic distribution of durations.

    :param median: seconds.
    :param shape: 1 for a duration of which nothing is known; the larger, the narrower.
    """

    median: float
    shape: float

    def odds(self, age: float) -> float:
        """Return the odds that a run has finished at an age: ``1 / S(age) - 1``."""
        return float(min(max(0.0, age) / self.median, _LONGEST) ** self.shape)


#: Of a run of which nothing is known.
UNKNOWN = Distribution(300.0, LEAST_SHAPE)


class Durations:
    """What past runs of each subject took, as far as this process has seen."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, deque[Duration]] = OrderedDict()
        self._distributions: dict[Hashable, Distribution] = {}

    def learn(self, subject: Hashable, duration: Duration) -> None:
        """Remember a finished run.

        :param duration: ignored if it is not positive.
        """
        if not 0 <= duration.least <= duration.most or duration.most <= 0:
            return
        runs = self._runs.setdefault(subject, deque(maxlen=RUNS_KEPT))
        runs.append(duration)
        self._runs.move_to_end(subject)
        self._distributions[subject] = estimate(runs)
        if len(self._runs) > SUBJECTS_KEPT:
            forgotten, _ = self._runs.popitem(last=False)
            del self._distributions[forgotten]

    def distribution(self, subject: Hashable) -> Distribution | None:
        """Return what is known of a subject's durations; ``None`` if that is nothing."""
        return self._distributions.get(subject)


def estimate(runs: Sequence[Duration]) -> Distribution:
    """Return the distribution of the durations of some runs.

    :param runs: at least one; each counts as its middle, and is as uncertain as it is wide.
    """
    middles = [max(1e-3, (run.least + run.most) / 2) for run in runs]
    logs = [math.log(middle) for middle in middles]
    mean = math.fsum(logs) / len(logs)
    squares = math.fsum((log - mean) ** 2 for log in logs) + PRIOR_RUNS * PRIOR_SPREAD**2
    width = math.fsum(
        ((run.most - run.least) / middle) ** 2 / 12 for run, middle in zip(runs, middles, strict=True)
    ) / len(runs)
    spread = math.sqrt(squares / (len(runs) - 1 + PRIOR_RUNS) + width)
    shape = math.pi / math.sqrt(3) / spread
    return Distribution(math.exp(mean), min(max(shape, LEAST_SHAPE), GREATEST_SHAPE))


def unseen_waiting(distribution: Distribution, pending: PendingPoll, now: float) -> float:
    """Return how much a poll is worth, in seconds: ``W`` above.

    :param now: seconds since the epoch.
    """
    tau = max(0.0, now - pending.polled_at)
    now_odds = distribution.odds(now - pending.started_at)
    growth = (now_odds - (then_odds := distribution.odds(pending.polled_at - pending.started_at))) / (1 + then_odds)
    if growth < 1e-6:  # where the quotient below loses its digits
        return tau * max(0.0, growth) / 2
    return tau * (growth / math.log1p(growth) - 1)


class PollSchedule:
    """Chooses which of the callers of one rate limiter gets the next slot.

    :param now: returns seconds since the epoch.
    """

    def __init__(self, durations: Durations, now: Callable[[], float]) -> None:
        self._durations = durations
        self._now = now
        self._turn = 0

    def choose(self, callers: Sequence[object]) -> int:
        """Return the position of the caller that gets the slot.

        :param callers: the longest waiting first. What is no :class:`PendingPoll` is urgent.
        """
        known = [
            self._durations.distribution(caller.subject) if isinstance(caller, PendingPoll) else None
            for caller in callers
        ]
        if not any(known):
            return 0
        self._turn = (self._turn + 1) % TURNS
        if self._turn == 0:
            return 0
        now = self._now()
        best, most = 0, -1.0
        for position, (caller, distribution) in enumerate(zip(callers, known, strict=True)):
            if not isinstance(caller, PendingPoll):
                return position
            worth = unseen_waiting(distribution or UNKNOWN, caller, now)
            if worth > most:
                best, most = position, worth
        return best
