"""A connection that Airflow cannot give for a while, because a secrets backend or its API server is away."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.hooks import lookup
from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.triggers import quickbi as triggers

VARIABLE = "AIRFLOW_CONN_QUICKBI_DEFAULT"
ASK = "GetMailTaskStatus"
MISSING = "Connection 'quickbi_default' does not exist, or Airflow cannot read it"

#: The loader of Airflow 3.0 to 3.2 warns about itself when it looks for a connection in the database.
pytestmark = pytest.mark.filterwarnings("ignore")


class Backend:
    """Where the connection is, while it can be read."""

    def __init__(self, quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.secret = quickbi.access_key_secret
        self._quickbi = quickbi
        self._monkeypatch = monkeypatch
        self._back_after: int | None = None
        self.be_there()
        monkeypatch.setattr(lookup, "QuickBIConnectionUnreadable", self._refuse)

    def be_there(self) -> None:
        written = json.loads(self._quickbi.connection_json(status_calls_per_second=1000))
        self._monkeypatch.setenv(VARIABLE, json.dumps({**written, "password": self.secret}))

    def be_away(self, times: int | None = None) -> None:
        """Be away until it was called so often."""
        self._monkeypatch.delenv(VARIABLE)
        self._back_after = None if times is None else self.refused + times

    def _refuse(self, *args: Any, **kwargs: Any) -> Exception:
        from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable

        self.refused += 1
        if self.refused == self._back_after:
            self.be_there()
        return QuickBIConnectionUnreadable(*args, **kwargs)


@pytest.fixture
def backend(quickbi: LocalQuickBI, impatient: None, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return Backend(quickbi, monkeypatch)


def event_of(*mail_ids: str, **limits: Any) -> dict[str, Any]:
    """Return how a wait for these mail tasks ends, whose triggers are made of what is in the database."""
    now = time.time()
    waits = [
        WaitState(subject=MailTaskSubject(mail_id), selector=RunSelector(), since=now, finish_by=now + 600, **limits)
        for mail_id in mail_ids
    ]
    arguments = {
        "quickbi_conn_id": "quickbi_default",
        "poke_interval": 0.02,
        "group": encode_group(WaitGroup.of(waits)),
    }

    async def event() -> Any:
        async with asyncio.timeout(60):
            return (await anext(triggers.QuickBIMailTaskTrigger(**json.loads(json.dumps(arguments))).run())).payload

    return dict(json.loads(json.dumps(asyncio.run(event()))))


def outcomes(event: dict[str, Any]) -> list[str]:
    return [evaluation["outcome"] for evaluation in event["group"]["evaluations"]]


def test_a_triggerer_that_starts_while_the_connection_cannot_be_read_waits_on(quickbi: LocalQuickBI, backend: Backend):
    for mail_id in ("m", "n"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id, status="SENT")
    backend.be_away(times=6)

    event = event_of("m", "n")

    assert (event["kind"], outcomes(event)) == ("finished", ["succeeded", "succeeded"])
    assert backend.refused == 6


def test_a_connection_that_stays_away_ends_the_wait_after_unreachable_timeout(quickbi: LocalQuickBI, backend: Backend):
    backend.be_away()

    event = event_of("m", unreachable_timeout=0.3)

    assert (event["kind"], outcomes(event)) == ("finished", ["unavailable"])
    assert MISSING in event["message"]
    assert "was unreachable for" in event["message"]
    assert "AIRFLOW_CONN_QUICKBI_DEFAULT" in event["message"]
    assert backend.refused > 2
    assert quickbi.calls == []


@pytest.mark.parametrize("mail_ids", [("m",), ("m", "n")], ids=len)
def test_a_secret_that_changed_is_taken_when_the_connection_can_be_read_again(
    quickbi: LocalQuickBI, backend: Backend, mail_ids: tuple[str, ...]
):
    runs = []
    for mail_id in mail_ids:
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        runs.append(quickbi.add_run(mail_id, status="PROCESSING"))

    def rotate(_: Any) -> None:
        if runs and quickbi.count(ASK) >= 8:
            backend.be_away(times=3)
            backend.secret = "rotated"
            quickbi.change_account(quickbi.access_key_id, access_key_secret=backend.secret)
            while runs:
                quickbi.finish_run(runs.pop(), "SENT")

    quickbi.when_called(ASK, rotate)

    event = event_of(*mail_ids)

    assert (event["kind"], outcomes(event)) == ("finished", ["succeeded"] * len(mail_ids))
    assert backend.refused == 3


def test_a_connection_that_is_wrong_ends_the_wait_at_once(
    quickbi: LocalQuickBI, backend: Backend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, quickbi.connection_json(regoin="cn-hongkong"))

    event = event_of("m")

    assert event["kind"] == "connection"
    assert "regoin" in event["message"]
    assert backend.refused == 0
    assert quickbi.calls == []
