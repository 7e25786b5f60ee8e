"""The triggers, which wait in the triggerer: they poll, and start nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.aio import TriggererWait
from airflow_provider_quickbi._wait.codec import STATE_VERSION, check_version, decode_group, encode_group
from airflow_provider_quickbi._wait.deferral import PollOptions
from airflow_provider_quickbi._wait.events import Event, EventKind
from airflow_provider_quickbi._wait.placement import Ending
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.triggers.polling import DeferralTrigger, PollingTrigger
from airflow_provider_quickbi.triggers.watching import DEFAULT_POLL_INTERVAL, WatchTrigger, readable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import Run


class QuickBIMailTaskTrigger(PollingTrigger):
    """Wait until the runs of a wait group are finished, polling Quick BI no more often than it allows.

    The runs are those of mail tasks, or refreshes of datasets.

    It emits one event, see :class:`airflow_provider_quickbi._wait.events.Event`.

    :param quickbi_conn_id: id of the connection; it is read in the triggerer, nothing secret is an argument.
    :param group: what is waited for, as :func:`airflow_provider_quickbi._wait.codec.encode_group` writes it.
    :param poke_interval: seconds between two polls.
    :param exponential_backoff: whether the interval grows from poll to poll, as Airflow's sensors do it.
    :param max_wait: seconds between two polls at most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param carry: plain JSON that comes back with the event.
    :param ending: where the task ends when the run has succeeded, see
        :class:`airflow_provider_quickbi._wait.placement.Ending`.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they cannot be read. The triggerer then fails this task; any other error would stop the
        triggerer.
    """

    def __init__(
        self,
        *,
        quickbi_conn_id: str,
        group: dict[str, Any],
        poke_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        execute_by: float | None = None,
        carry: dict[str, Any] | None = None,
        ending: str = Ending.WORKER.value,
        version: int = STATE_VERSION,
        **_later: Any,
    ) -> None:
        super().__init__()
        self.options = PollOptions(
            quickbi_conn_id=quickbi_conn_id,
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            execute_by=execute_by,
            carry=carry or {},
            ending=Ending(ending) if ending in list(Ending) else Ending.WORKER,
        )
        with readable(self):
            check_version(version)
            self.wait = TriggererWait(decode_group(group), self.options, self.log, self.store)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, with what has been learnt meanwhile."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger",
            {"version": STATE_VERSION, "group": encode_group(self.wait.group), **self.options.as_arguments()},
        )


class QuickBIPauseTrigger(DeferralTrigger):
    """Wait until an instant, without a worker slot and without a call.

    :param until: seconds since the epoch.
    :param carry: plain JSON that comes back with the event.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they cannot be read. The triggerer then fails this task; any other error would stop the
        triggerer.
    """

    def __init__(
        self, *, until: float, carry: dict[str, Any] | None = None, version: int = STATE_VERSION, **_later: Any
    ) -> None:
        super().__init__()
        with readable(self):
            check_version(version)
        self.until = until
        self.carry = carry or {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIPauseTrigger",
            {"version": STATE_VERSION, "until": self.until, "carry": self.carry},
        )

    async def _wait(self) -> Event:
        while (seconds := self.until - CLOCK.time()) > 0:
            await CLOCK.sleep_async(min(seconds, aio.CLOCK_SECONDS))
        return Event(kind=EventKind.RESUME, carry=self.carry)


class QuickBIMailTaskEventTrigger(WatchTrigger):
    """Emit one event for each run of a mail task that reaches ``SENT``; for an ``AssetWatcher`` (Airflow 3.0+).

    Its events are dicts ``{mail_id, subscribe_name?, task_id, status, exec_time}``; a DAG scheduled by the asset finds
    one as ``triggering_asset_events[asset][i].extra["payload"]``. Each run is emitted once, by its TaskId. Airflow 3.3
    and later store the watcher's state with the asset some seconds after each event: a run that finishes while the
    triggerer restarts is not missed, and only events not yet stored are emitted again. Below 3.3, a run that was
    finished when the watcher started is not emitted.

    All watchers of a connection share one poll loop on Airflow 3.3 and later. A failed poll does not stop it.

    :param mail_id: the mail task.
    :param subscribe_name: instead of ``mail_id``: its exact name.
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name.
    :param statuses: the statuses to emit; default only ``SENT``.
    :param poll_interval: seconds between two polls; default 60. It must be shorter than the time between two runs.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``.
    :param name: distinguishes watchers that are otherwise equal. Airflow makes one watcher of equal ones and keeps
        nothing for it, so give each a name where several assets watch the same mail task.
    :param version: of arguments that Airflow has stored.
    """

    subject_type = MailTaskSubject

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        statuses: Sequence[str] | str = ("SENT",),
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        quickbi_conn_id: str = "quickbi_default",
        name: str | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(statuses, poll_interval, quickbi_conn_id, name, version)
        self.mail_id = self._text("mail_id", mail_id)
        self.subscribe_name = self._text("subscribe_name", subscribe_name)
        self.mail_owner = self._text("mail_owner", mail_owner)
        _options.need_one_of(self, "mail_id", "subscribe_name")
        if not self.stored:
            _options.refuse_owner_of_id(self.mail_id, self.mail_owner)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, which are also the trigger's identity."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskEventTrigger",
            {
                "mail_id": self.mail_id,
                "subscribe_name": self.subscribe_name,
                "mail_owner": self.mail_owner,
                **self._common_arguments(),
            },
        )

    def _subject(self) -> Subject:
        return MailTaskSubject(self.mail_id or "", self.subscribe_name or "", self.mail_owner or "")

    def _payload(self, run: Run) -> dict[str, Any]:
        name = {} if self.subscribe_name is None else {"subscribe_name": self.subscribe_name}
        return super()._payload(run) | name

    def _identity(self) -> tuple[Any, ...]:
        return (self.quickbi_conn_id, self.mail_id, self.subscribe_name, self.mail_owner, *self.statuses)


class QuickBIDatasetRefreshEventTrigger(WatchTrigger):
    """Emit one event for each refresh of a dataset that reaches ``SUCCESS``; for an ``AssetWatcher`` (Airflow 3.0+).

    Its events are dicts ``{dataset_id, job_id, status, started_at, ended_at}``; everything else is as with
    :class:`QuickBIMailTaskEventTrigger`. Quick BI shows only the latest refresh: one that finishes and is followed by
    another between two polls is not seen.

    :param dataset_id: the dataset.
    :param statuses: the statuses to emit; default only ``SUCCESS``.
    :param poll_interval: seconds between two polls; default 60. It must be shorter than the time between two refreshes.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``.
    :param name: distinguishes watchers that are otherwise equal; give each a name where several assets watch the same
        dataset.
    :param version: of arguments that Airflow has stored.
    """

    subject_type = DatasetSubject

    def __init__(
        self,
        *,
        dataset_id: str,
        statuses: Sequence[str] | str = ("SUCCESS",),
        poll_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        quickbi_conn_id: str = "quickbi_default",
        name: str | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(statuses, poll_interval, quickbi_conn_id, name, version)
        self.dataset_id = self._text("dataset_id", dataset_id)
        if self.dataset_id is None:
            raise OptionError("QuickBIDatasetRefreshEventTrigger needs dataset_id")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, which are also the trigger's identity."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIDatasetRefreshEventTrigger",
            {"dataset_id": self.dataset_id, **self._common_arguments()},
        )

    def _subject(self) -> Subject:
        return DatasetSubject(self.dataset_id or "")

    def _identity(self) -> tuple[Any, ...]:
        return (self.subject_type.kind, self.quickbi_conn_id, self.dataset_id, *self.statuses)
