"""``check --dataset-id``: whether refreshes can be read and started, and in which zone their times are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_quickbi._check.recording import record
from airflow_provider_quickbi._check.report import Level
from airflow_provider_quickbi.testing import LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Check

LAST, START = "QueryLastAccelerationEngineJob", "AllotDatasetAccelerationTask"


@pytest.fixture
def account() -> Iterator[LocalQuickBI]:
    with LocalQuickBI() as quickbi:
        quickbi.add_run(quickbi.add_mail_task("Daily sales", mail_id="m"))
        quickbi.datasets.add("Sales", dataset_id="sales-cube-id")
        yield quickbi


def lines(check: Check, quickbi: LocalQuickBI, **options: object) -> dict[str, tuple[Level, str]]:
    report = check(quickbi, dataset_id="sales-cube-id", **options)
    return {finding.name: (finding.level, finding.seen) for finding in report.findings}


def test_the_latest_refresh_is_read_and_a_start_is_probed(check: Check, account: LocalQuickBI) -> None:
    assert lines(check, account)[LAST] == (Level.OK, "allowed, never refreshed")
    account.datasets.add_run("sales-cube-id", outcome="FAILURE")
    found = lines(check, account, probe_send=True)
    assert found[LAST] == (Level.OK, "allowed, the latest refresh is FAILURE")
    assert found[START] == (Level.OK, "allowed: a nonexistent dataset returns Code Cube.Not.Exist")
    assert account.datasets.starts("sales-cube-id") == 0


def test_a_dataset_that_is_not_there_and_a_missing_grant_are_named(check: Check, account: LocalQuickBI) -> None:
    account.deny("Forbidden.RAM", action=START)
    assert lines(check, account, probe_send=True)[START] == (Level.FAILED, "denied, Code Forbidden.RAM")
    account.datasets.remove("sales-cube-id")
    assert lines(check, account)[LAST] == (Level.FAILED, "the dataset is not visible, Code Cube.Not.Exist")


def test_a_refresh_in_the_future_proves_another_zone(check: Check, account: LocalQuickBI) -> None:
    account.datasets.add_run("sales-cube-id")
    level, seen = lines(check, account, timezone="UTC")["refresh times"]
    assert level is Level.FAILED
    assert "in the future" in seen


def test_nothing_of_a_dataset_is_recorded(check: Check, account: LocalQuickBI) -> None:
    job_id = account.datasets.add_run("sales-cube-id")
    report = check(account, dataset_id="sales-cube-id", probe_send=True)
    written = json.dumps(record(report))
    for secret in ("sales-cube-id", job_id, LAST, START):
        assert secret not in written
