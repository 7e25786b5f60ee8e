"""The mail tasks of an account, listed once for all waits in the triggerer that look a name up at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.hooks.quickbi import LOOKUP_PAGE_SIZE

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.client import AsyncQuickBIClient
    from airflow_provider_quickbi.api.models import MailTask

#: Seconds for which a list, or an error, is reused.
FRESH_SECONDS = 10.0


@dataclass(slots=True)
class _Listing:
    """The latest outcome, and the lock that lets one wait at a time refresh it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    outcome: list[MailTask] | QuickBIError | None = None
    received_at: float = 0.0


_LISTINGS: WeakKeyDictionary[AsyncQuickBIClient, _Listing] = WeakKeyDictionary()


async def list_mail_tasks(client: AsyncQuickBIClient) -> list[MailTask]:
    """Return all mail tasks that the AccessKey may see, as they were at most :data:`FRESH_SECONDS` ago.

    :raises QuickBIError: if they could not be listed.
    """
    listing = _LISTINGS.setdefault(client, _Listing())
    async with listing.lock:
        if listing.outcome is None or CLOCK.monotonic() - listing.received_at > FRESH_SECONDS:
            try:
                listing.outcome = [mail_task async for mail_task in client.iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE)]
            except QuickBIError as error:
                listing.outcome = error
            listing.received_at = CLOCK.monotonic()
    if isinstance(listing.outcome, QuickBIError):
        raise listing.outcome.with_traceback(None)
    return listing.outcome
