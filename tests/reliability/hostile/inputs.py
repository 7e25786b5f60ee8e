"""Inputs that are made up for each parser, and what a parser may make of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api import errors, operations, responses
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

M = MailTaskSubject("m")

#: Seconds that anything here may take on a machine that is very busy.
BOUND = 60.0

#: Bytes that reading any response may take: the most that is read, once in parts and once as a whole, and some more.
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


class BothClients:
    """Both clients, called in the same way.

    :param settings: of the clients.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._runner = asyncio.Runner()
        self._blocking = QuickBIClient(settings)
        self._asyncio = AsyncQuickBIClient(settings)

    def each(self, operation: operations.Operation[Any]) -> Iterator[Any]:
        """Call with one client after the other; yield the result, or the error that it raised."""
        for call in (self._call_blocking, self._call_asyncio):
            try:
                yield call(operation)
            except errors.QuickBIError as error:
                yield error

    def __call__(self, operation: operations.Operation[Any]) -> list[Any]:
        """Return what the two got."""
        return list(self.each(operation))

    def _call_blocking(self, operation: operations.Operation[Any]) -> Any:
        return self._blocking.do(operation, retries=NO_RETRY)

    def _call_asyncio(self, operation: operations.Operation[Any]) -> Any:
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
def both_clients(settings: ClientSettings) -> Iterator[BothClients]:
    clients = BothClients(settings)
    try:
        yield clients
    finally:
        clients.close()
