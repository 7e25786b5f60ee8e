"""What a refresh has of its own: names in a workspace, its refusals, its log, and that only the latest one is shown."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_quickbi.exceptions import (
    QuickBIDatasetRefreshFailed,
    QuickBIRequestError,
    QuickBIRunFailed,
    QuickBIRunMissed,
)
from airflow_provider_quickbi.testing import Fault
from tests.datasets import WORKSPACE

from .tries import Case, Crash, held, recorded, unrecorded

pytestmark = pytest.mark.parametrize("kind", ["dataset"], indirect=True)


def test_a_dataset_is_found_by_its_name_in_its_workspace(case: Case) -> None:
    task = case.task(dataset_name="Daily sales", workspace_id=WORKSPACE)
    assert (task.run(), case.starts()) == ({**case.newest(), "dataset_name": "Daily sales"}, 1)


@held
@unrecorded
@pytest.mark.parametrize(
    ("name", "workspace", "says"),
    [
        ("Daily sale", WORKSPACE, r"no dataset of workspace 'workspace-1' is named 'Daily sale'; found 'Daily sales'"),
        (
            "Daily sales",
            "elsewhere",
            r"no dataset of workspace 'elsewhere' is named 'Daily sales'\. Check dataset_name",
        ),
        ("Twice", WORKSPACE, r"2 datasets of workspace 'workspace-1' are named 'Twice': a, b.*Set dataset_id"),
    ],
)
def test_a_name_that_names_no_dataset_or_several_fails_for_good_and_says_what_there_is(
    name: str, workspace: str, says: str, case: Case
) -> None:
    for dataset_id in ("a", "b"):
        case.quickbi.add_mail_task("Twice", mail_id=dataset_id)
    with pytest.raises(QuickBIRequestError, match=says):
        case.task(dataset_name=name, workspace_id=workspace).run()
    assert case.starts() == 0


@pytest.mark.parametrize(
    ("code", "advice"),
    {
        "Quick.Job.NotExist": "the dataset has no extraction into the Quick engine; enable it in the Quick BI console",
        "Cube.Not.Exist": "there is no such dataset, or it is not visible",
        "Last.Job.Failed": "blocks every start through the API: repair the dataset's extraction and run it once in the",
        "User.OperationPermission.Error": "organisation administrator",
    }.items(),
)
def test_a_start_that_quick_bi_refuses_fails_for_good_with_what_to_do(code: str, advice: str, case: Case) -> None:
    case.quickbi.refuse_manual_start(case.mail_id, code)
    task = case.task()
    with pytest.raises(QuickBIRequestError, match=advice) as raised:
        task.run()
    assert (raised.value.code, len(task.errors), case.starts()) == (code, 1, 0)
    assert not task.has_unfinished_record


def test_a_retry_after_an_extraction_that_failed_says_that_the_console_is_needed(case: Case) -> None:
    """What the documentation says, read literally."""
    case.start_with(outcome="FAILED")
    case.world.after(200, lambda: case.quickbi.refuse_manual_start(case.mail_id, "Last.Job.Failed", times=None))
    task = case.task(on_failed="retry")
    with pytest.raises(QuickBIRequestError, match=r"Last\.Job\.Failed"):
        task.run()
    assert [type(error) for error in task.errors] == [QuickBIRunFailed, QuickBIRequestError]
    assert case.starts() == 1


@pytest.mark.parametrize("status", ["FAILURE", "CANCELED"])
def test_a_log_that_cannot_be_read_is_no_failure_of_its_own(status: str, log: Any, case: Case) -> None:
    case.start_with(outcome=status)
    case.quickbi.fail("QueryAccelerationLogByCubeId", Fault.error("Forbidden.RAM"), times=None)
    with pytest.raises(QuickBIDatasetRefreshFailed, match=f"is {status}: ") as raised:
        case.task().run()
    assert "End of its log" not in str(raised.value)
    assert "its log cannot be read" in log.text
    assert case.quickbi.count("QueryAccelerationLogByCubeId") == 1


def test_a_refresh_that_a_later_one_hides_is_missed_and_never_a_success(case: Case) -> None:
    case.start_with(duration=100)
    case.world.after(110, lambda: case.quickbi.add_run(case.mail_id, duration=5))
    task = case.task()
    with pytest.raises(
        QuickBIRunMissed, match=r"was RUNNING when last seen.*The refresh was started\. Check the"
    ) as raised:
        task.run()
    assert isinstance(raised.value, AirflowFailException)
    assert (len(task.errors), case.starts()) == (1, 1)
    assert not task.has_unfinished_record


def test_another_refresh_that_is_hidden_before_it_was_seen_to_end_does_not_hinder_the_start(case: Case) -> None:
    first = case.quickbi.add_run(case.mail_id, status="PROCESSING")
    case.world.advance(10)

    def replaced() -> None:
        """At once, or a poll between the two would start this task's, whenever that poll happens to come."""
        case.quickbi.finish_run(first, "SENT")
        case.quickbi.add_run(case.mail_id, duration=200)

    case.world.after(75, replaced)
    task = case.task()
    assert (task.run(), case.starts()) == (case.newest(), 1)
    assert task.errors == []


@recorded
def test_a_retry_recovers_the_refresh_that_was_attached_to_even_if_only_its_id_was_kept(case: Case) -> None:
    case.die_at(case.store, "set", 3, after=True)
    task = case.task()
    assert (task.run(), case.starts()) == (case.newest(), 1)
    assert [type(error) for error in task.errors] == [Crash]


@held
@unrecorded
def test_being_killed_says_that_the_refresh_continues(log: Any, case: Case) -> None:
    case.task().operator().on_kill()
    assert "a started refresh continues" in log.text
