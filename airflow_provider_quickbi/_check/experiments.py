"""What only a started run, or time, can show: ``--send`` and ``--watch``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_quickbi._check import unknowns
from airflow_provider_quickbi._check.refusals import finding_for
from airflow_provider_quickbi._check.report import ok, skipped, warning
from airflow_provider_quickbi._check.sending import Start, follow, start_once
from airflow_provider_quickbi._send.record import StartResult
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Outcome
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, minutes_to_wait
from airflow_provider_quickbi.api.models import MailTaskStatus
from airflow_provider_quickbi.api.retry import NO_RETRY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_quickbi._check.checks import Options
    from airflow_provider_quickbi._check.exchange import Clock, ObservedClient
    from airflow_provider_quickbi._check.report import Finding, Report
    from airflow_provider_quickbi.api.models import MailTaskRun

#: Seconds that a run may take to appear without being worth a remark.
_PROMPT = 60.0


@dataclass(slots=True)
class Calls:
    """A part of a check that calls the service.

    :param progress: called with a sentence about what takes long.
    """

    client: ObservedClient
    options: Options
    clock: Clock
    report: Report
    progress: Callable[[str], None]

    def learn(self, **learnt: Any) -> None:
        """Record how the account behaves."""
        self.report.behaviour = replace(self.report.behaviour, **learnt)

    def conclude(self, finding: Finding, learnt: dict[str, Any]) -> None:
        """Add a line, and note what it shows of the account's behaviour."""
        self.report.add(finding)
        self.learn(**learnt)


class SendExperiment(Calls):
    """Starts the mail task once with ``--send``, and follows its run."""

    def run(self, *, paused: bool) -> None:
        """Start the mail task once and follow its run, or say what was not checked."""
        if not self.options.send or self.options.mail_id is None:
            self._probe()
            return
        mail_id = self.options.mail_id
        self.progress("starting the mail task")
        started = self.clock.time()
        try:
            start = start_once(self.client, mail_id, self.clock)
        except QuickBIError as error:
            self.report.add(finding_for(error, "GetMailTaskStatus", self.client.exchanges))
            return
        if not start.may_have_started:
            self._not_started(start, paused=paused)
            return
        self.report.add(
            ok("ManualRunMailTask", "allowed, a run was started")
            if start.result is StartResult.ACCEPTED
            else warning(
                "ManualRunMailTask",
                "it is not known whether a run was started",
                "See start delay for whether a run appeared",
            )
        )
        seen = self._follow(start.selector(trust_times=False), until_seen=True)
        appeared = self.clock.time()
        if seen.run is None:
            self._not_appeared(appeared - started, paused=paused)
            return
        self._appeared(seen.run, start, started, appeared, paused=paused)

    def _not_started(self, start: Start, *, paused: bool) -> None:
        error = start.error
        assert error is not None  # noqa: S101 - only a refusal says that nothing was started
        match start.result:
            case StartResult.TOO_EARLY if paused and error.code != "MailApi.Beyond.ScheduleLimit":
                self.learn(paused_start=error.code)
                remedy = "Resume the subscription: a paused one cannot be started"
                self.report.add(warning("paused task", f"refused, Code {error.code}", remedy))
            case StartResult.TOO_EARLY:
                minutes = minutes_to_wait(error.message)
                self.learn(start_limit_minutes=minutes or 0)
                wait = f"{minutes} minute(s)" if minutes else "an unspecified time"
                remedy = 'Keep on_schedule_limit="wait", with a timeout above that; start this mail task less often'
                self.report.add(warning("start limit", f"Code {error.code}: no further start for {wait}", remedy))
            case StartResult.RUNNING:
                remedy = "Try again when it has finished; in a DAG, on_running decides"
                self.report.add(ok("ManualRunMailTask", "allowed, but a run is already active", remedy))
            case _:
                self.report.add(finding_for(error, "ManualRunMailTask", self.client.exchanges))

    def _not_appeared(self, seconds: float, *, paused: bool) -> None:
        if paused:
            self.learn(paused_start="never_runs")
            self.report.add(
                warning(
                    "paused task", "accepted, but no run appeared", "Resume the subscription before a DAG starts it"
                )
            )
            return
        self.report.add(
            warning(
                "start delay",
                f"no new run appeared within {seconds:,.0f} s",
                "Check the subscription's send log in the console; raise start_timeout if it runs later",
            )
        )

    def _appeared(self, run: MailTaskRun, start: Start, started: float, appeared: float, *, paused: bool) -> None:
        delay = appeared - started
        self.learn(start_delay=round(delay, 1), **({"paused_start": "runs"} if paused else {}))
        if paused:
            self.report.add(ok("paused task", "a start is accepted, and it runs"))
        if delay > _PROMPT:
            remedy = f"Set start_timeout above {delay:,.0f} s"
            self.report.add(warning("start delay", f"the run appeared after {delay:,.0f} s", remedy))
        else:
            self.report.add(ok("start delay", f"the run appeared after {delay:,.0f} s"))
        self.conclude(*unknowns.zone_by_comparison(run, started, appeared, self.client.settings.timezone))
        end = self._follow(RunSelector(run_id=run.task_id), until_seen=False)
        if end.outcome in (Outcome.SUCCEEDED, Outcome.FAILED) and end.run is not None:
            self.learn(run_duration=round(self.clock.time() - appeared, 1), outcome=end.run.status)
            self.report.add(
                ok("final status", f"{end.run.status} {self.clock.time() - appeared:,.0f} s after it appeared")
            )
        elif end.outcome is Outcome.TIMED_OUT:
            remedy = "Set a longer timeout than that"
            self.report.add(warning("final status", f"not finished within {self.options.timeout:,.0f} s", remedy))
        if start.known:
            self._retention(start.known[-1])

    def _retention(self, earlier: MailTaskRun) -> None:
        """Read the run that was the latest before by its TaskId."""
        try:
            runs = self.client.get_mail_task_status(earlier.mail_id, earlier.task_id)
        except QuickBIError:
            runs = ()
        kept = any(run.task_id == earlier.task_id for run in runs)
        self.learn(keeps_runs=kept)
        if kept:
            self.report.add(ok("retention", "an earlier run can be read by its TaskId"))
            return
        remedy = (
            "Let no other run start while a DAG waits: set poke_interval well below the time between two runs, and "
            'on_running="wait"'
        )
        self.report.add(warning("retention", "only the latest run can be read; an earlier TaskId returns none", remedy))

    def _follow(self, selector: RunSelector, *, until_seen: bool) -> Any:
        return follow(
            self.client,
            self.options.mail_id or "",
            selector,
            self.clock,
            timeout=self.options.timeout,
            start_timeout=self.options.timeout,
            interval=min(2.0, self.options.interval) if until_seen else self.options.interval,
            until_seen=until_seen,
            progress=lambda _: self.progress("following the run that was started"),
        )

    def _probe(self) -> None:
        """Request a start of a nonexistent mail task, which starts nothing, if ``probe_send`` is set."""
        name = "ManualRunMailTask"
        if not self.options.probe_send:
            remedy = "--probe-send checks it with a nonexistent MailId; --send starts --mail-id once"
            self.report.add(skipped(name, "not called without --send", remedy))
            return
        try:
            self.client.manual_run_mail_task(uuid4().hex)
        except QuickBIError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                self.report.add(ok(name, f"allowed: a nonexistent MailId returns Code {error.code}"))
            else:
                self.report.add(finding_for(error, name, self.client.exchanges))
        else:
            self.report.add(
                warning(
                    name, "accepted a nonexistent MailId", "Check mail ids before sending: wrong ones are not rejected"
                )
            )


