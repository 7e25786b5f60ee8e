"""Waits with a known end: what happens to a mail task, who waits for it, and the outcomes that the truth allows."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, OnFailed, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.testing import Fault

from .faulty import FaultyQuickBI, Profile, Seen

#: Seconds that nobody waits for: a wait that ends by the truth never comes near it.
LONG = 900.0
#: Seconds by which a last poll may be older than the end of the timeout.
STALE = 3.0

#: What every status call of some mail tasks is refused with, and the Code that the outcome must name.
REFUSALS: tuple[tuple[Fault, str], ...] = (
    (Fault.error("Mail.Not.Found"), "Mail.Not.Found"),
    (Fault.error("Mail.Forbidden.Access"), "Mail.Forbidden.Access"),
    (Fault.error("Forbidden.RAM"), "Forbidden.RAM"),
    (Fault.error("Instance.Expired"), "Instance.Expired"),
    (Fault.error("Brand.New.Code", "Never seen before"), "Brand.New.Code"),
    (Fault.unsuccessful("Access.Forbidden", "no"), "Access.Forbidden"),
    (Fault.redirect("http://127.0.0.1:9/elsewhere"), ""),
)


@dataclass(slots=True)
class PlannedRun:
    """A run that will start.

    :param begins_after: seconds after the story's start.
    :param exec_time: its own start time; ``None`` for the server's time.
    :param lasts: seconds until it finishes; ``None`` for never.
    :param status: how it ends.
    :param task_id: once it has started.
    :param over_at: when it finished, seconds since the epoch.
    """

    begins_after: float
    exec_time: datetime | None
    lasts: float | None
    status: str
    task_id: str = ""
    over_at: float | None = None


@dataclass(slots=True)
class WaitPlan:
    """Somebody who waits.

    :param wait: what the wait is given.
    :param joins_after: seconds after the story's start.
    :param poke_interval: seconds between two polls.
    :param holds_worker: whether it waits in a worker and not in the triggerer.
    :param late_after: seconds after which it is late.
    """

    wait: WaitState
    joins_after: float
    poke_interval: float
    holds_worker: bool
    late_after: float | None = None


@dataclass(slots=True)
class Story:
    """One mail task, its runs, and those who wait for them.

    :param name: what kind of story it is.
    :param mail_id: the mail task.
    :param runs: the runs that will start, in order.
    :param waits: those who wait.
    :param ends: the outcomes that these waits are for; others are never right, whatever the timing.
    :param refusal_code: the ``Code`` of the refusal, for a story of one.
    """

    name: str
    mail_id: str
    runs: list[PlannedRun]
    waits: list[WaitPlan]
    ends: frozenset[Outcome]
    refusal_code: str = ""
    profile: Profile = field(default_factory=Profile)


def notify(number: int, seed: int) -> Story:
    """Make up a story; the same number and seed give the same one.

    :param number: of the story.
    :param seed: of the whole run.
    """
    return _Teller(number, random.Random(f"{seed}/story/{number}")).notify()


class _Teller:
    def __init__(self, number: int, dice: random.Random) -> None:
        self.dice = dice
        self.mail_id = f"story-{number}"
        # Whole seconds, as the service writes them.
        self.selector = datetime.fromtimestamp(int(time.time()) - dice.randrange(-1, 40), UTC)
        self.runs: list[PlannedRun] = []
        self.profile = Profile(trouble=dice.choice((0.0, 0.2, 0.4, 0.6)), listed=dice.choice((1, 2, 6, 6)))

    def notify(self) -> Story:
        name = self.dice.choice(tuple(_KINDS))
        for _ in range(self.dice.randrange(3)):
            before = self.selector - timedelta(seconds=self.dice.choice((1, 60, 86400)))
            self.runs.append(PlannedRun(0.0, before, 0.0, self.dice.choice(("SENT", "FAILED"))))
        return _KINDS[name](self, name)

    def run(self, begins: float, lasts: float | None, status: str, second: int = 0) -> PlannedRun:
        run = PlannedRun(begins, self.selector + timedelta(seconds=second), lasts, status)
        self.runs.append(run)
        return run

    def soon(self) -> float:
        return self.dice.uniform(0.0, 1.2)

    def story(
        self,
        name: str,
        ends: set[Outcome],
        *,
        code: str = "",
        most: int = 3,
        selector: RunSelector | None = None,
        **wait: Any,
    ) -> Story:
        given = RunSelector(executed_after=self.selector) if selector is None else selector
        now = time.time()
        plans = [
            WaitPlan(
                wait=WaitState(
                    subject=MailTaskSubject(self.mail_id),
                    selector=given,
                    since=now,
                    **{"finish_by": now + LONG, **_with_limits(wait, now)},
                ),
                joins_after=self.dice.uniform(0.0, 0.8),
                poke_interval=self.dice.choice((0.15, 0.3, 0.6)),
                holds_worker=self.dice.random() < 0.2,
                late_after=self.dice.choice((None, None, None, 0.3)),
            )
            for _ in range(self.dice.randint(1, most))
        ]
        return Story(name, self.mail_id, self.runs, plans, frozenset(ends), code, self.profile)

    def other_mail_id(self) -> None:
        """Let a run start by the server's own clock, wherever that stands."""
        if self.dice.random() < 0.3:
            self.runs.append(PlannedRun(self.soon(), None, self.dice.uniform(0.0, 0.5), "SENT"))

    # The kinds of stories

    def sent(self, name: str) -> Story:
        self.other_mail_id()
        self.run(self.soon(), self.soon(), "SENT", self.dice.choice((0, 0, 1, 30)))
        return self.story(name, {Outcome.SUCCEEDED})

    def failed(self, name: str) -> Story:
        self.run(self.soon(), self.soon(), "FAILED")
        return self.story(name, {Outcome.FAILED})

    def failed_then_sent(self, name: str) -> Story:
        first = self.run(self.soon(), self.soon(), "FAILED")
        self.run(first.begins_after + (first.lasts or 0.0) + self.soon(), self.soon(), "SENT", 1)
        return self.story(name, {Outcome.SUCCEEDED}, on_failed=OnFailed.WAIT)

    def failed_and_later_sent(self, name: str) -> Story:
        first = self.run(self.soon(), self.soon(), "FAILED")
        self.run(first.begins_after + (first.lasts or 0.0) + 0.5, 0.0, "SENT", 1)
        # The later run is no excuse, unless the failed one was never seen.
        return self.story(name, {Outcome.FAILED, Outcome.SUCCEEDED})

    def named(self, name: str) -> Story:
        run = self.run(0.0, self.soon(), self.dice.choice(("SENT", "FAILED")))
        self.run(0.0, 0.0, "SENT" if run.status == "FAILED" else "FAILED", 1)
        return self.story(
            name,
            {Outcome.SUCCEEDED if run.status == "SENT" else Outcome(run.status.lower())},
            selector=RunSelector(run_id=f"run {self.runs.index(run)}"),
        )

    def latest(self, name: str) -> Story:
        self.run(self.dice.choice((0.0, self.soon())), self.soon(), "SENT")
        return self.story(name, {Outcome.SUCCEEDED, Outcome.FAILED}, selector=RunSelector())

    def seen(self, name: str) -> Story:
        self.run(self.soon(), None, "SENT")
        return self.story(name, {Outcome.SEEN}, until_seen=True)

    def never_started(self, name: str) -> Story:
        if self.dice.random() < 0.5:
            return self.story(name, {Outcome.NOT_STARTED}, start_timeout=self.dice.uniform(0.8, 2.0))
        return self.story(name, {Outcome.TIMED_OUT}, finish_by=self.dice.uniform(0.8, 2.0))

    def never_finished(self, name: str) -> Story:
        self.run(self.soon() / 2, None, "SENT")
        return self.story(name, {Outcome.TIMED_OUT}, finish_by=self.dice.uniform(1.5, 3.0))

    def over_at_the_deadline(self, name: str) -> Story:
        self.profile.trouble = 0.2
        limit = self.dice.uniform(1.5, 5.0)
        self.run(0.0, limit + self.dice.uniform(-STALE - 1.0, 1.0), "SENT")
        return self.story(name, {Outcome.SUCCEEDED, Outcome.TIMED_OUT}, finish_by=limit)

    def refused(self, name: str) -> Story:
        self.run(0.0, 0.0, "SENT")
        self.profile.refusal, code = self.dice.choice(REFUSALS)
        return self.story(name, {Outcome.REFUSED}, code=code)

    def silent(self, name: str) -> Story:
        self.run(0.0, 0.0, "SENT")
        self.profile.silent = True
        return self.story(name, {Outcome.UNAVAILABLE}, most=1, unreachable_timeout=self.dice.uniform(0.5, 1.5))


