"""Learnt durations: what is estimated, who is chosen, and what that gains on simulated mornings."""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass, field

import pytest

from airflow_provider_quickbi._wait.schedule import (
    RUNS_KEPT,
    TURNS,
    UNKNOWN,
    Distribution,
    Duration,
    Durations,
    PendingPoll,
    PollSchedule,
    estimate,
    unseen_waiting,
)
from airflow_provider_quickbi.api.rate_limit import CALLER
from tests.test_pacing_simulation import Morning, simulate


def exact(seconds: float) -> Duration:
    return Duration(seconds, seconds)


def test_an_estimate_lies_where_the_runs_lie_and_is_narrower_the_more_there_are():
    few, many = estimate([exact(600)]), estimate([exact(600)] * 10)
    assert few.median == pytest.approx(600)
    assert many.median == pytest.approx(600)
    assert few.shape < many.shape


def test_a_duration_that_was_seen_roughly_makes_the_estimate_wider():
    rough = [Duration(300, 900)] * 5
    assert estimate(rough).median == pytest.approx(600)
    assert estimate(rough).shape < estimate([exact(600)] * 5).shape


def test_only_the_last_runs_of_a_subject_count_and_a_duration_that_is_none_does_not():
    durations = Durations()
    for _ in range(RUNS_KEPT):
        durations.learn("mail", exact(10))
    for _ in range(RUNS_KEPT):
        durations.learn("mail", exact(100))
    durations.learn("mail", Duration(200, 100))
    durations.learn("mail", Duration(-5, 100))
    assert durations.distribution("mail") == estimate([exact(100)] * RUNS_KEPT)
    durations.learn("other", Duration(0, 0))
    assert durations.distribution("other") is None


def test_a_poll_is_worth_the_waiting_that_it_ends():
    # A constant hazard, as the formula has it: a log-logistic one nearly is, over a short while.
    distribution = Distribution(100.0, 4.0)
    pending = PendingPoll("mail", 0.0, 99.0)
    hazard = 4.0 / 100 * 0.5
    assert unseen_waiting(distribution, pending, 101.0) == pytest.approx(2.0 * (2 * hazard) / 2, rel=0.05)
    assert unseen_waiting(distribution, pending, 99.0) == 0
    assert unseen_waiting(distribution, PendingPoll("mail", 0.0, 0.0), 1.0) == pytest.approx(0, abs=1e-6)
    assert unseen_waiting(distribution, PendingPoll("mail", -1e30, 0.0), 1e30) >= 0
    assert unseen_waiting(UNKNOWN, PendingPoll(None, 0.0, 50.0), 100.0) > 0


def test_the_run_that_must_have_finished_is_chosen_and_every_fourth_time_the_one_that_is_first_in_line():
    durations = Durations()
    for subject, seconds in (("long", 3600), ("short", 60)):
        for _ in range(5):
            durations.learn(subject, exact(seconds))
    schedule = PollSchedule(durations, lambda: 100.0)
    line = [PendingPoll("long", 0.0, 30.0), PendingPoll(None, 0.0, 30.0), PendingPoll("short", 0.0, 30.0)]
    assert [schedule.choose(line) for _ in range(2 * TURNS)] == [2, 2, 2, 0] * 2


def test_what_is_urgent_is_chosen_first():
    durations = Durations()
    durations.learn("short", exact(60))
    schedule = PollSchedule(durations, lambda: 100.0)
    assert schedule.choose([PendingPoll("short", 0.0, 30.0), None, None]) == 1


def test_without_anything_learnt_the_first_in_line_is_chosen():
    schedule = PollSchedule(Durations(), lambda: 100.0)
    line = [PendingPoll("a", 0.0, 99.0), PendingPoll("b", 0.0, 1.0), None]
    assert {schedule.choose(line) for _ in range(3 * TURNS)} == {0}


@dataclass
class Report:
    """A mail task whose runs take about as long each time.

    :param typical: median seconds.
    :param seconds: of this morning's run.
    """

    number: int
    typical: float
    seconds: float
    delays: list[float] = field(default_factory=list)


class LearntMorning(Morning):
    """Reports that all start at once, of which some past runs are known, on one call a second."""

    def __init__(self, reports: int, known: int, seed: int, *, surprise: float = 0.0) -> None:
        super().__init__(1.0, seed=seed)
        self.durations = Durations()
        limiter = self.processes[0].limiter
        limiter.choose = PollSchedule(self.durations, self.loop.time).choose
        numbers = random.Random(seed)

        def takes(typical: float) -> float:
            return typical * numbers.lognormvariate(0, 0.15)

        self.reports = []
        for number in range(reports):
            typical = 600 * numbers.lognormvariate(0, 0.7)
            seconds = numbers.uniform(10, 4000) if numbers.random() < surprise else takes(typical)
            self.reports.append(Report(number, typical, seconds))
            for _ in range(known):
                past, gap = takes(typical), numbers.uniform(10, 120)
                least = max(0.0, past - numbers.uniform(0, gap))
                self.durations.learn(number, Duration(least, least + gap))

    async def watch(self, report: Report, poke_interval: float) -> None:
        """Wait for a report as the triggerer does."""
        await asyncio.sleep(self.random.uniform(0, 30))
        polled_at = 0.0
        while True:
            CALLER.set(PendingPoll(report.number, 0.0, polled_at) if polled_at else None)
            arrived_at = await self.poll(self.processes[0])
            if arrived_at is None:
                continue
            if arrived_at >= report.seconds:
                report.delays.append(self.loop.time() - report.seconds)
                self.durations.learn(report.number, Duration(polled_at, arrived_at))
                return
            polled_at = arrived_at
            await asyncio.sleep(poke_interval)


def detection(known: int, seed: int, *, chosen: bool = True, reports: int = 300, surprise: float = 0.0) -> list[float]:
    async def main() -> list[float]:
        morning = LearntMorning(reports, known, seed, surprise=surprise)
        if not chosen:
            morning.processes[0].limiter.choose = None
        await asyncio.gather(*(asyncio.create_task(morning.watch(report, 30.0)) for report in morning.reports))
        return [delay for report in morning.reports for delay in report.delays]

    return simulate(main())


def test_five_known_runs_nearly_halve_the_mean_detection_of_300_reports():
    means = [
        statistics.fmean(statistics.fmean(detection(5, seed, chosen=chosen)) for seed in range(3))
        for chosen in (True, False)
    ]
    assert means[0] <= 0.55 * means[1]


def test_with_nothing_known_detection_is_as_it_was():
    means = [
        statistics.fmean(statistics.fmean(detection(0, seed, chosen=chosen)) for seed in range(3))
        for chosen in (True, False)
    ]
    assert means[0] <= 1.05 * means[1]


def test_reports_that_take_another_time_than_ever_are_still_seen():
    usual = max(detection(5, 1, chosen=False, surprise=0.3))
    assert max(detection(5, 1, surprise=0.3)) <= 4 * usual
