"""Both clients called in the same way, so that one test proves a rule for the blocking and the asyncio one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.flow import AcquireSlot, Pause, Step
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

#: Seconds after which a call that should long have ended fails its test.
BOUND = 30.0


class _Blocking(QuickBIClient):
    """Notes the pauses that it would make, and makes none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pauses: list[float] = []

    def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pauses.append(step.seconds)
        if isinstance(step, AcquireSlot):
            return step.rate_limiter.try_acquire()
        return super()._carry_out(step)


class _Asyncio(AsyncQuickBIClient):
    """Notes the pauses that it would make, and makes none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pauses: list[float] = []

    async def _carry_out(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pauses.append(step.seconds)
        if isinstance(step, AcquireSlot):
            return step.rate_limiter.try_acquire()
        return await super()._carry_out(step)


class Caller:
    """A client of one kind; its methods are called and return without ``await``.

    :param kind: ``blocking`` or ``asyncio``.
    :param settings: of the client.
    :param options: of the client.
    """

    def __init__(self, kind: str, settings: ClientSettings, **options: Any) -> None:
        self.kind = kind
        self.runner = asyncio.Runner()
        self.client: Any = (_Blocking if kind == "blocking" else _Asyncio)(settings, **options)

    @property
    def pauses(self) -> list[float]:
        """The seconds of each pause that the client wanted to make."""
        return self.client.pauses

    def wait_for(self, result: Any) -> Any:
        """Return what a method of the client gave, once it is there."""
        if not hasattr(result, "__await__"):
            return result

        async def bounded() -> Any:
            async with asyncio.timeout(BOUND):
                return await result

        return self.runner.run(bounded())

    def iter_mail_tasks(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Give mail tasks one by one as the client gives them."""
        stream = self.client.iter_mail_tasks(*args, **kwargs)
        if self.kind == "blocking":
            yield from stream
            return
        while True:
            try:
                yield self.wait_for(anext(stream))
            except StopAsyncIteration:
                return

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.wait_for(method(*args, **kwargs))

    def end(self) -> None:
        """Close the client and its event loop."""
        self.wait_for(self.client.close())
        self.runner.close()


def settings_for(quickbi: LocalQuickBI, **changes: Any) -> ClientSettings:
    """Return settings for a local Quick BI; ``changes`` are fields of ``ClientSettings``."""
    settings = ClientSettings(
        endpoint=Endpoint(quickbi.host, quickbi.scheme, quickbi.port),
        credentials=CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret=quickbi.access_key_secret
        ),
        status_calls_per_second=1000.0,
        connect_timeout=5.0,
        read_timeout=10.0,
    )
    return replace(settings, **changes)


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture
def connect(kind: str, quickbi: LocalQuickBI) -> Iterator[Callable[..., Caller]]:
    """Make clients of the kind for the local Quick BI or another one; fields of the settings may be changed."""
    callers: list[Caller] = []

    def make(to: LocalQuickBI | None = None, *, retries: Any = None, on_call: Any = None, **changes: Any) -> Caller:
        caller = Caller(kind, settings_for(to or quickbi, **changes), retries=retries, on_call=on_call)
        callers.append(caller)
        return caller

    yield make
    for caller in callers:
        caller.end()


@pytest.fixture
def client(connect: Callable[..., Caller]) -> Caller:
    """A client of the kind for the local Quick BI."""
    return connect()


@pytest.fixture
def settings_of() -> Callable[..., ClientSettings]:
    """Return settings for a local Quick BI."""
    return settings_for
