"""Why a run has failed, as far as Quick BI says so; that it does not say is never a failure of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.state import Evaluation, Outcome
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.exceptions import QuickBIConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.client import QuickBIClient

#: Longest end of a log in a message, in characters.
_SHOWN = 600


def explained(evaluation: Evaluation, subject: Subject, client: Callable[[], QuickBIClient], log: Any) -> Evaluation:
    """Add to the message of a run that has failed what its log at Quick BI ends with.

    :param client: gives the client; not called where the service keeps no log that can be read.
    """
    if evaluation.outcome is not Outcome.FAILED or evaluation.run is None:
        return evaluation
    if (operation := subject.failure_log(evaluation.run)) is None:
        return evaluation
    try:
        text = " ".join(client().do(operation, retries=NO_RETRY).split())
    except (QuickBIError, QuickBIConnectionError) as error:
        log.info("%s: its log cannot be read: %s", subject.title, error)
        return evaluation
    if not text:
        return evaluation
    shown = text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"
    return replace(evaluation, message=f"{evaluation.message} End of its log: {shown}")
