"""Every plausible reading of what is not documented: the outcome is right, or ``check`` names what is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi._check import recording
from airflow_provider_quickbi._check.checks import Checker, Options
from airflow_provider_quickbi._check.exchange import Clock
from airflow_provider_quickbi._check.replay import imitate
from airflow_provider_quickbi._check.report import Level, Report
from airflow_provider_quickbi._check.sending import start_once
from airflow_provider_quickbi._send.record import StartResult
from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import OnFailed, Outcome, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.clock import Clock as ClientClock
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

HERE = Path(__file__).resolve().parent
READINGS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "readings").glob("*.json"))
}
TABLE = HERE.parent.parent / "docs" / "unknowns.md"
MAIL = "0123456789abcdef0123456789abcdef"
UNKNOWN_TASK_ID = "9223372036854775807"


class Account:
    """A simulator that behaves like a reading, and a connection to it."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.reading = READINGS[name]
        self.scenario = self.reading["expect"]["scenario"]
        self.behaviour = recording.read(HERE / "readings" / f"{name}.json").behaviour
        self.on_failed = OnFailed(settings.pop("on_failed", "fail"))
        self.start_timeout = settings.pop("start_timeout", 600)
        self.changes = {"status_calls_per_second": 1000.0, **settings}
        self.quickbi = LocalQuickBI()

    def __enter__(self) -> Account:
        self.quickbi.start()
        self.quickbi.clock.freeze()
        self.quickbi.add_mail_task("Daily sales", mail_id=MAIL, paused=self.scenario == "paused")
        if self.scenario != "first run":
            for days in (2, 1):
                self.quickbi.add_run(MAIL, exec_time=self.quickbi.clock.now() - timedelta(days=days))
        imitate(self.quickbi, self.behaviour)
        return self

    def __exit__(self, *_: object) -> None:
        self.quickbi.stop()

    @property
    def settings(self) -> ClientSettings:
        key = {"access_key_id": self.quickbi.access_key_id, "access_key_secret": self.quickbi.access_key_secret}
        return replace(
            ClientSettings(
                Endpoint(self.quickbi.host, "http", self.quickbi.port), CredentialSpec.of("access_key", **key)
            ),
            **self.changes,
        )

    @property
    def clock(self) -> Clock:
        now = self.quickbi.clock

        def sleep(seconds: float) -> None:
            now.advance(seconds)

        return Clock(time=now.time, monotonic=now.time, sleep=sleep)

    def outcome(self) -> str:
        """Do what the reading's scenario says and return how the wait ends."""
        self.quickbi.clock.advance(10)
        with QuickBIClient(self.settings, clock=ClientClock(sleep=lambda _: None)) as client:
            if self.scenario == "unknown TaskId":
                return self.wait(client, RunSelector(run_id=UNKNOWN_TASK_ID))
            if self.scenario == "first run":
                return self.wait(client, RunSelector(), at=900, then=lambda: self.quickbi.add_run(MAIL))
            start = start_once(client, MAIL, self.clock)
            if start.result is StartResult.TOO_EARLY:
                assert self.quickbi.starts(MAIL) == 0
                return "not_started_try_later"
            assert start.result is StartResult.ACCEPTED
            outcome = self.wait(client, start.selector())
            assert self.quickbi.starts(MAIL) == 1
            return outcome

    def wait(
        self, client: QuickBIClient, selector: RunSelector, at: float = 0, then: Callable[[], object] | None = None
    ) -> str:
        begun = self.quickbi.clock.time()
        wait = WaitState(
            subject=MailTaskSubject(MAIL),
            selector=selector,
            since=begun,
            start_timeout=None if then else self.start_timeout,
            finish_by=begun + 7200,
            on_failed=self.on_failed,
        )
        while True:
            if then is not None and self.quickbi.clock.time() - begun >= at:
                then()
                then = None
            query = wait.status_query(self.quickbi.clock.time())
            response: Any = None
            if query is not None:
                try:
                    response = client.do(query.operation(client.settings.zone), retries=NO_RETRY)
                except QuickBIError as error:
                    response = error
            wait, evaluation = evaluate(wait, response, self.quickbi.clock.time())
            if evaluation.outcome.final:
                if evaluation.outcome is Outcome.SUCCEEDED:
                    assert evaluation.run is not None
                    assert evaluation.run.run_id in {run["task_id"] for run in self.quickbi.runs(MAIL)[-2:]}
                return evaluation.outcome.value
            self.quickbi.clock.advance(30)

    def check(self, how: str) -> Report:
        """Check the account as a person would to learn about the reading."""
        options = {
            "read": Options(),
            "rate": Options(),
            "send": Options(mail_id=MAIL, send=True),
            "watch": Options(mail_id=MAIL, watch=900.0),
        }[how]
        if how == "watch":  # a run that finished just now
            with QuickBIClient(self.settings, clock=ClientClock(sleep=lambda _: None)) as client:
                client.manual_run_mail_task(MAIL)
        if how == "rate":
            self.changes["status_calls_per_second"] = 1.0
        return Checker(self.settings, "access_key ***", options, self.clock).run()


@pytest.fixture
def account() -> Iterator[Callable[..., Account]]:
    made: list[Account] = []

    def make(name: str, **settings: Any) -> Account:
        made.append(Account(name, **settings))
        return made[-1].__enter__()

    yield make
    for one in made:
        one.__exit__()


@pytest.mark.parametrize("name", READINGS)
def test_the_outcome_of_a_wait_is_right_with_the_setting_that_check_names(
    name: str, account: Callable[..., Account]
) -> None:
    expected = READINGS[name]["expect"]
    assert account(name, **expected.get("settings", {})).outcome() == expected["outcome"]


@pytest.mark.parametrize("name", [name for name, reading in READINGS.items() if "without" in reading["expect"]])
def test_without_the_setting_it_is_never_a_wrong_success(name: str, account: Callable[..., Account]) -> None:
    assert account(name).outcome() == READINGS[name]["expect"]["without"]


@pytest.mark.parametrize("name", [name for name, reading in READINGS.items() if "names" in reading["expect"]])
def test_check_names_what_is_needed(name: str, account: Callable[..., Account]) -> None:
    expected = READINGS[name]["expect"]
    line, words = expected["names"]
    report = account(name).check(expected["check"])
    (found,) = (finding for finding in report.findings if finding.name == line)
    assert found.level in (Level.WARNING, Level.FAILED), found
    assert words in found.remedy


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_is_in_the_table_of_the_documentation(name: str) -> None:
    row = re.search(rf"^\| .*`{name}` \|.*$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    assert READINGS[name]["reading"] in row.group()
    assert f"`{READINGS[name]['expect']['outcome']}`" in row.group()


def test_every_unknown_has_more_than_one_reading() -> None:
    unknown = [reading["unknown"] for reading in READINGS.values()]
    assert [number for number in range(1, 8) if unknown.count(number) < 2] == []
