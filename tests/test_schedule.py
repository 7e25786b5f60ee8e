"""Learnt durations: what is estimated, who is chosen, and what that gains on simulated mornings."""

from __future__ import annotations

import statistics

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
from benchmarks.mornings import mean_detection, simulate_detection


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


def test_five_known_runs_halve_the_mean_detection_of_300_reports():
    ours, round_robin = (
        statistics.fmean(mean_detection(5, seed, chosen=chosen) for seed in range(3)) for chosen in (True, False)
    )
    assert ours <= 0.55 * round_robin


def test_with_nothing_known_detection_is_as_it_was():
    ours, round_robin = (
        statistics.fmean(mean_detection(0, seed, chosen=chosen) for seed in range(3)) for chosen in (True, False)
    )
    assert ours <= 1.05 * round_robin


def test_reports_that_take_another_time_than_ever_are_still_seen():
    usual = max(simulate_detection(5, 1, chosen=False, surprise=0.3))
    assert max(simulate_detection(5, 1, surprise=0.3)) <= 4 * usual
