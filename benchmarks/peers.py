"""What this provider is compared with: waits as peers write them on the official SDK, and bare ``aiohttp``."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.waits import Outcomes


def official_client(connection: dict[str, Any]) -> Any:
    """Return a client of Alibaba Cloud's SDK.

    :param connection: the Airflow connection.
    """
    from alibabacloud_quickbi_public20220101.client import Client
    from alibabacloud_tea_openapi.models import Config

    return Client(
        Config(
            access_key_id=connection["login"],
            access_key_secret=connection["password"],
            endpoint=f"{connection['host']}:{connection['port']}",
            protocol=connection["schema"].upper(),
            ca=connection["extra"].get("verify"),
        )
    )


def wait_for_all(
    started: Callable[[], None],
    mail_ids: Sequence[str],
    poke_interval: float,
    strict: bool,
) -> Outcomes:
    """Wait for the delivery of each of some mail tasks as peers do: one polling loop for each.

    :param started: called when all waits have started.
    :param mail_ids: what is waited for.
    :param poke_interval: seconds.
    :param strict: whether any error ends a wait; otherwise errors are ignored.
    """
    return asyncio.run(_wait_for_all(started, mail_ids, poke_interval, strict))


async def _wait_for_all(
    started: Callable[[], None], mail_ids: Sequence[str], poke_interval: float, strict: bool
) -> Outcomes:
    outcomes = Outcomes()
    begun_at = time.process_time()
    connection = json.loads(os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"])
    client = official_client(connection)
    waits = [asyncio.create_task(_wait(client, mail_id, poke_interval, strict, outcomes)) for mail_id in mail_ids]
    started()
    await asyncio.gather(*waits)
    outcomes.cpu_seconds = time.process_time() - begun_at
    return outcomes


async def _wait(client: Any, mail_id: str, poke_interval: float, strict: bool, outcomes: Outcomes) -> None:
    from alibabacloud_quickbi_public20220101.models import GetMailTaskStatusRequest

    await asyncio.sleep(random.uniform(0, poke_interval))
    request = GetMailTaskStatusRequest(mail_id=mail_id)
    while True:
        try:
            runs = (await client.get_mail_task_status_async(request)).body.result
        except Exception:
            if strict:
                outcomes.failed += 1
                return
        else:
            if runs[-1].status == "SENT":
                outcomes.seen_at.append(time.time())
                return
        await asyncio.sleep(poke_interval)
