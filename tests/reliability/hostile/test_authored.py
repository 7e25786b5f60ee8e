"""Whatever a DAG author or a template writes: it is understood or refused in words, and nothing is called."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_quickbi import _instants, _options, connection
from airflow_provider_quickbi._wait.state import OnFailed
from airflow_provider_quickbi._watch.tracker import parse_statuses
from airflow_provider_quickbi.api import operations
from airflow_provider_quickbi.api.models import MailTask, MailTaskRun, MalformedResponse
from airflow_provider_quickbi.assets.quickbi import mail_task_uri, sanitize_uri
from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
from airflow_provider_quickbi.testing import LocalQuickBI

from .inputs import JSON, attempt, deep, examples, given_some

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


# What a DAG author may write


READERS: dict[str, Callable[[Any], Any]] = {
    "text": lambda value: _options.text("x", value),
    "optional_text": lambda value: _options.optional_text("x", value),
    "texts": lambda value: _options.texts("x", value),
    "instant": lambda value: _instants.instant("x", value),
    "deadline": lambda value: _instants.deadline("x", value, datetime(2026, 7, 1, tzinfo=UTC)),
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
def test_a_template_that_renders_to_nothing_calls_nothing_and_sends_nothing(
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
def test_a_template_that_renders_to_nonsense_calls_nothing(
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
