"""A start that is late is notified once, whatever it is late for, and the wait goes on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from tests.datasets import both


@pytest.fixture
def notified(world: Any) -> list[float]:
    return []


@pytest.mark.parametrize(
    ("when", "hindrance"),
    [(60, None), (60, "limit"), (100, "other"), (10, "appears late")],
    ids=["while waiting", "while the limit holds", "while another run is under way", "before it appears"],
)
def test_a_late_delivery_is_told_once_and_the_wait_goes_on(
    when: float,
    hindrance: str | None,
    make_task: Any,
    store: Any,
    deferrable: bool,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    world: Any,
    notified: list[Any],
) -> None:
    if hindrance == "limit":
        quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=5)
    elif hindrance == "other":
        other = quickbi.add_run(mail_id, status="PROCESSING")
        world.after(200, lambda: quickbi.finish_run(other))
    elif hindrance == "appears late":
        quickbi.set_manual_start(mail_id, appears_after=200)
    late_at = datetime.fromtimestamp(world.now + when, UTC)
    task = make_task(
        store=store,
        deferrable=deferrable,
        deadline=late_at,
        on_late_callback=lambda context: notified.append((world.elapsed(), context["quickbi_late"])),
    )
    result = task.run()
    assert (starts(), result) == (1, newest())
    ((told_at, message),) = notified
    assert told_at == pytest.approx(when, abs=0.5)
    assert message.startswith("Late: Mail task daily-sales")
    if hindrance == "limit":
        assert "was not started yet" in message
        assert world.elapsed() == pytest.approx(300 + 240, abs=60)


def test_a_delivery_in_time_is_not_told_of(
    make_task: Any, store: Any, deferrable: bool, world: Any, notified: list[Any]
) -> None:
    late_at = datetime.fromtimestamp(world.now + 400, UTC)
    make_task(store=store, deferrable=deferrable, deadline=late_at, on_late_callback=notified.append).run()
    assert notified == []


@both
def test_a_deadline_may_be_a_wall_time_of_the_day_on_which_the_dag_run_began(
    make_task: Any, store: Any, deferrable: bool, world: Any, notified: list[Any]
) -> None:
    make_task(
        store=store,
        deferrable=deferrable,
        deadline="09:02 Asia/Shanghai",
        on_late_callback=lambda context: notified.append(world.elapsed()),
    ).run()
    assert notified == [pytest.approx(120, abs=0.5)]


def test_a_deadline_that_is_none_fails_for_good_before_anything_is_sent(make_task: Any, starts: Any) -> None:
    task = make_task()
    task.arguments["deadline"] = "{{ ds }}"
    make = task.operator

    def rendered() -> Any:
        operator = make()
        operator.deadline = "soon"
        return operator

    task.operator = rendered
    with pytest.raises(AirflowFailException, match="deadline is 'soon'"):
        task.run()
    assert starts() == 0
