"""Whatever the service, a connection, a DAG author or a database gives: it is understood or refused in words."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import io
import json
import os
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.state import AttemptState
from airflow_provider_quickbi._wait import events
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import OnFailed, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._watch.tracker import RunTracker, parse_statuses
from airflow_provider_quickbi.api import errors, operations, rate_limit, responses, signing
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.models import MailTask, MailTaskRun, MalformedResponse
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint, split_endpoint
from airflow_provider_quickbi.assets.quickbi import mail_task_uri, sanitize_uri
from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

M = MailTaskSubject("m")

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")

#: Seconds that anything here may take on a machine that is very busy.
BOUND = 60.0
#: Bytes that reading any answer may take: the most that is read, once in parts and once as a whole, and some more.
MEMORY = 4 * responses.MAX_RESPONSE_BYTES

#: Inputs that are made up for each parser. By default they are the same each time; with another number, which may be
#: much larger (``EXAMPLES=5000``), they are others in each run.
EXAMPLES = int(os.environ.get("EXAMPLES") or 150)


def examples(number: int) -> settings:
    """Return how many inputs are made up, as a part of the usual 150."""
    return settings(
        max_examples=max(1, EXAMPLES * number // 150),
        derandomize="EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


given_much = examples(150)
given_some = examples(50)

#: Names that mean something to a parser, in the spellings that occur.
NAMES = st.sampled_from(
    sorted(
        {
            *("RequestId", "Result", "Success", "Code", "Message", "success", "SUCCESS", "Data", "TotalNum", "PageNum"),
            *("MailId", "mailId", "Paused", "SubscribeName", "BizOwnerName", "BizOwnerUserId", "PageSize"),
            *("taskId", "TaskId", "execTime", "status", "STATUS", "task_id", "mail_id", "exec_time"),
            *("waits", "evaluations", "required", "late_at", "run", "error", "outcome", "message", "kind", "group"),
            *(
                "since",
                "on_failed",
                "selector",
                "executed_after",
                "other_than",
                "finish_by",
                "carry",
                "record",
                "phase",
            ),
            *(
                "recorded_at",
                "known",
                "attached_to",
                "accepted",
                "seen",
                "retry_after",
                "may_have_arrived",
                "hint",
                "action",
            ),
        }
    )
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    st.text(st.characters(), max_size=30),
    st.sampled_from(
        (
            *("SENT", "sent ", "FAILED", "PROCESSING", "true", "2026-07-01 08:00:00", "0001-01-01 00:00:00"),
            *("9999-12-31 23:59:59", "7218865303929605212", "1" * 21, "\x00", "\ud800", "a\r\nb: c", "Throttling.User"),
            *("waiting", "failed", "timed_out", "wait", "2026-07-01T08:00:00+08:00", "Mail.Not.Found", "starting"),
        )
    ),
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(NAMES, st.text(max_size=8)), inner, max_size=6)
    ),
    max_leaves=25,
)


def deep(levels: int) -> Any:
    """Return a list within a list within a list."""
    found: Any = "x"
    for _ in range(levels):
        found = [found]
    return found


def attempt(call: Callable[[], Any], expected: type[Exception]) -> tuple[Any, Any]:
    """Return what a call gives, and the error if it is an expected one."""
    try:
        return call(), None
    except expected as error:
        return None, error


def is_tame(text: str) -> bool:
    """Whether a log, a terminal and a database can hold a text."""
    return all(ord(character) >= 32 and not 0x7F <= ord(character) < 0xA0 for character in text) and bool(
        text.encode() or True
    )


# What the service answers


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
def test_an_answer_is_a_result_or_one_of_the_documented_errors(
    tried: Counter[str], status: int, headers: dict[str, str], body: Any
) -> None:
    tried["answers parsed"] += 1
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


# What comes back out of Airflow's database


def valid_delivery(**evaluation: Any) -> dict[str, Any]:
    wait = WaitState(subject=M, selector=RunSelector(executed_after=datetime(2026, 7, 1, tzinfo=UTC)), since=0.0)
    kept = encode_group(WaitGroup.of([wait]))
    kept["evaluations"][0] |= evaluation
    return kept


def run_dict(**changes: Any) -> dict[str, Any]:
    return {"mail_id": "m", "task_id": "1", "status": "SENT", "exec_time": "2026-07-01T08:00:00+08:00"} | changes


@st.composite
def spoilt(draw: st.DrawFn, whole: dict[str, Any]) -> Any:
    """Draw something that was valid until one value of it was replaced."""
    copy = json.loads(json.dumps(whole))
    place: Any = copy
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else list(place)
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        place[key] = draw(JSON)
        return copy


EVENT = {
    "version": 1,
    "kind": "finished",
    "group": valid_delivery(outcome="succeeded", run=run_dict()),
    "message": "sent",
    "carry": {},
}

COURSE = AttemptState(
    finish_by=2e9,
    subject=M,
    record=StartRecord(subject=M, recorded_at=1.0, known=("1",)),
    run=MailTaskRun.from_dict(run_dict()),
).as_dict()


@given_much
@given(event=st.one_of(JSON, spoilt(EVENT)))
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded")})
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded", run=run_dict(status="FAILED"))})
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded", run=run_dict(mail_id="another"))})
@example(event={**EVENT, "group": valid_delivery(outcome="brilliant", run=run_dict())})
def test_an_event_counts_as_a_delivery_only_with_a_sent_run_of_that_mail_task(tried: Counter[str], event: Any) -> None:
    tried["events read"] += 1
    try:
        group = events.Event.decode(event).group
    except RuntimeError:
        return
    if group is not None and group.evaluation.outcome is Outcome.SUCCEEDED:
        run = group.evaluations[0].run
        assert run is not None
        assert (run.status, run.subject_id) == ("SENT", group.waits[0].subject.id)


@given_much
@given(kept=st.one_of(JSON, spoilt(valid_delivery())))
def test_a_trigger_is_made_of_what_was_kept_or_not_at_all(tried: Counter[str], kept: Any) -> None:
    tried["trigger arguments read"] += 1
    with contextlib.suppress(TypeError):  # any other error ends the triggerer
        QuickBIMailTaskTrigger(quickbi_conn_id="c", group=kept, poke_interval=1.0)


@given_much
@given(kept=JSON)
def test_a_note_and_what_a_watcher_has_seen_are_taken_up_or_ignored(tried: Counter[str], kept: Any) -> None:
    tried["notes read"] += 2
    record = StartRecord.from_dict(kept)
    assert record is None or isinstance(record.subject.kind, str)
    tracker = RunTracker(M, frozenset({"SENT"}))
    tracker.restore(kept)
    assert all(isinstance(task_id, str) for task_id in tracker.seen)


@given_much
@given(kept=st.one_of(JSON, spoilt(COURSE)))
def test_a_try_goes_on_with_what_was_kept_or_not_at_all(tried: Counter[str], kept: Any) -> None:
    tried["courses read"] += 1
    with contextlib.suppress(ValueError):
        assert isinstance(AttemptState.from_dict(kept), AttemptState)


# What a connection may hold


@given_much
@given(
    raw=st.builds(
        connection.RawConnection,
        conn_id=st.just("c"),
        conn_type=st.sampled_from(("quickbi", "alibaba_cloud")),
        login=st.one_of(st.none(), st.text(max_size=10)),
        password=st.one_of(st.none(), st.text(max_size=10)),
        host=st.one_of(st.none(), st.text(max_size=30)),
        port=st.one_of(st.none(), st.integers()),
        schema=st.one_of(st.none(), st.text(max_size=6), st.sampled_from(("https", "http", "file"))),
        extra=st.dictionaries(
            st.one_of(st.sampled_from(sorted(connection.FIELD_NAMES)), st.text(max_size=5)), JSON, max_size=5
        ),
    )
)
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"verify": "a" * 5000}))
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"timezone": "../../etc/passwd"}))
@example(raw=connection.RawConnection("c", login="l", password="p", extra={"read_timeout": 10**400}))
def test_a_connection_is_understood_or_the_error_names_it(tried: Counter[str], raw: connection.RawConnection) -> None:
    tried["connections read"] += 1
    found, error = attempt(lambda: connection.read_connection(raw), connection.ConnectionFieldError)
    if error is None:
        assert_one_host(found.settings.endpoint)
    else:
        assert str(error).startswith("Connection 'c': ")
        assert is_tame(str(error))


def assert_one_host(endpoint: Endpoint) -> None:
    """Assert that everything that takes an address apart finds the host that was checked, and nothing else."""
    host = endpoint.host.strip("[]").lower().rstrip(".")
    prepared = requests.Request("POST", endpoint.url).prepare().url or ""
    for seen in (urlsplit(endpoint.url).hostname, URL(endpoint.url, encoded=True).host, urlsplit(prepared).hostname):
        assert (seen or "").lower().rstrip(".") == host
    assert urlsplit(endpoint.url).path == "/"
    assert "@" not in endpoint.url


NO_HOSTS = (
    *("user:pw@evil.example", "good.example@evil.example", "good.example:80@evil.example"),
    *("good.example#@evil.example", "good.example\\@evil.example", "good.example\\.evil.example"),
    *("evil.example/", "evil.example/path", "evil.example?x=1", "evil.example#x", "evil.example;x", "evil example"),
    *("evil.example\r\nX: y", "evil\x00.example", "file:///etc/passwd", "ftp://evil.example", "gopher://evil.example"),
    *("javascript:alert(1)", "unix:/run/x.sock", "https://https://evil.example", "https:///evil.example"),
    *("//evil.example", "http:evil.example", "://", "good.example%2eevil.example", "xn--\u200d.example"),
    # Letters and dots that look like others, or become others.
    *("\u24d4vil.example", "evil\u3002example", "\uff11\uff12\uff17.0.0.1", "ex\u0430mple.com", "\u202eelpmaxe"),
    *(".", "..", "-", ":80", "a:b", "a:99999", "a:-1", "a:0x50", "[::1", "::1]", "[evil.example]", "[::1%25eth0]"),
    *("a" * 254, ".".join(["a" * 64, "example"]), "a..b", "{{ host }}", "${HOST}", "*", "\ud800"),
)


@pytest.mark.parametrize("host", NO_HOSTS, ids=ascii)
def test_an_endpoint_that_is_not_a_host_is_refused_or_is_only_that_host(host: str, tried: Counter[str]) -> None:
    tried["endpoints tried"] += 1
    raw = connection.RawConnection("c", login="l", password="p", host=host)
    with contextlib.suppress(connection.ConnectionFieldError):
        endpoint = connection.read_connection(raw).settings.endpoint
        assert_one_host(endpoint)
        # Nothing but a scheme, a port and a slash at the end may have been taken off.
        assert host.rstrip("/").removeprefix("//") == endpoint.host


@given_much
@given(text=st.one_of(st.text(max_size=30), st.text("ab.:/@#?[]\\%-_ 01", max_size=15)))
def test_any_text_is_an_endpoint_with_one_host_or_refused(tried: Counter[str], text: str) -> None:
    tried["endpoints tried"] += 1
    try:
        scheme, host, port = split_endpoint(text)
        endpoint = Endpoint(host, scheme or "https", port)
    except ValueError:
        return
    assert_one_host(endpoint)


# What a DAG author may write

READERS: dict[str, Callable[[Any], Any]] = {
    "text": lambda value: _options.text("x", value),
    "optional_text": lambda value: _options.optional_text("x", value),
    "texts": lambda value: _options.texts("x", value),
    "instant": lambda value: _options.instant("x", value),
    "deadline": lambda value: _options.deadline("x", value, datetime(2026, 7, 1, tzinfo=UTC)),
    "seconds": lambda value: _options.seconds("x", value),
    "flag": lambda value: _options.flag("x", value),
    "count": lambda value: _options.count("x", value),
    "choice": lambda value: _options.choice("x", value, OnFailed),
    "required_of": lambda value: _options.required_of(_options.requirement("require", value), 3),
}
AUTHORED = st.one_of(
    JSON,
    st.binary(max_size=5),
    st.datetimes(),
    st.timedeltas(),
    st.text(max_size=60),
    st.text("[]{}'\"()1a,: \\", max_size=20),
    st.sampled_from(("09:00 Asia/Shanghai", "9:00 ../../etc/passwd", "24:00 UTC", "[{[]: 1}]", "['a', None]", "NaN")),
)


#: The longest argument that is understood has 256 characters.
TOO_LONG = (
    *(piece * (256 // len(piece) + 1) for piece in ("x", "[", "9", "09:00 A", "日", "&MailId=", "\nx")),
    *(piece * 10_000_000 for piece in ("x", "[", "9")),
)


@pytest.mark.parametrize("reader", READERS)
@examples(100)
@given(value=AUTHORED)
@example(value=10**5000)
@example(value="[{[]: 1}]")
@example(value=float("nan"))
@example(value=timedelta.max)
@example(value="0001-01-01T00:00:00+14:00")
@example(value="[" * 5000)
@example(value="{{ " * 20)
def test_an_argument_is_a_value_or_the_error_names_it(tried: Counter[str], reader: str, value: Any) -> None:
    tried["arguments read"] += 1
    found, error = attempt(lambda: READERS[reader](value), _options.OptionError)
    assert error is None or str(error).startswith(("x ", "require "))
    for text in found if isinstance(found, tuple) else [found]:
        if isinstance(text, str):
            assert len(text) <= _options.MAX_ID_LENGTH
            assert "\n" not in text
            assert text.encode()


@pytest.mark.parametrize("reader", ["text", "optional_text", "texts", "instant", "deadline", "seconds", "count"])
@pytest.mark.parametrize("written", TOO_LONG, ids=lambda written: f"{len(written)}-{written[:8]!a}")
def test_what_is_too_long_for_an_argument_is_refused_in_a_short_sentence(
    tried: Counter[str], reader: str, written: str
) -> None:
    tried["arguments read"] += 1
    with pytest.raises(_options.OptionError) as caught:
        READERS[reader](written)
    assert len(str(caught.value)) < 400


def test_what_is_nested_deep_is_refused_like_anything_else() -> None:
    for levels in range(100, 1000, 10):
        for read in (
            lambda item: MailTaskRun.from_json(item, mail_id="m", timezone=UTC),
            MailTask.from_json,
            operations.get_mail_task_list().read,
            operations.get_mail_task_status("m", None, UTC).read,
        ):
            with pytest.raises(MalformedResponse):
                read({"taskId": deep(levels), "MailId": deep(levels), "Data": deep(levels)})
    for name, read in READERS.items():
        if name != "texts":
            with pytest.raises(_options.OptionError):
                read(deep(5000))
    raw = connection.RawConnection("c", login="l", password="p", extra={"proxies": {"https": deep(5000)}})
    with pytest.raises(connection.ConnectionFieldError):
        connection.read_connection(raw)


@given_some
@given(statuses=st.one_of(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3)))
def test_wanted_states_are_read_or_refused(tried: Counter[str], statuses: Any) -> None:
    tried["arguments read"] += 1
    with contextlib.suppress(ValueError):
        assert all(status == status.strip() for status in parse_statuses(statuses))


@given_some
@given(mail_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
@example(mail_id="../../x?y#z@w")
@example(mail_id="a/b")
def test_an_asset_uri_holds_any_mail_id_and_has_one_form(tried: Counter[str], mail_id: str) -> None:
    tried["asset addresses"] += 1
    uri = mail_task_uri(mail_id)
    assert sanitize_uri(urlsplit(uri)).geturl() == uri


# What is sent

WEIRD = (
    *("a&MailId=b", "a=b", "a+b", "a b", "a%26b", "%", "a#b", "a?b", "/../..", "\x00", "\x7f", "\ud800", "~*!'()"),
    *("日本語", "🙂", "\u02bc", "\u0627", "\u202e", "'; DROP TABLE mail; --", "{{ var.value.secret }}"),
    *("a\r\nX-Evil: 1", "a\nb", "x-acs-action:ManualRunMailTask", "?" * 2000, "é" * 1000, "a" * 10_000_000),
)


def settings_for(quickbi: LocalQuickBI, **changes: Any) -> ClientSettings:
    plain = ClientSettings(
        Endpoint(quickbi.host, quickbi.scheme, quickbi.port),
        CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret=quickbi.access_key_secret
        ),
        status_calls_per_second=1000.0,
        read_timeout=30.0,
    )
    return replace(plain, **changes)


class Asking:
    """Both clients, asked in the same way.

    :param settings: of the clients.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._runner = asyncio.Runner()
        self._blocking = QuickBIClient(settings)
        self._asyncio = AsyncQuickBIClient(settings)

    def each(self, operation: operations.Operation[Any]) -> Iterator[Any]:
        """Ask with one client after the other; give the result, or the error that it raised."""
        for ask in (self._ask_blocking, self._ask_asyncio):
            try:
                yield ask(operation)
            except errors.QuickBIError as error:
                yield error

    def __call__(self, operation: operations.Operation[Any]) -> list[Any]:
        """Return what the two got."""
        return list(self.each(operation))

    def _ask_blocking(self, operation: operations.Operation[Any]) -> Any:
        return self._blocking.do(operation, retries=NO_RETRY)

    def _ask_asyncio(self, operation: operations.Operation[Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(BOUND):
                return await self._asyncio.do(operation, retries=NO_RETRY)

        return self._runner.run(bounded())

    def close(self) -> None:
        """Close both."""
        self._blocking.close()
        self._runner.run(self._asyncio.close())
        self._runner.close()


@contextlib.contextmanager
def asking(settings: ClientSettings) -> Iterator[Asking]:
    asked = Asking(settings)
    try:
        yield asked
    finally:
        asked.close()


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that this process connects to."""
    addresses: list[Any] = []
    connect = socket.socket.connect

    def record(self: socket.socket, address: Any) -> None:
        addresses.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return addresses


def clean_headers(quickbi: LocalQuickBI) -> bool:
    """Whether the last request had the headers that it should have, and no others."""
    wanted = {"host", "accept", "accept-encoding", "user-agent", "content-length", "content-type", "connection"}
    return all(name in wanted or name.startswith("x-acs-") for name in quickbi.calls[-1].headers)


@examples(80)
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_arrives_as_it_is_with_a_good_signature_or_is_not_sent(
    tried: Counter[str], server: LocalQuickBI, asked: Asking, text: str
) -> None:
    _sent_or_not(tried, server, asked, text)


@pytest.mark.parametrize("text", WEIRD, ids=lambda text: ascii(text[:20]))
def test_weird_text_arrives_as_it_is_with_a_good_signature_or_is_not_sent(
    tried: Counter[str], server: LocalQuickBI, asked: Asking, text: str
) -> None:
    _sent_or_not(tried, server, asked, text)


def _sent_or_not(tried: Counter[str], server: LocalQuickBI, asked: Asking, text: str) -> None:
    for name, operation in (
        ("MailId", operations.get_mail_task_status(text, None, UTC)),
        ("MailId", operations.manual_run_mail_task(text)),
        ("UserNick", operations.get_mail_task_list(user_nick=text)),
    ):
        tried["requests tried"] += 2
        before = server.count()
        for response in asked.each(operation):
            if server.count() == before:
                assert isinstance(response, errors.PermanentError)
                assert response.hint == "No request was sent"
                continue
            before += 1
            assert server.count() == before
            assert len(text) < signing.MAX_QUERY_BYTES
            assert server.calls[-1].params.get(name, "") == text
            assert server.calls[-1].code in ("OK", "Mail.Not.Found", "MailId.Is.Null")
            assert clean_headers(server)


@pytest.fixture(autouse=True)
def _starts_are_not_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow any number of starts a second; pacing is tried elsewhere."""
    monkeypatch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 1000.0)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalQuickBI]:
    with LocalQuickBI() as quickbi:
        yield quickbi


