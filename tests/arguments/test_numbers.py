"""Numbers, flags and choices, and whatever is given instead of a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given

from airflow_provider_quickbi import _instants, _options
from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._send.options import OnRunFailed
from airflow_provider_quickbi._wait.state import OnFailed

from .values import ANYTHING, DAY, SHANGHAI

# Numbers and flags


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("None", None),
        (0, 0.0),
        (1.5, 1.5),
        ("90", 90.0),
        (" 1e3 ", 1000.0),
        (timedelta(minutes=5), 300.0),
        (timedelta(0), 0.0),
    ],
)
def test_seconds_are_a_number_a_timedelta_or_the_text_of_a_number(value: Any, expected: float | None):
    assert _options.seconds("start_timeout", value) == expected


@pytest.mark.parametrize(
    "value",
    [-1, "-0.5", timedelta(seconds=-1), float("nan"), float("inf"), "soon", True, [], {}, 1e10, 10**400, timedelta.max],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_number_of_seconds_is_refused(value: Any):
    with pytest.raises(OptionError, match=r"^start_timeout must be "):
        _options.seconds("start_timeout", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (True, True), (False, False), ("true", True), (" False ", False), ("None", None), ("", None)],
)
def test_a_flag_may_have_been_rendered_to_text(value: Any, expected: bool | None):
    assert _options.flag("paused", value) is expected


@pytest.mark.parametrize("value", ["yes", 0, 1, [], "2"])
def test_what_is_no_flag_is_refused(value: Any):
    with pytest.raises(OptionError, match=r"^paused must be true or false"):
        _options.flag("paused", value)


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("", None), ("None", None), (1, 1), ("25", 25)])
def test_a_count_is_a_whole_number_from_1(value: Any, expected: int | None):
    assert _options.count("limit", value) == expected


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1.5", "many", [], 10**10, "9" * 5000])
def test_what_is_no_count_is_refused(value: Any):
    with pytest.raises(OptionError, match=r"^limit must be a whole number of 1 or more"):
        _options.count("limit", value)


@pytest.mark.parametrize(
    ("value", "total", "expected"), [("all", 3, 3), ("any", 3, 1), (2, 3, 2), ("2", 3, 2), (3, 3, 3), ("all", 1, 1)]
)
def test_how_many_must_go_out_is_all_any_or_a_number(value: Any, total: int, expected: int):
    assert _options.required_of(_options.requirement("require", value), total) == expected


@pytest.mark.parametrize("value", [0, 4, "most", None, "", 1.5, [], "None"])
def test_more_than_there_are_cannot_be_required(value: Any):
    with pytest.raises(OptionError, match=r"^require (must be|is 4, but) "):
        _options.required_of(_options.requirement("require", value), 3)


def test_one_of_the_choices_is_taken_and_nothing_else():
    assert _options.choice("on_failed", " wait ", OnFailed) is OnFailed.WAIT
    value: Any
    for value in ("WaitState", "", None, 7, [], {}):
        with pytest.raises(OptionError, match=r"^on_failed must be one of fail, wait, not "):
            _options.choice("on_failed", value, OnFailed)


READERS: dict[str, Callable[[str, Any], Any]] = {
    "text": _options.text,
    "optional_text": _options.optional_text,
    "texts": _options.texts,
    "rendered texts": lambda name, value: _options.texts(name, value, rendered=True),
    "instant": _instants.instant,
    "deadline": lambda name, value: _instants.deadline(name, value, DAY),
    "seconds": _options.seconds,
    "flag": _options.flag,
    "count": _options.count,
    "choice": lambda name, value: _options.choice(name, value, OnFailed),
    "require": _options.requirement,
}


@pytest.mark.parametrize("reader", READERS)
@given(value=ANYTHING)
@example(value=10**400)
@example(value="9" * 5000)
@example(value="[" * 100_000)
def test_whatever_is_given_there_is_a_value_or_an_error_that_names_the_argument(reader: str, value: Any):
    name = "the_argument"
    try:
        READERS[reader](name, value)
    except OptionError as error:
        said = str(error)
    else:
        return
    assert said.startswith(f"{name} ")
    assert len(said) < 300


# Together


def task(called_with: Iterable[str] = (), **values: Any) -> Any:
    return SimpleNamespace(task_id="wait_for_report", called_with=frozenset(called_with), **values)


def test_what_cannot_be_right_is_refused_while_the_dag_is_parsed():
    arguments = _options.Arguments(task(start_timeout="soon"), parsing=True)
    with pytest.raises(OptionError, match=r"^start_timeout must be "):
        arguments.read("start_timeout", _options.seconds, None)


@pytest.mark.parametrize("value", ["{{ x }}", ["m-1", "{{ x }}"], SimpleNamespace(operator="upstream")])
def test_what_a_template_will_give_is_not_checked_before(value: Any):
    arguments = _options.Arguments(task(mail_id=value), parsing=True)
    assert arguments.read("mail_id", _options.texts, ("unknown",)) == ("unknown",)


RUN_OF_A_REFRESH = {"dataset_id": "d", "job_id": "1"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mail_id", {"mail_id": "m-1"}, """.expand(mail_id=upstream.output.map(lambda m: m["mail_id"]))"""),
        ("mail_id", [{"mail_id": "m-1"}], """lambda m: m["mail_id"]"""),
        ("mail_id", "[{'mail_id': 'm-1', 'paused': False}]", """lambda m: m["mail_id"]"""),
        ("mail_id", '{"mail_id": "m-1"}', """lambda m: m["mail_id"]"""),
        ("mail_id", "[{'mail_id': '" + "m" * 300, """lambda m: m["mail_id"]"""),
        ("quickbi_task_id", {"task_id": "1"}, """quickbi_task_id="{{ ti.xcom_pull('upstream')['task_id'] }}\""""),
        ("quickbi_task_id", "{'task_id': '1'}", "['task_id']"),
        ("dataset_id", RUN_OF_A_REFRESH, """dataset_id="{{ ti.xcom_pull('upstream')['dataset_id'] }}\""""),
        ("dataset_id", str(RUN_OF_A_REFRESH), "['dataset_id']"),
    ],
)
def test_an_xcom_in_place_of_its_field_is_refused_with_the_way_to_write_it(name: str, value: Any, said: str):
    with pytest.raises(OptionError) as caught:
        _options.run_id(name, value) if name == "quickbi_task_id" else _options.texts(name, value, rendered=True)
    assert str(caught.value).startswith(
        (f"{name} must be text, not dict. ", f"{name} rendered to a dict: pass a single value. ")
    )
    assert said in str(caught.value)
    assert "listed" not in str(caught.value)


