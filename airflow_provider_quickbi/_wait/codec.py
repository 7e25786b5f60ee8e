"""Stored forms of waits, plain JSON in Airflow's database, and their version.

A release reads what all earlier ones have stored. What a later release adds is ignored; the version is raised if
ignoring it would be wrong.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import (
    Evaluation,
    OnFailed,
    Outcome,
    WaitGroup,
    WaitState,
)
from airflow_provider_quickbi._wait.subject import Subject, read_subject
from airflow_provider_quickbi.api.errors import QuickBIError, error_from_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.models import Run

#: Version of trigger arguments, events, and what they carry.
STATE_VERSION = 1
#: Of a wait, what is stored as it is; what an earlier release did not store has its default.
_PLAIN = (
    "since",
    "window_reason",
    "start_timeout",
    "finish_by",
    "unreachable_timeout",
    "clock_skew",
    "until_seen",
    "start_requested_at",
    "other_subject_id",
    "start_by_since",
    "polled",
    "unreachable_since",
)


def check_version(version: Any) -> None:
    """Refuse what a later release has stored if this one would misread it.

    :raises ValueError: if it is later than :data:`STATE_VERSION`, or no version.
    """
    if not isinstance(version, int) or version > STATE_VERSION:
        raise ValueError(
            f"it has version {version!r:.20}, and this release of airflow-provider-quickbi reads version "
            f"{STATE_VERSION}. Install the same release on scheduler, workers and triggerers, and restart them"
        )


def encode_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Return plain JSON; it holds nothing secret."""
    return {
        "outcome": evaluation.outcome.value,
        "message": evaluation.message,
        "run": _encode_run(evaluation.run),
        "error": _encode_error(evaluation.error),
    }


def decode_evaluation(item: Mapping[str, Any], subject: Subject) -> Evaluation:
    """Read back what :func:`encode_evaluation` wrote.

    :raises ValueError: if it is something else; an unknown outcome is never a success.
    """
    try:
        return Evaluation(
            outcome=Outcome(item["outcome"]),
            message=str(item["message"]),
            run=_decode_run(item.get("run"), subject),
            error=_decode_error(item.get("error")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the evaluation of a wait: {type(error).__name__}: {error}") from None


def encode_wait(wait: WaitState) -> dict[str, Any]:
    """Return plain JSON; it holds nothing secret."""
    return {
        "subject": wait.subject.as_dict(),
        "run_id": wait.selector.run_id,
        "executed_after": _encode_instant(wait.selector.executed_after),
        "executed_before": _encode_instant(wait.selector.executed_before),
        "other_than": list(wait.selector.other_than),
        "on_failed": wait.on_failed.value,
        "run": _encode_run(wait.run),
        "ignored_run": _encode_run(wait.ignored_run),
        "error": _encode_error(wait.error),
        **{name: getattr(wait, name) for name in _PLAIN},
    }


def decode_wait(item: Mapping[str, Any]) -> WaitState:
    """Read back what :func:`encode_wait` wrote, in this release or an earlier one."""
    subject = read_subject(item["subject"])
    return WaitState(
        subject=subject,
        selector=RunSelector(
            run_id=item.get("run_id"),
            executed_after=_decode_instant(item.get("executed_after")),
            executed_before=_decode_instant(item.get("executed_before")),
            other_than=tuple(item.get("other_than", ())),
        ),
        on_failed=OnFailed(item.get("on_failed", OnFailed.FAIL)),
        run=_decode_run(item.get("run"), subject),
        ignored_run=_decode_run(item.get("ignored_run"), subject),
        error=_decode_error(item.get("error")),
        **{name: item[name] for name in _PLAIN if name in item},
    )


def encode_group(group: WaitGroup) -> dict[str, Any]:
    """Return plain JSON for trigger arguments and events; it holds nothing secret."""
    return {
        "waits": [encode_wait(wait) for wait in group.waits],
        "evaluations": [encode_evaluation(evaluation) for evaluation in group.evaluations],
        "required": group.required,
        "late_at": group.late_at,
    }


def decode_group(item: Mapping[str, Any]) -> WaitGroup:
    """Read back what :func:`encode_group` wrote, in this release or an earlier one.

    :raises ValueError: if it is something else.
    """
    try:
        waits = tuple(decode_wait(wait) for wait in item["waits"])
        group = WaitGroup(
            waits=waits,
            evaluations=tuple(
                decode_evaluation(evaluation, wait.subject)
                for wait, evaluation in zip(waits, item["evaluations"], strict=True)
            ),
            required=int(item["required"]),
            late_at=item.get("late_at"),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a wait group: {type(error).__name__}: {error}") from None
    if not waits or len(waits) != len(group.evaluations) or not 1 <= group.required <= len(waits):
        raise ValueError("not a wait group: its parts do not match")
    return group


def _encode_run(run: Run | None) -> dict[str, Any] | None:
    return run.as_dict() if run else None


def _decode_run(item: Any, subject: Subject) -> Run | None:
    return subject.run_type.from_dict(item) if item else None


def _encode_error(error: QuickBIError | None) -> dict[str, Any] | None:
    return error.as_dict() if error else None


def _decode_error(item: Any) -> QuickBIError | None:
    return error_from_dict(item) if item else None


def _encode_instant(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant else None


def _decode_instant(item: str | None) -> datetime | None:
    return datetime.fromisoformat(item) if item else None
