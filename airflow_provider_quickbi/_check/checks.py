"""What can go wrong before the first DAG, in the order of the checks."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._check import unknowns
from airflow_provider_quickbi._check.behaviour import Behaviour
from airflow_provider_quickbi._check.exchange import Clock, ObservedClient
from airflow_provider_quickbi._check.experiments import Calls, SendExperiment, WatchExperiment, report_unanswered
from airflow_provider_quickbi._check.network import probe
from airflow_provider_quickbi._check.refreshes import check_refreshes
from airflow_provider_quickbi._check.refusals import finding_for
from airflow_provider_quickbi._check.report import Level, Report, failed, ok, skipped, warning
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError
from airflow_provider_quickbi.api.operations import get_mail_task_list
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.api.settings import REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi._check.exchange import Exchange
    from airflow_provider_quickbi._check.report import Finding
    from airflow_provider_quickbi.api.models import MailTaskRun
    from airflow_provider_quickbi.api.settings import ClientSettings

#: Mail tasks whose latest run is read.
SAMPLE = 5
#: Calls without a pause by which the rate is measured, and calls at the configured rate after them.
BURST = 4
PACED = 3
#: Seconds by which the service's clock may differ: refused beyond the first; beyond the second, runs may be overlooked.
REFUSED_SKEW = 900.0
NOTED_SKEW = 60.0
#: An int64 that no run has.
UNKNOWN_TASK_ID = "9223372036854775807"

_PATIENT = RetryPolicy(attempts=3)
#: Kinds of errors which, for a mail task that is in the list, may be the response for one that never ran.
_SAYS_NO_RUN = (ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN, ErrorKind.BAD_REQUEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is to be checked.

    :param mail_id: a mail task that must be visible; also the one that ``send`` starts.
    :param watch: seconds for which finished runs are watched; 0 for not at all.
    :param send: whether to start ``mail_id`` once.
    :param probe_send: whether to call ``ManualRunMailTask`` with a MailId that does not exist, which starts nothing.
    :param dataset_id: a dataset whose refreshes are also checked.
    :param timeout: seconds for which a started run is followed.
    :param interval: seconds between two polls.
    """

    mail_id: str | None = None
    watch: float = 0.0
    send: bool = False
    probe_send: bool = False
    dataset_id: str | None = None
    timeout: float = 1800.0
    interval: float = 10.0


@dataclass(slots=True)
class Checker:
    """Goes through the checks of one connection, from the network to what is not documented.

    :param settings: the account and how to reach it.
    :param identity: the caller, masked.
    :param options: what is to be checked.
    :param clock: the time, and how to wait.
    :param progress: called with a sentence about what takes long.
    :param resolve: looks a name up.
    """

    settings: ClientSettings
    identity: str
    options: Options = field(default_factory=Options)
    clock: Clock = field(default_factory=Clock)
    progress: Callable[[str], None] = lambda _: None
    resolve: Callable[..., list[Any]] = socket.getaddrinfo

    def run(self) -> Report:
        """Return every line; nothing is raised for what is wrong with the connection or the service."""
        report = Report(Behaviour())
        report.add(ok("connection", "complete"))
        self.progress("network")
        for finding in probe(self.settings, self.resolve):
            if report.add(finding).level is Level.FAILED:
                return report
        client = ObservedClient(self.settings, self.clock)
        with client:
            try:
                _Checks(client, self.options, self.clock, report, self.progress, self.identity).run()
            finally:
                report.exchanges = client.exchanges
        return report


