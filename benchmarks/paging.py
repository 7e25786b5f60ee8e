"""Listing very many mail tasks."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable

from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, seconds
from benchmarks.server import Server

TITLE = "Listing mail tasks"


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    number = 500 if quick else 10_000
    rows: list[Row] = []
    for page_size in (25, 100):
        with Server(number, calls_per_second={"GetMailTaskList": 50.0}) as server:
            with Isolated(_list_all, page_size, connection=server.connection()) as process:
                process.wait_until_started()
                listed, distinct, duration, cpu = process.result(300)
            outcomes = server.remote.counters()["GetMailTaskList"]
        calls, succeeded = sum(outcomes.values()) - 1, outcomes["OK"] - 1  # the first one is not part of the list
        pages = -(-number // page_size)
        rows.append(
            Row(
                f"{number:,} mail tasks, {page_size} a page: listed, each once",
                f"{listed:,} in {seconds(duration)}, {seconds(cpu)} CPU",
                f"{calls:,} calls for {pages:,} pages; least possible {seconds(pages / 50)} for one walk",
                "all, none throttled",
                listed == distinct == number and calls == succeeded,
            )
        )
    return Section(
        TITLE,
        rows,
        "At the documented 50 calls per second. A list of several pages is walked until a walk shows "
        "nothing new, so that a mail task that is deleted meanwhile hides no other one: twice if nothing "
        "changes.",
    )


def _list_all(started: Callable[[], None], page_size: int) -> tuple[int, int, float, float]:
    return asyncio.run(_walk(started, page_size))


async def _walk(started: Callable[[], None], page_size: int) -> tuple[int, int, float, float]:
    from airflow_provider_quickbi.api.client import AsyncQuickBIClient
    from airflow_provider_quickbi.api.credentials import CredentialSpec
    from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint

    connection = json.loads(os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"])
    key = {"access_key_id": connection["login"], "access_key_secret": connection["password"]}
    endpoint = Endpoint(connection["host"], "http", connection["port"])
    async with AsyncQuickBIClient(ClientSettings(endpoint, CredentialSpec.of("access_key", **key))) as client:
        await client.get_mail_task_list(page_size=1)  # the imports and the connection are there before time is taken
        started()
        cpu, begun_at = time.process_time(), time.perf_counter()
        listed = [mail_task.mail_id async for mail_task in client.iter_mail_tasks(page_size=page_size)]
        return len(listed), len(set(listed)), time.perf_counter() - begun_at, time.process_time() - cpu