class WatchExperiment(Calls):
    """Polls finished runs again during ``--watch``."""

    def run(self, runs: Sequence[MailTaskRun]) -> None:
        """Poll finished runs by their TaskId, and their mail tasks for new ones."""
        watched = {run.task_id: run for run in runs if run.is_terminal}
        if not self.options.watch:
            return
        if not watched:
            self.report.add(skipped("final status", "no finished run to watch"))
            return
        started, polls = self.clock.time(), 0
        newest = {run.mail_id: run for run in sorted(runs, key=lambda run: run.age_order)}
        while (spent := self.clock.time() - started) < self.options.watch:
            self.progress(
                f"watching {len(watched)} finished run(s), {spent / 60:.0f} of {self.options.watch / 60:.0f} min"
            )
            self.clock.sleep(min(self.options.interval, self.options.watch - spent))
            for run in list(watched.values()):
                self._poll_again(run, started)
            for run in list(newest.values()):
                newest[run.mail_id] = self._poll_for_new(run, started)
            polls += 1
        if not self.report.behaviour.status_changes:
            self.learn(status_changes=())
            self.report.add(
                ok(
                    "final status",
                    f"{len(watched)} finished run(s) did not change in {self.options.watch / 60:.0f} min",
                )
            )

    def _poll_again(self, run: MailTaskRun, started: float) -> None:
        known = self.report.behaviour.status_changes or ()
        now = next((found for found in self._read(run.mail_id, run.task_id) if found.task_id == run.task_id), None)
        if now is None or now.status == run.status or any(change["from"] == run.status for change in known):
            return
        after = round(self.clock.time() - started)
        self.learn(status_changes=(*known, {"from": run.status, "to": now.status, "after": after}))
        remedy = (
            f"Treat the status as provisional for at least {max(1, after // 60)} min: before anything that must not "
            "happen twice, check it again with a second sensor that sets quickbi_task_id"
        )
        self.report.add(warning("final status", f"{run.status} became {now.status} after {after} s", remedy))

    def _poll_for_new(self, latest: MailTaskRun, started: float) -> MailTaskRun:
        runs = self._read(latest.mail_id, None)
        if not runs or runs[-1].task_id == latest.task_id:
            return latest
        new = runs[-1]
        now = self.clock.time()
        earliest = now - self.options.interval - 2 * _PROMPT
        self.conclude(*unknowns.zone_by_comparison(new, earliest, now, self.client.settings.timezone))
        if latest.status == MailTaskStatus.FAILED:
            self.learn(resent_after=round(self.clock.time() - started))
            self.report.add(
                warning(
                    "retention",
                    "a new run followed a FAILED one: resent, or scheduled",
                    'If Quick BI resends by itself, set on_failed="wait" so that the later run counts',
                )
            )
        return new

    def _read(self, mail_id: str, task_id: str | None) -> tuple[MailTaskRun, ...]:
        try:
            return self.client.get_mail_task_status(mail_id, task_id, retries=NO_RETRY)
        except QuickBIError:
            return ()


def report_unanswered(report: Report) -> None:
    """Say of what could not be checked what it would take."""
    for name, seen, remedy in (
        ("start delay", "needs a started run", "--send"),
        ("final status", "needs time", "--watch MINUTES, or --send"),
        ("retention", "needs a second run", "--send"),
        ("start limit", "not reached, so its size is unknown", ""),
        ("paused task", "requires starting a paused task", "--send with its --mail-id"),
        ("rate scope", "not visible with one AccessKey", ""),
    ):
        if not report.has(name):
            report.add(skipped(name, seen, remedy))
