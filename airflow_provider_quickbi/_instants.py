"""Instants as DAG authors and templates write them, read as typed values."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, tzinfo
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from airflow_provider_quickbi._options import OptionError

_WALL_TIME_EXAMPLE = "09:00 Asia/Shanghai"
_WALL_TIME_WANTED = f"write the time and the name of a time zone, for example {_WALL_TIME_EXAMPLE}"
_EXAMPLE = "{{ data_interval_end }} or 2026-01-31T09:00:00+08:00"
_WALL_TIME = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?)(?:\s+([A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*))?")
_BEGINS_WITH_TIME = re.compile(r"\d{1,2}(:|\s*[ap]\.?m\b)", re.IGNORECASE)


def instant(name: str, value: Any, zone: tzinfo = UTC, example: str = _EXAMPLE) -> datetime | None:
    """Return an instant in UTC.

    :param value: a datetime or ISO 8601 text.
    :param zone: of a value that names none.
    :param example: what the error shows.
    :raises OptionError: if it is neither.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            wrong = f"{value[:60]!r}, which is not a valid datetime, for example {example}"
            raise OptionError(f"{name} is {wrong}") from None
    if not isinstance(value, datetime):
        wanted = f"a datetime or ISO 8601 text, for example {example}"
        raise OptionError(f"{name} must be {wanted}, not {type(value).__name__}")
    aware = value if value.tzinfo is not None else value.replace(tzinfo=zone)
    try:
        aware.timestamp()
        return aware.astimezone(UTC)
    except (OverflowError, ValueError):
        raise OptionError(f"{name} is {value.isoformat()}, which is out of range") from None


def deadline(name: str, value: Any, day_of: datetime, zone: tzinfo = UTC) -> datetime | None:
    """Return an instant, which may also be written as a wall time in a zone, such as ``09:00 Asia/Shanghai``.

    :param value: an instant as :func:`instant` takes it, or a wall time.
    :param day_of: a wall time is on the day on which this instant falls in that zone.
    :param zone: of an instant that names none.
    :raises OptionError: if it is neither.
    """
    if isinstance(value, str) and (found := _WALL_TIME.fullmatch(value.strip())):
        written, zone_name = found.groups()
        if zone_name is None:
            raise OptionError(f"{name} is {value.strip()!r}: add the time zone, for example {written} Asia/Shanghai")
        try:
            wall = time.fromisoformat(f"0{written}" if written[1] == ":" else written)
        except ValueError:
            raise OptionError(f"{name} is {value[:60]!r}, which is not a time of day: {_WALL_TIME_WANTED}") from None
        try:
            wall_zone = ZoneInfo(zone_name)
        except (KeyError, ValueError, OSError):
            unknown = f"the unknown time zone {zone_name[:60]!r}{_nearest_zone(zone_name)}"
            raise OptionError(f"{name} names {unknown}") from None
        return datetime.combine(day_of.astimezone(wall_zone).date(), wall, wall_zone)
    if isinstance(value, str) and _BEGINS_WITH_TIME.match(value.strip()):
        raise OptionError(f"{name} is {value.strip()[:60]!r}: {_WALL_TIME_WANTED}")
    return instant(name, value, zone, f"{_WALL_TIME_EXAMPLE}, {_EXAMPLE}")


def _nearest_zone(name: str) -> str:
    zones = sorted(available_timezones())  # a city alone is enough
    known = {key: zone for zone in zones for key in (zone.lower(), zone.rpartition("/")[2].lower())}
    found = get_close_matches(name.lower(), known, n=1, cutoff=0.85)
    return f"; did you mean {known[found[0]]}?" if found else "; write an IANA name, for example Asia/Shanghai"
