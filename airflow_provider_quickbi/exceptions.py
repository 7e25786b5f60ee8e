"""What a task raises, and the one mapping from API errors and outcomes to it.

Each class means the same in every mode and on every supported Airflow. ``AirflowFailException`` and
``AirflowSensorTimeout`` are never retried, and ``soft_fail`` turns them into a skip, in ``poke`` as after a deferral.
The retryable ones are not ``AirflowException``, because that class skips after a deferral and fails in ``poke``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._wait.state import Evaluation, Outcome
from airflow_provider_quickbi.api.datasets import DatasetRefreshJob
from airflow_provider_quickbi.api.errors import PermanentError, QuickBIError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_quickbi.api.models import Run


class _RunError(AirflowFailException):
    def __init__(self, message: str, run: Run | None = None) -> None:
        super().__init__(message)
        self.run = run


class QuickBIMailTaskFailed(_RunError):
    """The matching run is ``FAILED``: the report was not sent.

    :param message: says which run.
    :param run: the run; ``None`` if several mail tasks were waited for.
    """


class QuickBIDatasetRefreshFailed(_RunError):
    """The matching refresh is ``FAILURE`` or ``CANCELED``: the dataset holds what it held before.

    :param message: says which refresh, and the end of its log where Quick BI gave it.
    :param run: the refresh; ``None`` if several datasets were waited for.
    """


class QuickBIRunMissed(_RunError):
    """The latest run started after the window, or after the awaited run, which is no longer visible.

    :param message: names the window, the latest run and the arguments that help.
    :param run: the latest run; ``None`` if several mail tasks were waited for.
    """


class QuickBIRequestError(AirflowFailException):
    """Quick BI refused the request: denied, wrong credentials, unknown mail task or dataset, bad request.

    :param message: holds Code, Message, RequestId and what to do.
    :param code: the service's ``Code``.
    :param request_id: the service's ``RequestId``.
    """

    def __init__(self, message: str, *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class QuickBIConnectionError(AirflowFailException):
    """The Airflow connection is wrong; the message names the connection, the field and what is expected."""


class QuickBIArgumentError(AirflowFailException, OptionError):
    """An argument of a task is wrong; the message names it, what is wrong with its value, and what to write."""


class QuickBIUnavailable(RuntimeError):
    """Quick BI could not be reached; this says nothing about the report or the data. Airflow's ``retries`` apply."""


class QuickBIConnectionUnreadable(TransientError, QuickBIUnavailable):
    """There is no such Airflow connection, or it cannot be read now; Airflow does not always say which.

    A task that starts fails with it, and Airflow's ``retries`` apply. A wait treats it as a failed poll.
    """


class QuickBIRunFailed(RuntimeError):
    """The run started by this task has failed and ``on_failed="retry"``: Airflow's ``retries`` start again."""


class QuickBIStartUnknown(RuntimeError):
    """It is not known whether a run was started; a retry looks for its run before it starts another."""


def task_error(error: QuickBIError) -> Exception:
    """Return what a task raises for an error of the client.

    :param error: of :mod:`airflow_provider_quickbi.api.errors`.
    """
    if isinstance(error, PermanentError):
        return QuickBIRequestError(str(error), code=error.code, request_id=error.request_id)
    return QuickBIUnavailable(f"Quick BI is unreachable: {error}")


@contextmanager
def task_errors() -> Iterator[None]:
    """Raise permanent errors as ``QuickBIRequestError``, which fails a task without a retry."""
    try:
        yield
    except PermanentError as error:
        raise task_error(error) from None


@contextmanager
def argument_errors(task_id: str = "") -> Iterator[None]:
    """Raise what is wrong with an argument as ``QuickBIArgumentError``, naming the task once it runs."""
    try:
        yield
    except OptionError as error:
        raise QuickBIArgumentError(f"{task_id}: {error}" if task_id else str(error)) from None


def outcome_error(evaluation: Evaluation) -> Exception:
    """Return what a task raises for an outcome other than ``SUCCEEDED``.

    :param evaluation: of a wait group that is finished.
    """
    message, error = evaluation.message, evaluation.error
    match evaluation.outcome:
        case Outcome.FAILED:
            if isinstance(evaluation.run, DatasetRefreshJob):
                return QuickBIDatasetRefreshFailed(message, evaluation.run)
            return QuickBIMailTaskFailed(message, evaluation.run)
        case Outcome.MISSED:
            return QuickBIRunMissed(message, evaluation.run)
        case Outcome.NOT_STARTED | Outcome.WINDOW_OVER | Outcome.TIMED_OUT:
            return AirflowSensorTimeout(message)
        case Outcome.REFUSED:
            code, request_id = (error.code, error.request_id) if error else ("", "")
            return QuickBIRequestError(message, code=code, request_id=request_id)
        case Outcome.WRONG_TIMEZONE:
            return QuickBIConnectionError(message)
        case Outcome.UNAVAILABLE:
            return QuickBIUnavailable(message)
        case _:
            return RuntimeError(f"the wait is {evaluation.outcome.value}, which is not a failure: {message}")
