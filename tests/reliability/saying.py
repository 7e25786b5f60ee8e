"""Gives values and errors out in every form in which somebody could get to see them."""

from __future__ import annotations

import json
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any


def say(what: str, *values: Any) -> None:
    """Give out values as ``str``, ``repr`` and, where that is possible, JSON.

    :param what: the way that is gone; the search names it.
    :param values: what came out.
    """
    print(f"== {what}", flush=True)
    for value in values:
        if isinstance(value, BaseException):
            say_error(value)
            continue
        print(f"{value}\n{value!r}\n{value!a}")
        try:
            print(json.dumps(value), json.dumps(value, ensure_ascii=False))
        except (TypeError, ValueError):
            continue
    sys.stdout.flush()


def say_error(error: BaseException) -> None:
    """Give out an error as a crash dump would: with its whole chain, and with the local variables of every frame."""
    print(repr(error), error.args, repr(vars(error)))
    for dump in (
        traceback.TracebackException.from_exception(error, capture_locals=True),
        *(traceback.TracebackException.from_exception(one, capture_locals=True) for one in chain(error)),
    ):
        print("".join(dump.format()))
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made just before
    except (TypeError, AttributeError, pickle.PicklingError):
        return
    print(repr(again), again)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Give the causes and contexts of an error, also those that are not shown."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [one.__cause__, one.__context__]


def tried(what: str, call: Callable[[], Any]) -> Any:
    """Give out what a call gives or raises, and return it."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    try:
        found = call()
    except TaskDeferred:
        raise
    except Exception as error:  # noqa: BLE001 - whatever comes out
        say(what, error)
        return error
    say(what, found)
    return found
