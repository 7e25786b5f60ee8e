"""Whatever the service responds with: it is understood or refused in words."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from datetime import UTC
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_quickbi.api import errors, operations, responses
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.models import MailTask, MailTaskRun, MalformedResponse
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint

from .inputs import JSON, attempt, given_much, is_tame

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


@given_much
@given(
    status=st.one_of(st.sampled_from((200, 204, 302, 400, 403, 404, 429, 500, 503)), st.integers(100, 999)),
    headers=st.dictionaries(
        st.sampled_from(("Location", "x-acs-retry-after", "X-ACS-RETRY-AFTER", "Content-Type")), st.text(max_size=40)
    ),
    body=st.one_of(st.binary(max_size=200), JSON),
)
@example(status=200, headers={}, body=b"\xff\xfe")
@example(status=200, headers={}, body=b'{"Success": true, "Result": ' + b"9" * 5000 + b"}")
@example(status=400, headers={"x-acs-retry-after": "1e400"}, body={"Code": "Throttling", "Message": "\x1b[2J\ud800"})
@example(status=302, headers={"location": "http://[::1/"}, body=b"")
def test_a_response_is_a_result_or_one_of_the_documented_errors(
    tried: Counter[str], status: int, headers: dict[str, str], body: Any
) -> None:
    tried["responses parsed"] += 1
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    read = partial(responses.read_response, "GetMailTaskStatus", status, headers, raw)
    _, error = attempt(read, errors.QuickBIError)
    if error is None:
        assert status < 400
        assert {str(name).lower(): value for name, value in json.loads(raw).items()}["success"] is True
    else:
        assert is_tame(str(error))
        assert len(str(error)) < 4000
        assert error.retry_after is None or 0 < error.retry_after <= responses.MAX_RETRY_AFTER


@given_much
@given(item=JSON, mail_id=st.text(max_size=10))
@example(item={"taskId": 1, "execTime": "9999-12-31 23:59:59", "status": "SENT"}, mail_id="m")
@example(item={"taskId": "\uff11", "execTime": "2026-07-01 08:00:00", "status": "SENT"}, mail_id="m")
@example(item={"taskId": True, "execTime": "2026-07-01 08:00:00", "status": "SENT"}, mail_id="m")
@example(item={"taskId": 7.2188653e18, "execTime": "2026-07-01 08:00:00", "status": "SENT"}, mail_id="m")
def test_a_mail_task_or_a_run_is_read_as_one_or_refused(tried: Counter[str], item: Any, mail_id: str) -> None:
    zone = ClientSettings(Endpoint("h"), CredentialSpec(), timezone="America/New_York").zone
    tried["models parsed"] += 2
    run, _ = attempt(lambda: MailTaskRun.from_json(item, mail_id=mail_id, timezone=zone), MalformedResponse)
    if run is not None:
        assert run.task_id.isascii()
        assert run.task_id.isdigit()
        assert is_tame(run.status)
        assert run.status == run.status.upper()
        assert run.exec_time.tzinfo is not None
        assert MailTaskRun.from_dict(json.loads(json.dumps(run.as_dict()))) == run
    task, _ = attempt(lambda: MailTask.from_json(item), MalformedResponse)
    if task is not None:
        assert isinstance(task.paused, bool)
        assert all(is_tame(str(value)) for value in task.as_dict().values())


@given_much
@given(result=JSON)
@example(result={"Data": [{"MailId": "m", "Paused": "TRUE"}], "TotalNum": -1, "PageNum": 10**400})
def test_the_result_of_every_operation_is_read_as_documented_or_refused(tried: Counter[str], result: Any) -> None:
    for operation in (
        operations.get_mail_task_list(),
        operations.get_mail_task_status("m", None, UTC),
        operations.manual_run_mail_task("m"),
    ):
        tried["results parsed"] += 1
        with contextlib.suppress(MalformedResponse, errors.TransientError):
            value = operation.read(result)
            assert operation.action != "ManualRunMailTask" or result is True or str(result).strip().lower() == "true"
            assert value is not None


@given_much
@given(text=st.text(max_size=200))
@example(text="Please Try Again In 999999999999 Minutes")
@example(text="[*?" * 50)
def test_any_code_and_message_has_a_meaning(tried: Counter[str], text: str) -> None:
    tried["codes classified"] += 1
    assert errors.classify(text)[0] in errors.ErrorKind
    minutes = errors.minutes_to_wait(text)
    assert minutes is None or 0 <= minutes < 10**6
