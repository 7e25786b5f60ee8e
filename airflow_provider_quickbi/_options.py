"""Arguments as DAG authors and templates give them, read as values; every error names the argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_EXAMPLE = "{{ data_interval_end }} or 2026-01-31T09:00:00+08:00"
_WALL_TIME = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?)\s+([A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*)")

MAX_ID_LENGTH = 256


class ArgumentError(ValueError):
    """An argument of a task is missing or is not what it must be; the message names it."""


def is_template(value: Any) -> bool:
    """Whether a value is only known when the task runs: a template, or something that is not plain data."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return value is not None and not isinstance(value, (int, float, bool, list, tuple, dict, datetime, timedelta))


def _written(value: Any) -> str:
    """Return a value as text, whatever it is."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to be written"


def text(name: str, value: Any) -> str | None:
    """Return stripped text; ``None`` for nothing at all.

    :raises ArgumentError: if it is empty, ``None`` written out, too long, or no text.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 10**MAX_ID_LENGTH:
            raise ArgumentError(f"{name} has more than {MAX_ID_LENGTH} digits")
        value = str(value)
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be text, not {type(value).__name__}")
    stripped = value.strip()
    if stripped in ("", "None"):
        raise ArgumentError(f"{name} is empty; if it is a template, it rendered to {value[:20]!r}")
    if len(stripped) > MAX_ID_LENGTH:
        raise ArgumentError(f"{name} has {len(stripped):,} characters, more than {MAX_ID_LENGTH}")
    if any(ord(character) < 32 or ord(character) == 127 for character in stripped):
        raise ArgumentError(f"{name} has a line break or another control character")
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{name} is not valid Unicode text") from None
    return stripped


def optional_text(name: str, value: Any) -> str | None:
    """Return stripped text; ``None`` also for what a template has rendered to nothing.

    :raises ArgumentError: if it is too long or no text.
    """
    if isinstance(value, str) and value.strip() in ("", "None"):
        return None
    return text(name, value)


def texts(name: str, value: Any, *, rendered: bool = False) -> tuple[str, ...]:
    """Return one text or several; a list must hold at least one, each once.

    :param name: of the argument.
    :param value: what :func:`as_list` takes for a list, or one text.
    :param rendered: whether a template gave the value.
    :raises ArgumentError: as :func:`text`, or if one is given twice.
    """
    if value is None:
        return ()
    several = as_list(value, rendered=rendered)
    if several is None:
        single = text(name, value)
        return () if single is None else (single,)
    if not several:
        raise ArgumentError(f"{name} is an empty list")
    found = tuple(one for item in several if (one := text(name, item)) is not None)
    if len(found) < len(several):
        raise ArgumentError(f"{name} has nothing (None) in its list")
    if len(set(found)) < len(found):
        raise ArgumentError(f"{name} names the same one twice")
    return found


def as_list(value: Any, *, rendered: bool) -> Sequence[Any] | None:
    """Return an argument that is a list, ``None`` if it is not; this alone decides whether a task names several.

    A list is a list. Text is one only if a template gave it and it is a list of texts as Python or JSON writes it, some
    of which may have been rendered to nothing (``None``): a name may begin with a bracket.

    :param value: of the argument.
    :param rendered: whether a template gave it.
    """
    if isinstance(value, str):
        return _decoded_list(value.strip()) if rendered and value.strip().startswith("[") else None
    return value if isinstance(value, Sequence) else None