@dataclass(slots=True)
class _Checks(Calls):
    """The checks that call the service."""

    identity: str
    sample: list[str] = field(default_factory=list)
    runs: list[MailTaskRun] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    read: int = 0
    never_ran: list[Exchange] = field(default_factory=list)
    refused: Finding | None = None

    @property
    def settings(self) -> ClientSettings:
        return self.client.settings

    def run(self) -> None:
        self.progress("GetMailTaskList")
        if not self.list_mail_tasks():
            return
        if self.options.mail_id:
            self.sample = [self.options.mail_id, *(mail for mail in self.sample if mail != self.options.mail_id)]
        self.sample = self.sample[:SAMPLE]
        reachable = self.read_statuses()
        if reachable:
            self.unknown_task_id()
            self.measure_rate()
        self.conclude(*unknowns.response_fields(self.client.of("GetMailTaskList"), self.client.of("GetMailTaskStatus")))
        latest = [exchange for exchange in self.client.of("GetMailTaskStatus") if "TaskId" not in exchange.parameters]
        self.conclude(*unknowns.runs_per_response(latest))
        self.report.add(unknowns.execution_zone(self.runs, self.clock.time(), self.settings.timezone))
        if self.options.dataset_id:
            probe_start, now = self.options.probe_send, self.clock.time()
            for finding in check_refreshes(self.client, self.options.dataset_id, probe_start=probe_start, now=now):
                self.report.add(finding)
        shared = (self.client, self.options, self.clock, self.report, self.progress)
        if reachable:
            SendExperiment(*shared).run(paused=self.options.mail_id in self.paused)
            WatchExperiment(*shared).run(self.runs)
        report_unanswered(self.report)

    def list_mail_tasks(self) -> bool:
        """Call the first operation, which checks clock, credentials and region; say whether it was allowed."""
        try:
            page = self.client.do(get_mail_task_list(), retries=_PATIENT)
        except QuickBIError as error:
            finding = finding_for(error, "GetMailTaskList", self.client.exchanges)
            self.report.add(finding)
            self.check_clock()
            if finding.name.startswith("GetMailTask"):
                self.report.add(ok("credentials", f"accepted, {self.identity}"))
            return False
        self.sample = [task.mail_id for task in page.mail_tasks]
        self.listed = set(self.sample)
        self.paused = {task.mail_id for task in page.mail_tasks if task.paused}
        total = page.total_num if page.total_num is not None else len(page.mail_tasks)
        self.check_clock()
        self.report.add(ok("service", "responds as Quick BI does"))
        self.report.add(ok("credentials", f"accepted, {self.identity}"))
        self.report.add(ok("GetMailTaskList", f"allowed, {total} mail task(s) visible"))
        if total:
            self.report.add(ok("region", f"{self.region()}: mail tasks are visible there"))
        else:
            self.report.add(
                warning(
                    "region",
                    f"{self.region()}: no mail task is visible",
                    "Check region: each region has its own organisation. Otherwise make the "
                    "AccessKey's owner an organisation administrator, or create a subscription",
                )
            )
        return True

    def region(self) -> str:
        host = self.settings.endpoint.host
        found = next((region for region in REGIONS if f".{region}.aliyuncs.com" in host), "")
        network = ", vpc" if host.startswith("quickbi-public-vpc.") else ""
        return f"{found}{network}" if found else "an endpoint of its own"

    def check_clock(self) -> None:
        exchange = self.client.exchanges[-1] if self.client.exchanges else None
        if exchange is None or (date := exchange.date) is None:
            self.report.add(skipped("clock", "the response has no header Date"))
            return
        skew = exchange.wall - date.timestamp()
        off = max(0.0, abs(skew) - 1.0 - exchange.elapsed / 2)  # Date has whole seconds
        where = "ahead of" if skew > 0 else "behind"
        seen = f"this machine's clock is {off:,.0f} s {where} the service's"
        if off >= REFUSED_SKEW:
            self.report.add(
                failed("clock", seen, "Sync this machine's clock (NTP): beyond 15 minutes every call is refused")
            )
        elif off > NOTED_SKEW:
            self.report.add(
                warning("clock", seen, f"Sync this machine's clock (NTP), or raise clock_skew above {off:,.0f} s")
            )
        else:
            self.report.add(ok("clock", f"within {max(1.0, off):,.0f} s of the service's"))

    def read_statuses(self) -> bool:
        """Read the latest run of the sample and say whether that was allowed."""
        if not self.sample:
            self.report.add(skipped("GetMailTaskStatus", "no mail task to query", "Give --mail-id"))
            return False
        for number, mail_id in enumerate(self.sample, 1):
            self.progress(f"GetMailTaskStatus {number}/{len(self.sample)}")
            if not self.read_status(mail_id):
                return False
        answered = self.read + len(self.never_ran)
        if self.refused and not answered:
            self.report.add(self.refused)
            return False
        if self.refused:
            seen = f"{self.refused.seen}; {answered} other mail task(s) were read"
            self.report.add(warning("GetMailTaskStatus", seen, self.refused.remedy, detail=self.refused.detail))
        elif answered:
            self.report.add(ok("GetMailTaskStatus", f"allowed, the latest run of {answered} mail task(s) read"))
        self.never_run_task()
        return answered > 0

    def read_status(self, mail_id: str) -> bool:
        """Read the latest run of a mail task; ``False`` if there is no use in going on."""
        try:
            runs = self.client.get_mail_task_status(mail_id, retries=_PATIENT)
        except ThrottledError:
            self.report.add(self.too_fast())
            return True
        except QuickBIError as error:
            last = self.client.exchanges[-1]
            chosen = mail_id == self.options.mail_id
            if _is_empty_run(last) or (mail_id in self.listed and error.code and error.kind in _SAYS_NO_RUN):
                self.never_ran.append(last)
                return True
            finding = finding_for(error, "GetMailTaskStatus", self.client.exchanges)
            if error.kind is ErrorKind.DENIED and not chosen:
                self.refused = finding
                return True
            self.report.add(finding)
            return False
        self.read += bool(runs)
        self.runs += runs
        if not runs:
            self.never_ran.append(self.client.exchanges[-1])
        return True

    def never_run_task(self) -> None:
        name = "task that never ran"
        if not self.never_ran:
            self.report.add(skipped(name, f"each of the {self.read} mail task(s) checked has run"))
            return
        finding, shape = unknowns.empty_response(name, self.never_ran[-1])
        self.conclude(finding, {"never_ran": shape})

    def unknown_task_id(self) -> None:
        """Query a run that does not exist."""
        try:
            self.client.get_mail_task_status(self.sample[0], UNKNOWN_TASK_ID, retries=_PATIENT)
        except ThrottledError:
            self.report.add(skipped("unknown TaskId", "throttled"))
            return
        except QuickBIError as error:
            if self.client.exchanges[-1].status is None:
                self.report.add(finding_for(error, "GetMailTaskStatus", self.client.exchanges))
                return
        finding, shape = unknowns.empty_response("unknown TaskId", self.client.exchanges[-1], UNKNOWN_TASK_ID)
        self.conclude(finding, {"unknown_task_id": shape})

    def measure_rate(self) -> None:
        """Call without a pause, then at the configured rate, and say what was throttled."""
        self.progress("measuring the rate")
        self.client.paced = False
        rate = self.settings.status_calls_per_second
        self.clock.sleep(1.1 / rate)  # what was called before does not count
        started = self.clock.monotonic()
        passed = 0
        while passed < BURST and self.passes():
            passed += 1
        seconds = max(0.001, self.clock.monotonic() - started)
        refused = passed < BURST
        if refused:
            self.clock.sleep(max(1.0, 1 / rate) * 1.1)
        slow = all(self.passes_after(1.1 / rate) for _ in range(PACED))
        self.client.paced = True
        measured = f"{passed} call(s) in {seconds:.2g} s" + (" before throttling" if refused else ", none throttled")
        if not slow:
            self.report.add(self.too_fast(measured))
            return
        if refused:
            self.learn(status_calls_per_second=rate)
        self.report.add(ok("rate", f"{measured}; {PACED} at the configured {rate:g} per second passed"))

    def passes_after(self, seconds: float) -> bool:
        self.clock.sleep(seconds)
        return self.passes()

    def passes(self) -> bool:
        try:
            self.client.get_mail_task_status(self.sample[0], retries=NO_RETRY)
        except ThrottledError:
            return False
        except QuickBIError:
            return True  # refused or broken, but not for the rate
        return True

    def too_fast(self, measured: str = "throttled repeatedly") -> Finding:
        rate = self.settings.status_calls_per_second
        lower = 1.0 if rate > 1 else rate / 2
        return warning(
            "rate",
            f"{measured}; also throttled at the configured {rate:g} per second",
            f"Set status_calls_per_second to {lower:g}, or stop other programs that use this account",
        )


def _is_empty_run(exchange: Exchange) -> bool:
    """Whether a response that could not be read is a run whose fields are null."""
    telling = ("taskid", "status")
    items = unknowns.items_of(exchange)
    values = [value for item in items for key, value in item.items() if str(key).lower() in telling]
    return bool(values) and all(value is None for value in values)