@pytest.fixture(scope="module")
def asked(server: LocalQuickBI) -> Iterator[Asking]:
    with asking(settings_for(server)) as both:
        yield both


@pytest.mark.parametrize(
    "action", ["", "Get MailTaskList", "A\r\nX-Evil: 1", "日本", "A" * 200, "../x", "A\x00", "A&B=C"]
)
def test_what_is_no_name_of_an_operation_is_not_sent(server: LocalQuickBI, asked: Asking, action: str) -> None:
    before = server.count()
    for response in asked(operations.any_operation(action, {}, repeatable=True)):
        assert isinstance(response, errors.PermanentError)
    assert server.count() == before


@pytest.mark.parametrize("name", ["", "Mail Id", "MailId&x", "a\r\nb", "日本", "A" * 200, 7, None])
def test_what_is_no_name_of_a_parameter_is_not_sent(server: LocalQuickBI, asked: Asking, name: Any) -> None:
    before = server.count()
    for response in asked(operations.any_operation("GetMailTaskList", {name: "x"}, repeatable=True)):
        assert isinstance(response, errors.PermanentError)
    assert server.count() == before


@pytest.mark.parametrize("piece", ["\r\nX-Evil: 1", "\n", "\x00", "é", "日", "\ud800", "\x7f"])
@pytest.mark.parametrize("kind", ["access_key_id", "access_key_secret", "security_token", "bearer_token"])
def test_a_credential_that_would_end_a_header_is_not_sent(server: LocalQuickBI, kind: str, piece: str) -> None:
    fields = {name: f"my-{name}" for name in ("access_key_id", "access_key_secret", "security_token")} | {
        kind: f"a{piece}b"
    }
    spec = CredentialSpec.of("sts", **fields)
    if kind == "bearer_token":
        spec = CredentialSpec.of("bearer", bearer_token=f"a{piece}b")
    before = server.count()
    with asking(settings_for(server, credentials=spec)) as both:
        for response in both(operations.get_mail_task_list()):
            assert isinstance(response, errors.PermanentError)
            assert "characters that cannot be sent" in str(response)
    assert server.count() == before