def _decoded_list(value: str) -> list[Any] | None:
    import ast
    import json

    for read in (json.loads, ast.literal_eval):
        try:
            decoded = read(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(decoded, list) and all(item is None or isinstance(item, str) for item in decoded):
            return decoded
    return None


def instant(name: str, value: Any) -> datetime | None:
    """Return an instant; without a zone it is UTC, as everywhere in Airflow.

    :raises ArgumentError: if it is no datetime and no ISO 8601 text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ArgumentError(f"{name} is {value[:60]!r}, which is no instant; give one such as {_EXAMPLE}") from None
    if not isinstance(value, datetime):
        raise ArgumentError(
            f"{name} must be a datetime or ISO 8601 text such as {_EXAMPLE}, not {type(value).__name__}"
        )
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        aware.timestamp()
        return aware.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ArgumentError(f"{name} is {value.isoformat()}, which is out of range") from None


def deadline(name: str, value: Any, day_of: datetime) -> datetime | None:
    """Return an instant, which may also be written as a wall time in a zone, such as ``09:00 Asia/Shanghai``.

    :param name: of the argument.
    :param value: an instant as :func:`instant` takes it, or a wall time.
    :param day_of: a wall time is on the day on which this instant falls in that zone.
    :raises ArgumentError: if it is neither.
    """
    if isinstance(value, str) and (found := _WALL_TIME.fullmatch(value.strip())):
        try:
            zone = ZoneInfo(found.group(2))
            written = found.group(1)
            wall = time.fromisoformat(f"0{written}" if written[1] == ":" else written)
        except (KeyError, ValueError, OSError):
            raise ArgumentError(f"{name} is {value[:60]!r}; write a wall time as 09:00 Asia/Shanghai") from None
        return datetime.combine(day_of.astimezone(zone).date(), wall, zone)
    return instant(name, value)


def seconds(name: str, value: Any) -> float | None:
    """Return seconds of a number, a timedelta, or a number written as text; ``None`` for no limit.

    :raises ArgumentError: if it is something else or negative.
    """
    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{name} must be seconds or a timedelta, not {_written(value)[:60]!r}") from None
    if not 0 <= number < 1e10:
        raise ArgumentError(f"{name} must be a number of seconds from 0, not {number:g}")
    return number


def flag(name: str, value: Any) -> bool | None:
    """Return a boolean, which a template may have rendered to text; ``None`` for neither.

    :raises ArgumentError: if it is something else.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.strip() in ("", "None"):
            return None
        if value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
    raise ArgumentError(f"{name} must be true or false, not {_written(value)[:60]!r}")


def count(name: str, value: Any) -> int | None:
    """Return a whole number from 1, which a template may have rendered to text; ``None`` for no limit.

    :raises ArgumentError: if it is something else.
    """
    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        return None
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= 1_000_000_000:
        raise ArgumentError(f"{name} must be a whole number from 1, not {_written(value)[:60]!r}")
    return number


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of the choices.

    :raises ArgumentError: if it is something else.
    """
    chosen = value.strip() if isinstance(value, str) else value
    if chosen not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {_written(value)[:60]!r}")
    return str(chosen)


def check_known(task: Any, readers: Mapping[str, Callable[[str, Any], Any]]) -> None:
    """Refuse, while the DAG is parsed, arguments that cannot be right whatever the templates render to.

    :param task: the operator.
    :param readers: how each argument is read.
    :raises ArgumentError: for the first one that is wrong.
    """
    for name, read in readers.items():
        value = getattr(task, name)
        several = value if isinstance(value, (list, tuple)) else [value]
        if not any(is_template(item) for item in several):
            read(name, value)


def read_all(task: Any, readers: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """Return rendered arguments as values.

    :param task: the operator.
    :param readers: how each argument is read.
    :raises AirflowFailException: naming the task and the argument that is wrong.
    """
    from airflow.providers.common.compat.sdk import AirflowFailException

    try:
        return {name: read(name, getattr(task, name)) for name, read in readers.items()}
    except ArgumentError as error:
        raise AirflowFailException(f"{task.task_id}: {error}") from None


def required_of(value: Any, total: int) -> int:
    """Return how many of several mail tasks must go out.

    :param value: ``all``, ``any`` or a number.
    :param total: how many mail tasks there are.
    :raises ArgumentError: if it is something else or more than there are.
    """
    if value == "all":
        return total
    if value == "any":
        return 1
    try:
        number = count("require", value)
    except ArgumentError:
        number = None
    if number is None or number > total:
        raise ArgumentError(f"require must be all, any or a number up to {total}, not {_written(value)[:60]!r}")
    return number
