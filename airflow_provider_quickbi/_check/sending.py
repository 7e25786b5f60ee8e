"""Starting a mail once and following the run that is new since: how the command line uses ``_send`` and ``_wait``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_quickbi._send.record import StartRecord, StartResult, classify_response
from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import NO_RETRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi._check.exchange import Clock
    from airflow_provider_quickbi._wait.state import Evaluation
    from airflow_provider_quickbi.api.client import QuickBIClient
    from airflow_provider_quickbi.api.models import MailTaskRun, Run


@dataclass(frozen=True, slots=True)
class Start:
    """What came of the one starting call.

    :param result: what its response means.
    :param record: what there was before.
    :param known: the runs that there were before, the newest last.
    :param error: the refusal; ``None`` if it was accepted.
    """

    result: StartResult
    record: StartRecord
    known: tuple[MailTaskRun, ...]
    error: QuickBIError | None = None

    @property
    def may_have_started(self) -> bool:
        """Whether a run may have been started."""
        return self.result in (StartResult.ACCEPTED, StartResult.UNKNOWN)

    def selector(self, *, trust_times: bool = True) -> RunSelector:
        """Return which run is the started one.

        :param trust_times: ``False`` where the zone of ``execTime`` is not known yet: then only the TaskId counts.
        """
        return self.record.selector() if trust_times else RunSelector(other_than=self.record.known)


def start_once(client: QuickBIClient, mail_id: str, clock: Clock) -> Start:
    """Record what there is, then call ``ManualRunMailTask`` exactly once.

    :raises QuickBIError: if what there is cannot be read; nothing was started then.
    """
    known = client.get_mail_task_status(mail_id)
    record = StartRecord.of(MailTaskSubject(mail_id), known, clock.time())
    try:
        accepted = client.manual_run_mail_task(mail_id)
    except QuickBIError as error:
        return Start(classify_response(error), record, known, error.with_traceback(None))
    return Start(classify_response(accepted), record, known)


def follow(
    client: QuickBIClient,
    mail_id: str,
    selector: RunSelector,
    clock: Clock,
    *,
    timeout: float,
    start_timeout: float,
    interval: float,
    progress: Callable[[str], None],
    until_seen: bool = False,
) -> Evaluation:
    """Poll until the matching run or the wait is finished.

    :param timeout: seconds until the wait is given up.
    :param start_timeout: seconds within which the run must have appeared.
    :param interval: seconds between two polls.
    :param progress: called with each change of state.
    :param until_seen: whether to stop as soon as the run has appeared.
    """
    now = clock.time()
    wait = WaitState(
        subject=MailTaskSubject(mail_id),
        selector=selector,
        since=now,
        start_timeout=start_timeout,
        finish_by=now + timeout,
        until_seen=until_seen,
    )
    said = ""
    while True:
        query = wait.status_query(clock.time()) or wait.subject.query(None)
        try:
            response: tuple[Run, ...] | QuickBIError = client.do(
                query.operation(client.settings.zone), retries=NO_RETRY
            )
        except QuickBIError as error:
            response = error.with_traceback(None)
        wait, evaluation = evaluate(wait, response, clock.time())
        if evaluation.outcome.final:
            return evaluation
        if evaluation.message != said:
            said = evaluation.message
            progress(said)
        limit = wait.gives_up_at
        clock.sleep(interval if limit is None else max(0.0, min(interval, limit - clock.time())))
