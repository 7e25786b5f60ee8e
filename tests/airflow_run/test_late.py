"""A start that is late is notified once, whatever it is late for, and the wait goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.datasets import both

from .tries import Case


@pytest.mark.parametrize(
    ("when", "hindrance"),
    [(60, None), (60, "limit"), (100, "other"), (10, "appears late")],
    ids=["while waiting", "while the limit holds", "while another run is active", "before it appears"],
)
def test_a_late_delivery_is_notified_once_and_the_wait_goes_on(when: float, hindrance: str | None, case: Case) -> None:
    if hindrance == "limit":
        case.quickbi.limit_manual_starts(case.mail_id, calls=1, announced_minutes=5)
    elif hindrance == "other":
        other = case.quickbi.add_run(case.mail_id, status="PROCESSING")
        case.world.after(200, lambda: case.quickbi.finish_run(other))
    elif hindrance == "appears late":
        case.start_with(appears_after=200)
    notified: list[tuple[float, str]] = []
    task = case.task(
        deadline=datetime.fromtimestamp(case.world.now + when, UTC),
        on_late_callback=lambda context: notified.append((case.world.elapsed(), context["quickbi_late"])),
    )
    result = task.run()
    assert (case.starts(), result) == (1, case.newest())
    ((notified_at, message),) = notified
    assert notified_at == pytest.approx(when, abs=0.5)
    assert message.startswith("Late: Mail task daily-sales")
    if hindrance == "limit":
        assert "has not been started yet" in message
        assert case.world.elapsed() == pytest.approx(300 + 240, abs=60)


def test_a_delivery_in_time_notifies_nobody(case: Case) -> None:
    notified: list[Any] = []
    deadline = datetime.fromtimestamp(case.world.now + 400, UTC)
    case.task(deadline=deadline, on_late_callback=notified.append).run()
    assert notified == []


@both
def test_a_deadline_may_be_a_wall_time_of_the_day_on_which_the_dag_run_started(case: Case) -> None:
    notified: list[float] = []
    case.task(
        deadline="09:02 Asia/Shanghai", on_late_callback=lambda context: notified.append(case.world.elapsed())
    ).run()
    assert notified == [pytest.approx(120, abs=0.5)]
