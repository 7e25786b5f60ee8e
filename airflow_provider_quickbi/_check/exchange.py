"""A client that keeps every request and response it exchanged, so that they can be inspected and recorded."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.clock import Clock as ClientClock
from airflow_provider_quickbi.api.flow import AcquireSlot, Send
from airflow_provider_quickbi.api.responses import header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from airflow_provider_quickbi.api.flow import Step
    from airflow_provider_quickbi.api.settings import ClientSettings

#: Query parameters that belong to the protocol, not to the operation.
_ENVELOPE = frozenset({"Action", "Version", "Format", "SignatureType"})


@dataclass(eq=False, slots=True)
class Clock(ClientClock):
    """Where a check takes the time from; tests replace it.

    :param wall: seconds since the epoch of this machine, compared with the service's ``Date``; runs are compared by
        ``time``.
    """

    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came back.

    :param action: the operation.
    :param parameters: as they were sent.
    :param sent_at: seconds since the epoch.
    :param elapsed: seconds until the response had been read, or until it was given up.
    :param status: HTTP status; ``None`` if there was no response.
    :param headers: of the response.
    :param body: of the response; not shown by ``repr``.
    :param wall: seconds since the epoch of this machine half-way through the exchange.
    """

    action: str
    parameters: Mapping[str, str] = field(repr=False)
    sent_at: float
    elapsed: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    wall: float = 0.0

    def json(self) -> Any:
        """Return the decoded body, or ``None`` if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def envelope(self) -> dict[str, Any]:
        """The body's object with its keys in lower case; empty if it is not an object."""
        body = self.json()
        return {str(key).lower(): value for key, value in body.items()} if isinstance(body, dict) else {}

    @property
    def code(self) -> str:
        """The ``Code`` of an error; empty if there is none."""
        code = self.envelope.get("code")
        return code if isinstance(code, str) else ""

    @property
    def result(self) -> Any:
        """The ``Result`` as the service wrote it."""
        return self.envelope.get("result")

    @property
    def date(self) -> datetime | None:
        """The service's time according to the header ``Date``; ``None`` without a valid one."""
        try:
            return parsedate_to_datetime(header(self.headers, "date"))
        except ValueError:
            return None


class ObservedClient(QuickBIClient):
    """The provider's client, keeping its exchanges.

    :param settings: the account and how to reach it.
    """

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        super().__init__(settings, clock=ClientClock(sleep=clock.sleep))
        self.exchanges: list[Exchange] = []
        self.paced = True
        self._now = clock

    def of(self, action: str) -> list[Exchange]:
        """Return the exchanges of an operation."""
        return [exchange for exchange in self.exchanges if exchange.action == action]

    def _carry_out(self, step: Step) -> Any:
        if isinstance(step, AcquireSlot) and not self.paced:
            return None
        if not isinstance(step, Send):
            return super()._carry_out(step)
        parameters = {
            name: value for name, value in parse_qsl(urlsplit(step.request.url).query) if name not in _ENVELOPE
        }
        sent_at, wall, started = self._now.time(), self._now.wall(), self._now.monotonic()
        status, headers, body = None, {}, b""
        try:
            response = super()._carry_out(step)
            status, headers, body = response[0], dict(response[1]), response[2]
            return response
        finally:
            elapsed = self._now.monotonic() - started
            self.exchanges.append(
                Exchange(step.action, parameters, sent_at, elapsed, status, headers, body, wall + elapsed / 2)
            )