def test_a_wall_time_without_a_zone_and_a_misspelt_zone_get_what_to_write():
    with pytest.raises(OptionError, match="add the time zone, for example 09:00 Asia/Shanghai"):
        _instants.deadline("deadline", "09:00", DAY)
    with pytest.raises(OptionError, match=r"unknown time zone 'Asia/Shanghia'; did you mean Asia/Shanghai\?"):
        _instants.deadline("deadline", "09:00 Asia/Shanghia", DAY)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("09:00 shanghai", "'shanghai'; did you mean Asia/Shanghai?"),
        ("09:00 Asia/Peking", "'Asia/Peking'; write an IANA name"),
        ("09:00 CST", "'CST'; write an IANA name, for example Asia/Shanghai"),
        ("09:00+08:00", "'09:00+08:00': write the time and the name of a time zone, for example 09:00 Asia/Shanghai"),
        ("09:00 UTC+8", "'09:00 UTC+8': write the time and the name of a time zone"),
        ("9am Asia/Shanghai", "'9am Asia/Shanghai': write the time and the name of a time zone"),
    ],
)
def test_a_wall_time_in_another_notation_gets_what_to_write(value: str, said: str):
    with pytest.raises(OptionError, match=re.escape(said)):
        _instants.deadline("deadline", value, DAY)


def test_a_naive_time_is_in_the_zone_that_airflow_reads_naive_times_in():
    assert _instants.instant("executed_after", "2026-01-31T09:00:00", SHANGHAI) == datetime(2026, 1, 31, 1, tzinfo=UTC)


OVERRIDES = [
    (("mail_id",), ("subscribe_name",)),
    (("mail_id",), ("mail_owner",)),
    (("subscribe_name", "mail_owner"), ("mail_id",)),
]


def test_a_tasks_own_argument_wins_over_a_default_of_another():
    defaults = {"mail_id": "default-mail"}
    own = task({"subscribe_name"}, mail_id=defaults["mail_id"], subscribe_name="Daily", mail_owner=None)
    _options.settle_defaults(own, defaults, OVERRIDES, {}, {})
    assert (own.mail_id, own.subscribe_name) == (None, "Daily")
    _options.need_one_of(own, "mail_id", "subscribe_name")


def test_what_a_subclass_passes_on_is_the_tasks_own_argument():
    defaults = {"mail_id": "default-mail"}
    own = task(mail_id="m-1", subscribe_name=None, mail_owner="Wang")
    _options.settle_defaults(own, defaults | {"mail_owner": own.mail_owner}, OVERRIDES, {}, {})
    assert (own.mail_id, own.mail_owner) == ("m-1", None)


def test_both_of_two_own_arguments_stay_although_defaults_have_the_same_value():
    own = task({"mail_id", "subscribe_name"}, mail_id="m-1", subscribe_name="Daily", mail_owner=None)
    _options.settle_defaults(own, {"mail_id": own.mail_id}, OVERRIDES, {}, {})
    assert (own.mail_id, own.subscribe_name) == ("m-1", "Daily")


@pytest.mark.parametrize(
    ("own", "value", "expected"),
    [
        ((), "retry", "fail"),
        ((), "wait", "wait"),
        ((), "{{ params.x }}", "{{ params.x }}"),
        ((), "never", "never"),
        (("on_failed",), "retry", "retry"),
    ],
)
def test_only_a_default_that_another_class_takes_is_replaced(own: tuple[str, ...], value: str, expected: str):
    sensor = task(own, on_failed=value)
    _options.settle_defaults(sensor, {"on_failed": value}, [], {"on_failed": "fail"}, {"on_failed": OnRunFailed})
    assert sensor.on_failed == expected


@pytest.mark.parametrize(("values", "said"), [((None, None), "needs either mail_id or"), (("m", "n"), "not both")])
def test_one_of_two_arguments_is_needed(values: tuple[Any, Any], said: str):
    with pytest.raises(OptionError, match=said):
        _options.need_one_of(task(mail_id=values[0], subscribe_name=values[1]), "mail_id", "subscribe_name")


# Templates


@pytest.mark.parametrize("value", ["{{ ds }}", "a {{ x }} b", "{% if x %}y{% endif %}", SimpleNamespace(), lambda: 1])
def test_what_is_only_known_when_the_task_runs_is_a_template(value: Any):
    assert _options.is_template(value)


@pytest.mark.parametrize(
    "value", [None, "m-1", "{ x }", "", 7, 1.5, True, [], (), {}, DAY, timedelta(1), time(9), DAY.date()]
)
def test_plain_data_is_no_template(value: Any):
    assert not _options.is_template(value)
