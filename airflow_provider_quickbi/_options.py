"""Arguments of tasks as DAG authors and templates give them, read as typed values.

What cannot be read as such is an :class:`OptionError`, which names the argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E", bound=StrEnum)


MAX_ID_LENGTH = 256
#: How a template writes a dict, or a list of them, unless it renders native objects.
_DICT = re.compile(r"""\[?\{(['"])\w+\1: """)


class OptionError(ValueError):
    """An argument of a task is missing or wrong; the message names it, what is wrong, and what to write."""


def is_template(value: Any) -> bool:
    """Whether a value is only known when the task runs: a template, or something that is not plain data."""
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, (list, tuple)):
        return any(is_template(item) for item in value if not isinstance(item, (list, tuple)))
    return value is not None and not isinstance(value, (int, float, bool, dict, date, time, timedelta))


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a task, to be read as typed values.

    :param task: the operator, or what has its arguments as attributes.
    :param parsing: whether the DAG is being parsed, when templates are not rendered yet.
    :param rendered: names of those that were templates and may have been rendered to a list.
    """

    task: Any
    parsing: bool = False
    rendered: frozenset[str] = frozenset()

    def read(self, name: str, parse: Callable[[str, Any], T], unknown: U) -> T | U:
        """Return an argument as a value.

        :param unknown: stands in for a template while the DAG is parsed.
        """
        value = getattr(self.task, name)
        if self.parsing and is_template(value):
            return unknown
        return parse(name, value)

    def given(self, name: str) -> bool:
        """Whether an argument has a value, be it a template."""
        return getattr(self.task, name) is not None

    def names_several(self, *names: str) -> bool:
        """Whether the first of these arguments that has a value is a list."""
        given = next((name for name in names if getattr(self.task, name, None) is not None), None)
        return given is not None and as_list(getattr(self.task, given), rendered=given in self.rendered) is not None


def _written(value: Any) -> str:
    """Return a value as text, whatever it is."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to be written"


def _is_nothing(value: Any) -> bool:
    """Whether a value is ``None``, or what a template has rendered to nothing."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def how_to_take(name: str, container: Any) -> str:
    """Say how to take one value out of another task's XCom.

    :param name: of the argument.
    :param container: a dict, or one written as text.
    """
    key = "task_id" if name == "quickbi_task_id" else name
    if key not in container:
        return ""
    one = f"{name}=\"{{{{ ti.xcom_pull('upstream')['{key}'] }}}}\""
    each = f'.expand({name}=upstream.output.map(lambda m: m["{key}"]))'
    return f". To use another task's XCom, write {one}, or, for a list, {each}"


def text(name: str, value: Any) -> str | None:
    """Return stripped text; ``None`` for nothing at all.

    :raises OptionError: if it is empty, ``None`` written out, too long, or no text.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 10**MAX_ID_LENGTH:
            raise OptionError(f"{name} has more than {MAX_ID_LENGTH} digits")
        value = str(value)
    if not isinstance(value, str):
        how = how_to_take(name, value) if isinstance(value, Mapping) else ""
        raise OptionError(f"{name} must be text, not {type(value).__name__}{how}")
    stripped = value.strip()
    if _DICT.match(stripped):
        raise OptionError(f"{name} rendered to a dict: pass a single value{how_to_take(name, stripped)}")
    if stripped in ("", "None"):
        raise OptionError(f"{name} is empty (rendered to {value[:20]!r})")
    if len(stripped) > MAX_ID_LENGTH:
        raise OptionError(f"{name} has {len(stripped):,} characters, more than {MAX_ID_LENGTH}")
    if any(ord(character) < 32 or ord(character) == 127 for character in stripped):
        raise OptionError(f"{name} has a line break or another control character")
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{name} is not valid Unicode text") from None
    return stripped


def optional_text(name: str, value: Any) -> str | None:
    """Return stripped text; ``None`` also for what a template has rendered to nothing.

    :raises OptionError: if it is too long or no text.
    """
    return None if _is_nothing(value) else text(name, value)


def texts(name: str, value: Any, *, rendered: bool = False) -> tuple[str, ...]:
    """Return one text or several; a list must hold at least one, each once.

    :param value: what :func:`as_list` takes for a list, or one text.
    :param rendered: whether a template gave the value.
    :raises OptionError: as :func:`text`, or if one is given twice.
    """
    if value is None:
        return ()
    several = as_list(value, rendered=rendered)
    if several is None:
        single = text(name, value)
        return () if single is None else (single,)
    if not several:
        raise OptionError(f"{name} is an empty list")
    found = tuple(one for item in several if (one := text(name, item)) is not None)
    if len(found) < len(several):
        raise OptionError(f"{name} has an empty item (None) in its list")
    if len(set(found)) < len(found):
        raise OptionError(f"{name} lists {next(one for one in found if found.count(one) > 1)!r} twice")
    return found


def as_list(value: Any, *, rendered: bool) -> Sequence[Any] | None:
    """Return an argument that is a list, ``None`` if it is not; this alone decides whether a task names several.

    A list is a list. Text is one only if a template gave it and it is a list of texts as Python or JSON writes it, some
    of which may have been rendered to nothing (``None``): a name may start with a bracket.

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


def run_id(name: str, value: Any) -> str | None:
    """Return a TaskId as text."""
    written = text(name, value)
    if written is not None and not (written.isascii() and written.isdigit() and len(written) <= 20):
        raise OptionError(f"{name} must be a whole number, for example 7218865303929605212, not {written[:60]!r}")
    return written


def seconds(name: str, value: Any) -> float | None:
    """Return seconds of a number, a timedelta, or a number written as text; ``None`` for no limit.

    :raises OptionError: if it is something else or negative.
    """
    if _is_nothing(value):
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"{name} must be seconds or a timedelta, not {_written(value)[:60]!r}") from None
    if not 0 <= number < 1e10:
        raise OptionError(f"{name} must be 0 or more seconds, not {number:g}")
    return number


def flag(name: str, value: Any) -> bool | None:
    """Return a boolean, which a template may have rendered to text; ``None`` for neither."""
    if _is_nothing(value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise OptionError(f"{name} must be true or false, not {_written(value)[:60]!r}")


def count(name: str, value: Any) -> int | None:
    """Return a whole number from 1, which a template may have rendered to text; ``None`` for no limit."""
    if _is_nothing(value):
        return None
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= 1_000_000_000:
        raise OptionError(f"{name} must be a whole number of 1 or more, not {_written(value)[:60]!r}")
    return number


def choice(name: str, value: Any, choices: type[E]) -> E:
    """Return one of the choices."""
    chosen = value.strip() if isinstance(value, str) else value
    if chosen not in list(choices):
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {_written(value)[:60]!r}")
    return choices(chosen)


def requirement(name: str, value: Any) -> str | int:
    """Return how many of several mail tasks must be sent: ``all``, ``any`` or a number."""
    if value in ("all", "any"):
        return str(value)
    try:
        number = count(name, value)
    except OptionError:
        number = None
    if number is None:
        raise OptionError(f"{name} must be all, any or a number, not {_written(value)[:60]!r}")
    return number


def required_of(require: str | int, total: int) -> int:
    """Return how many of several mail tasks must be sent.

    :param require: as :func:`requirement` returns it.
    :param total: how many mail tasks there are.
    :raises OptionError: if it is more than there are.
    """
    if isinstance(require, str):
        return total if require == "all" else 1
    if require > total:
        tasks = "mail task is" if total == 1 else "mail tasks are"
        raise OptionError(f"require is {require}, but {total} {tasks} given")
    return require


def need_one_of(task: Any, first: str, second: str) -> None:
    """Refuse a task that has neither of two arguments, or both."""
    given = [name for name in (first, second) if getattr(task, name) is not None]
    if not given:
        raise OptionError(f"{type(task).__name__} needs either {first} or {second}")
    if len(given) > 1:
        raise OptionError(f"{type(task).__name__} takes either {first} or {second}, not both")


def refuse_owner_of_id(mail_id: object, owner: object) -> None:
    """Refuse the owner of a mail task whose id is given, be they templates."""
    if mail_id and owner:
        raise OptionError("mail_owner applies only to subscribe_name: remove it, since mail_id is set")


def refuse_template(name: str, value: Any) -> None:
    """Refuse a value that is only known when a task runs, where nothing renders it.

    :param name: of the argument.
    :param value: of it.
    :raises OptionError: if it is a template.
    """
    if is_template(value):
        raise OptionError(f"{name} does not support templates: write a literal value, not {value!r}")


def settle_defaults(
    task: Any,
    default_args: Mapping[str, Any] | None,
    overrides: Sequence[tuple[Sequence[str], Sequence[str]]],
    unset_values: Mapping[str, Any],
    other_choices: Mapping[str, type[StrEnum]],
) -> None:
    """Let a task's explicit arguments override ``default_args``, and unset defaults that are meant for other classes.

    Explicit arguments are those passed to the constructor, including by a subclass, unless the object is the one in
    ``default_args``.

    :param task: the operator, with its arguments set.
    :param default_args: that apply to it.
    :param overrides: pairs (winners, losers): an explicit winner unsets the losers, unless a loser is explicit, too.
    :param unset_values: of arguments that are not set, where that is not ``None``.
    :param other_choices: choices of other classes, by argument.
    """
    defaults = default_args or {}

    def explicit(name: str) -> bool:
        value = getattr(task, name)
        passed_on = value != unset_values.get(name) and value is not defaults.get(name)
        return value is not None and (name in task.called_with or passed_on)

    for winners, losers in overrides:
        if any(map(explicit, winners)) and not any(map(explicit, losers)):
            for name in losers:
                setattr(task, name, unset_values.get(name))
    for name, choices in other_choices.items():
        if not explicit(name) and getattr(task, name) in list(choices):
            setattr(task, name, unset_values[name])