_KINDS: dict[str, Any] = {
    "the run is sent": _Teller.sent,
    "the run fails": _Teller.failed,
    "a later run is sent": _Teller.failed_then_sent,
    "a later run does not count": _Teller.failed_and_later_sent,
    "the run is named": _Teller.named,
    "the latest run counts": _Teller.latest,
    "the run is only to be seen": _Teller.seen,
    "no run starts": _Teller.never_started,
    "the run never ends": _Teller.never_finished,
    "the run ends about the timeout": _Teller.over_at_the_deadline,
    "every query is refused": _Teller.refused,
    "no query gets a response": _Teller.silent,
}


def _with_limits(wait: dict[str, Any], now: float) -> dict[str, Any]:
    return {name: value + now if name == "finish_by" else value for name, value in wait.items()}


def named_run(story: Story, plan: WaitPlan) -> PlannedRun | None:
    """Return the run that a wait names, whose TaskId is only known once it has started."""
    written = plan.wait.selector.run_id
    return story.runs[int(written.removeprefix("run "))] if written and written.startswith("run ") else None


async def play(story: Story, quickbi: FaultyQuickBI) -> None:
    """Let the story's runs start and finish.

    :param story: which.
    :param quickbi: where.
    """

    async def one(run: PlannedRun) -> None:
        await asyncio.sleep(run.begins_after)
        run.task_id = quickbi.add_run(story.mail_id, exec_time=run.exec_time, status="PROCESSING")
        if run.lasts is None:
            return
        await asyncio.sleep(run.lasts)
        quickbi.finish_run(run.task_id, run.status)
        run.over_at = time.time()

    await asyncio.gather(*map(one, story.runs))


