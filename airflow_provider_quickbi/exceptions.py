"""What a task raises: each class means the same in every mode and on every supported Airflow.

``AirflowFailException`` and ``AirflowSensorTimeout`` are never retried, and ``soft_fail`` turns them into a skip, in
``poke`` as after a deferral. The retryable ones are no ``AirflowException``, because that class skips after a deferral
and fails in ``poke``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_quickbi.api.errors import PermanentError, QuickBIError, TransientError

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.models import MailTaskRun


class QuickBIMailTaskFailed(AirflowFailException):
    """The run that counts is ``FAILED``: the report did not go out.

    :param message: says which run.
    :param run: the run; ``None`` if several mail tasks were waited for.
    """

    def __init__(self, message: str, run: MailTaskRun | None = None) -> None:
        super().__init__(message)
        self.run = run


class QuickBIRequestError(AirflowFailException):
    """Quick BI refused the question: denied, wrong credentials, unknown mail task, bad request.

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


class QuickBIUnavailable(RuntimeError):
    """Quick BI could not be asked; this says nothing about the report. Airflow's ``retries`` apply."""


class QuickBIConnectionUnreadable(TransientError, QuickBIUnavailable):
    """There is no such Airflow connection, or it could not be read for now; Airflow does not tell which.

    A task that begins fails with it, and Airflow's ``retries`` apply. A wait takes it as an answer that did not come.
    """


class QuickBIRunFailed(RuntimeError):
    """The run started by this task is ``FAILED`` and ``on_failed="retry"``: Airflow's ``retries`` send anew."""


class QuickBIStartUnknown(RuntimeError):
    """It is not known whether the mail was started; a retry looks for its run before it starts another."""


def task_error(error: QuickBIError) -> Exception:
    """Return what a task raises for an error of the client.

    :param error: of :mod:`airflow_provider_quickbi.api.errors`.
    """
    if isinstance(error, PermanentError):
        return QuickBIRequestError(str(error), code=error.code, request_id=error.request_id)
    return QuickBIUnavailable(f"Quick BI could not be asked: {error}")