# Where it is sent to, and what comes back


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/x", "/elsewhere", "https://[", ""])
def test_a_redirect_is_not_followed_and_the_other_host_gets_nothing(
    quickbi: LocalQuickBI, dialled: list[Any], status: int, target: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, asking(settings_for(quickbi)) as both:
        elsewhere.setblocking(False)
        location = target.format(port=elsewhere.getsockname()[1])
        for action, operation in (
            ("GetMailTaskStatus", operations.get_mail_task_status("m", None, UTC)),
            ("ManualRunMailTask", operations.manual_run_mail_task("m")),
        ):
            quickbi.fail(action, Fault.redirect(location, status), times=2)
            for response in both(operation):
                assert isinstance(response, errors.PermanentError)
                assert response.http_status == status
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert {address[:2] for address in dialled} <= {(quickbi.host, quickbi.port)}


def test_nothing_but_the_endpoint_is_ever_connected_to(
    quickbi: LocalQuickBI, dialled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", "/dev/null")
    mail_id = quickbi.add_mail_task("Daily sales")
    responses = (
        Fault.custom(
            200, b"{}", {"Link": "<http://127.0.0.1:9/>; rel=preconnect", "Refresh": "0; url=http://127.0.0.1:9/"}
        ),
        Fault.custom(503, b"", {"Alt-Svc": 'h2="127.0.0.1:9"', "Location": "http://127.0.0.1:9/"}),
        Fault.custom(401, b"", {"WWW-Authenticate": "Basic realm=x"}),
        Fault.custom(407, b"", {"Proxy-Authenticate": "Basic realm=x"}),
        Fault.custom(200, b'{"Success":true,"Result":[]}', {"Set-Cookie": "a=b; Domain=127.0.0.1"}),
        Fault.error("InternalError", "see http://127.0.0.1:9/"),
    )
    with asking(settings_for(quickbi)) as both:
        for fault in responses:
            quickbi.fail("GetMailTaskStatus", fault, times=2)
            both(operations.get_mail_task_status(mail_id, None, UTC))
        assert both(operations.manual_run_mail_task(mail_id)) == [True, True]
    assert {address[:2] for address in dialled} <= {(quickbi.host, quickbi.port)}
    assert not any({"cookie", "authorization-basic"} & set(call.headers) for call in quickbi.calls)


def serve(response: Callable[[socket.socket], None]) -> contextlib.AbstractContextManager[int]:
    """Listen, and let a function answer each connection; gives the port."""

    @contextlib.contextmanager
    def serving() -> Iterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        stopped = threading.Event()

        def talk(accepted: socket.socket) -> None:
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(BOUND)
                accepted.recv(65536)
                response(accepted)

        def listen() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(BOUND)

    return serving()


def received_at(port: int, **changes: Any) -> tuple[list[Any], float, int]:
    """Ask both clients at a port; return the answers, the seconds that it took and the most memory."""
    plain = ClientSettings(
        Endpoint("127.0.0.1", "http", port),
        CredentialSpec.of("access_key", access_key_id="k", access_key_secret="s"),
        status_calls_per_second=1000.0,
    )
    with asking(replace(plain, **changes)) as both:
        both(operations.any_operation("-", {}, repeatable=True))  # imports what is imported late
        tracemalloc.start()
        try:
            began = time.monotonic()
            responses = both(operations.get_mail_task_status("m", None, UTC))
            return responses, time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_a_hundred_megabytes_are_not_read() -> None:
    sent: list[int] = []

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + b'Content-Length: 100000000\r\n\r\n{"Success":true,"Result":"')
        chunk = b"A" * 65536
        sent.extend(connection.send(chunk) for _ in range(100_000_000 // len(chunk)))

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) and "larger than" in str(response) for response in responses)
    assert memory < MEMORY
    assert sum(sent) < 100_000_000


@pytest.mark.parametrize("levels", [500, 900, 990, 1_000, 5_000, 100_000])
@pytest.mark.parametrize("brackets", [b"[]", b'{"a":}'])
def test_an_answer_that_is_nested_deep_is_not_understood_and_does_no_harm(levels: int, brackets: bytes) -> None:
    half = len(brackets) - 1
    body = b'{"Success":true,"Result":' + brackets[:half] * levels + b"1" + brackets[half:] * levels + b"}"

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert memory < MEMORY


@cache
def make_bomb() -> bytes:
    """Return a few hundred kilobytes that would be a hundred megabytes of valid JSON."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as bomb:
        bomb.write(b'{"Success":true,"Result":[]}')
        for _ in range(100):
            bomb.write(b" " * 1_000_000)
    return packed.getvalue()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_a_compressed_bomb_is_not_unpacked(encoding: str) -> None:
    bomb = make_bomb()

    def response(connection: socket.socket) -> None:
        connection.sendall(
            HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
        )

    with serve(response) as port:
        responses, _, memory = received_at(port)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert all("not a JSON object" in str(response) for response in responses)
    assert memory < MEMORY


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n"]
)
def test_a_response_that_trickles_in_is_given_up_after_the_response_timeout(framing: bytes) -> None:
    chunked = b"chunked" in framing

    def response(connection: socket.socket) -> None:
        connection.sendall(HEAD + framing)
        for _ in range(int(BOUND / 0.02)):
            connection.sendall(b"1\r\n \r\n" if chunked else b" ")
            time.sleep(0.02)  # real time is what is tried

    with serve(response) as port:
        responses, seconds, _ = received_at(port, connect_timeout=0.2, read_timeout=0.2)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert seconds < BOUND / 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=lambda raw: ascii(raw[:30]),
)
def test_what_is_hardly_http_is_an_answer_that_cannot_be_read(raw: bytes, tried: Counter[str]) -> None:
    tried["answers parsed"] += 2
    with serve(lambda connection: connection.sendall(raw)) as port:
        responses, _, memory = received_at(port, read_timeout=0.5)
    assert all(isinstance(response, errors.TransientError) for response in responses)
    assert memory < MEMORY


# Templates that render to nothing


def rendered(task: Any, **values: Any) -> Any:
    """Return a task as it is after its templates were rendered."""
    for name, value in values.items():
        setattr(task, name, value)
    return task


NOTHING = ("", " ", "None", "\n", "\u3000", None)
#: A list that a template has rendered to text; the run operator takes no list.
NOTHING_IN_A_LIST = ("[]", "[None]", "['']")


@pytest.mark.parametrize(
    ("cls", "nothing"),
    [(QuickBIMailTaskSensor, nothing) for nothing in (*NOTHING, *NOTHING_IN_A_LIST)]
    + [(QuickBIRunMailTaskOperator, nothing) for nothing in NOTHING],
)
@pytest.mark.parametrize("argument", ["mail_id", "subscribe_name"])
def test_a_template_that_renders_to_nothing_asks_nothing_and_sends_nothing(
    quickbi: LocalQuickBI, cls: Any, argument: str, nothing: Any, tried: Counter[str]
) -> None:
    tried["arguments read"] += 1
    task = rendered(cls(task_id="t", **{argument: "{{ x }}"}, deferrable=True), **{argument: nothing})
    with pytest.raises(AirflowFailException, match="t: "):
        inspect.unwrap(cls.execute)(task, {})
    assert quickbi.calls == []


@pytest.mark.parametrize("argument", ["executed_after", "quickbi_task_id", "require", "on_failed", "start_timeout"])
@pytest.mark.parametrize(
    "written", ["{}", "yesterday", "[]", "1e999", "\x00", "\ud800", "x" * 10_000_000], ids=lambda text: ascii(text[:9])
)
def test_a_template_that_renders_to_nonsense_asks_nothing(
    quickbi: LocalQuickBI, argument: str, written: str, tried: Counter[str]
) -> None:
    tried["arguments read"] += 1
    template: dict[str, Any] = {argument: "{{ x }}"}
    sensor = rendered(
        QuickBIMailTaskSensor(task_id="t", mail_id="m", deferrable=True, **template), **{argument: written}
    )
    with pytest.raises(AirflowFailException, match="t: ") as caught:
        inspect.unwrap(QuickBIMailTaskSensor.execute)(sensor, {})
    assert len(str(caught.value)) < 400
    assert quickbi.calls == []


def test_a_filter_that_renders_to_nothing_filters_nothing(quickbi: LocalQuickBI) -> None:
    quickbi.add_mail_task("Daily sales")
    task = rendered(
        QuickBIListMailTasksOperator(task_id="t", user_nick="{{ x }}", paused="{{ x }}"), user_nick="", paused="None"
    )
    assert len(inspect.unwrap(QuickBIListMailTasksOperator.execute)(task, {})) == 1
    assert "UserNick" not in quickbi.calls[-1].params