def begin(story: Story, quickbi: FaultyQuickBI) -> None:
    """Add the mail task, and those runs that are there from the start.

    :param story: which.
    :param quickbi: where.
    """
    profile = quickbi.profile(story.mail_id)
    for name in ("trouble", "silent", "refusal", "listed"):
        setattr(profile, name, getattr(story.profile, name))
    quickbi.add_mail_task(story.mail_id, mail_id=story.mail_id)


class Oracle:
    """What the truth allows, worked out from what the service knew and not by the rules of the client.

    :param story: which.
    :param notified: every true response to the query for the latest runs.
    """

    def __init__(self, story: Story, notified: Iterable[tuple[Seen, ...]]) -> None:
        self.notified = tuple(notified)
        self.runs = {run.task_id: run for run in story.runs if run.task_id}
        self.exec_times = {seen.task_id: seen.exec_time for response in self.notified for seen in response}

    def pins(self, selector: RunSelector) -> set[str]:
        """Return the runs on which a wait may have settled: for each response, the matching run in it."""
        if selector.run_id is not None:
            return {selector.run_id}
        pins = set()
        for response in self.notified:
            counting = sorted(
                (
                    run
                    for run in response
                    if run.task_id not in selector.other_than
                    and (selector.executed_after is None or run.exec_time >= selector.executed_after)
                ),
                key=_by_age,
            )
            if counting:
                pins.add(counting[0 if selector.other_than else -1].task_id)
        return pins

    def allowed(self, plan: WaitPlan) -> Iterator[tuple[Outcome, str | None]]:
        """Give every end of a wait that the truth allows, as outcome and TaskId."""
        wait = plan.wait
        pending, evaluated = [wait.selector], set()
        if wait.start_timeout is not None:
            yield Outcome.NOT_STARTED, None
        while pending:
            selector = pending.pop()
            if (wait.finish_by or 0.0) - wait.since < LONG:
                yield Outcome.TIMED_OUT, None
            for pin in self.pins(selector):
                run = self.runs.get(pin)
                if wait.until_seen:
                    yield Outcome.SEEN, pin
                if run is None or run.over_at is None:
                    continue
                if run.status == "SENT":
                    yield Outcome.SUCCEEDED, pin
                elif wait.on_failed is OnFailed.FAIL:
                    yield Outcome.FAILED, pin
                elif pin not in evaluated:
                    evaluated.add(pin)
                    after = max(self.exec_times[pin], selector.executed_after or self.exec_times[pin])
                    pending.append(RunSelector(executed_after=after, other_than=(pin, *selector.other_than)))


