"""Instants, deadlines and the time zones that they are in."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi import _instants
from airflow_provider_quickbi._options import OptionError

from .values import DAY, DIGITS_OF_ANOTHER_SCRIPT, SHANGHAI, WITHOUT_ZONE


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (datetime(2026, 7, 1, 8, tzinfo=SHANGHAI), datetime(2026, 7, 1, tzinfo=UTC)),
        (WITHOUT_ZONE, datetime(2026, 7, 1, 9, tzinfo=UTC)),
        ("2026-07-01T08:00:00+08:00", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-07-01 08:00:00+08:00", datetime(2026, 7, 1, tzinfo=UTC)),
        (" 2026-07-01T00:00:00Z ", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-07-01", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-07-01T00:00:00.123456", datetime(2026, 7, 1, 0, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_an_instant_is_a_datetime_or_its_text_and_in_utc_without_a_zone(value: Any, expected: datetime | None):
    found = _instants.instant("executed_after", value)
    assert found == expected
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "executed_after is '', which is not a valid datetime, for example {{ data_interval_end }}"),
        ("None", "executed_after is 'None', which is not a valid datetime"),
        ("yesterday", "executed_after is 'yesterday', which is not a valid datetime"),
        ("1782864000", "which is not a valid datetime"),
        (1782864000, "executed_after must be a datetime or ISO 8601 text, for example {{ data_interval_end }}"),
        (date(2026, 7, 1), "not date"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "out of range"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "out of range"),
    ],
)
def test_what_is_no_instant_is_refused(value: Any, said: str):
    with pytest.raises(OptionError) as caught:
        _instants.instant("executed_after", value)
    assert said in str(caught.value)
    assert str(caught.value).startswith("executed_after ")


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_every_datetime_is_the_same_instant_as_its_text(value: datetime):
    def read(given: Any) -> Any:
        try:
            return _instants.instant("executed_after", given)
        except OptionError as error:
            return str(error)

    assert read(value) == read(value.isoformat())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("09:00 Asia/Shanghai", datetime(2026, 7, 2, 9, tzinfo=SHANGHAI)),
        (" 9:00  Asia/Shanghai ", datetime(2026, 7, 2, 9, tzinfo=SHANGHAI)),
        ("9:00:30 Asia/Shanghai", datetime(2026, 7, 2, 9, 0, 30, tzinfo=SHANGHAI)),
        ("23:59:59 UTC", datetime(2026, 7, 1, 23, 59, 59, tzinfo=UTC)),
        ("00:00 America/New_York", datetime(2026, 7, 1, tzinfo=ZoneInfo("America/New_York"))),
        ("09:00 Etc/GMT+5", datetime(2026, 7, 1, 9, tzinfo=ZoneInfo("Etc/GMT+5"))),
        ("2026-07-01T09:00:00+08:00", datetime(2026, 7, 1, 9, tzinfo=SHANGHAI)),
        (WITHOUT_ZONE, datetime(2026, 7, 1, 9, tzinfo=UTC)),
        (None, None),
    ],
)
def test_a_deadline_is_an_instant_or_a_wall_time_on_the_day_of_the_run(value: Any, expected: datetime | None):
    assert _instants.deadline("deadline", value, DAY) == expected


@pytest.mark.parametrize(
    "value",
    [
        "25:00 UTC",
        "09:61 UTC",
        "09:00 Mars/Base",
        "09:00",
        "UTC 09:00",
        "09:00 Asia",
        DIGITS_OF_ANOTHER_SCRIPT,
        "9 UTC",
    ],
)
def test_what_is_no_deadline_is_refused(value: str):
    with pytest.raises(OptionError, match=r"^deadline (is|names the unknown time zone) "):
        _instants.deadline("deadline", value, DAY)


@pytest.mark.parametrize("value", [time(9), date(2026, 7, 1), 9, "0900", "9", "09\uff1a00 Asia/Shanghai", "tomorrow"])
def test_what_is_no_deadline_is_refused_with_a_wall_time_as_an_example(value: Any):
    with pytest.raises(OptionError, match=r"^deadline .*for example 09:00 Asia/Shanghai, \{\{ data_interval_end"):
        _instants.deadline("deadline", value, DAY)