def _by_age(run: Seen) -> tuple[datetime, int]:
    return run.exec_time, int(run.task_id)


def _could_not_poll(story: Story, plan: WaitPlan, evaluation: Evaluation, ended_at: float) -> bool:
    """Whether the timeout was over and the last poll failed: a timeout is not claimed then."""
    over = ended_at >= (plan.wait.finish_by or math.inf) and Outcome.TIMED_OUT in story.ends
    return over and evaluation.outcome is Outcome.UNAVAILABLE and evaluation.error is not None


def what_is_wrong(
    story: Story, plan: WaitPlan, group: WaitGroup, oracle: Oracle, ended_at: float, steady_clock: bool
) -> str | None:
    """Return what is wrong with the end of a wait; ``None`` if the truth demands or allows it.

    :param story: which.
    :param plan: who waited.
    :param delivery: as the wait ended.
    :param oracle: of the story.
    :param ended_at: when, seconds since the epoch.
    :param steady_clock: whether the server's clock did not go back meanwhile, which hides runs.
    """
    evaluation: Evaluation = group.evaluation
    outcome, task_id = evaluation.outcome, evaluation.run.run_id if evaluation.run else None
    shown = f"{story.name!r} ({story.mail_id}) ended {outcome.value} with run {task_id}: {evaluation.message}"
    if outcome not in story.ends and not _could_not_poll(story, plan, evaluation, ended_at):
        strays = any(run.exec_time is None for run in story.runs)
        if not (strays and outcome is Outcome.SUCCEEDED):
            return f"{shown} It should have ended {', '.join(sorted(story.ends))}."
    if outcome is Outcome.REFUSED:
        code = evaluation.error.code if evaluation.error else None
        return None if code == story.refusal_code else f"{shown} The Code is {code!r}, not {story.refusal_code!r}."
    if outcome is Outcome.UNAVAILABLE:
        return None
    allowed = set(oracle.allowed(plan))
    if outcome in (Outcome.NOT_STARTED, Outcome.TIMED_OUT):
        if (outcome, None) not in allowed:
            return f"{shown} Nothing allows that."
        pin = group.waits[0].run
        run = oracle.runs.get(pin.run_id) if pin else None
        limit = plan.wait.finish_by or 0.0
        if run and run.over_at and run.over_at < limit - STALE and evaluation.error is None and steady_clock:
            return f"{shown} The run was over {limit - run.over_at:.1f} s before the timeout."
        return None
    if (outcome, task_id) not in allowed:
        return f"{shown} The truth allows only {sorted(allowed, key=str)}."
    if outcome is Outcome.SUCCEEDED and (task_id is None or oracle.runs[task_id].status != "SENT"):
        return f"{shown} That run was never sent."
    return (
        None if json.loads(json.dumps(encode_group(group))) == encode_group(group) else f"{shown} It is no plain JSON."
    )
