"""What one poll costs: CPU and calls per second, beside the official client and ``aiohttp`` with nothing on top."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from benchmarks.isolated import Isolated
from benchmarks.report import Row, Section, times
from benchmarks.server import Server

TITLE = "Cost of a poll, asyncio over TLS"
_MAIL = "mail-00000"
_AT_ONCE = 16
#: The official client's calls hold the event loop for so long that more at once run into its time-outs.
_OFFICIAL_AT_ONCE = 2


@dataclass
class Cost:
    """The best of some rounds.

    :param cpu_ms: CPU of the client's process for one call.
    :param calls_per_second: that one process made.
    """

    cpu_ms: float = float("inf")
    calls_per_second: float = 0.0


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test.
    """
    rounds, calls = (3, 64) if quick else (25, 320)
    with (
        Server(1, tls=True) as server,
        Isolated(_measure, rounds, calls, connection=server.connection()) as process,
    ):
        process.wait_until_started()
        ours, bare, signing, official = process.result(300)
    return Section(
        TITLE,
        [
            Row(
                "calls per second",
                f"{ours.calls_per_second:,.0f}",
                f"official client {official.calls_per_second:,.0f}; bare aiohttp {bare.calls_per_second:,.0f}",
                "at least 50x the official client",
                ours.calls_per_second >= 50 * official.calls_per_second,
            ),
            Row(
                "calls per second, beside the official client",
                times(ours.calls_per_second / official.calls_per_second),
                "1x",
            ),
            Row(
                "CPU of a call",
                f"{ours.cpu_ms:.2f} ms ({times(ours.cpu_ms / bare.cpu_ms)} bare aiohttp)",
                f"bare aiohttp {bare.cpu_ms:.2f} ms; official client {official.cpu_ms:.1f} ms",
                "at most 1.5x bare aiohttp",
                ours.cpu_ms <= 1.5 * bare.cpu_ms,
            ),
            Row(
                "CPU of a call, beside bare aiohttp that signs",
                times(ours.cpu_ms / signing.cpu_ms),
                f"bare aiohttp with the vendor's signature {signing.cpu_ms:.2f} ms "
                f"({times(signing.cpu_ms / bare.cpu_ms)} bare aiohttp)",
                "at most 1.3x",
                ours.cpu_ms <= 1.3 * signing.cpu_ms,
            ),
        ],
        f"One process polls one mail task with {_AT_ONCE} concurrent calls (the official client with "
        f"{_OFFICIAL_AT_ONCE}, or its calls time out). The clients take turns in {rounds} rounds; the "
        "best round of each counts, so that other work on the machine matters less. This provider paces, signs, checks "
        "and parses every call. *Bare aiohttp* keeps one session, sends requests that were signed before and decodes "
        "the JSON. *That signs* signs each request with "
        "alibabacloud-tea-openapi, the least that any client must do. The server "
        "does not limit the clients.",
    )


def _measure(started: Callable[[], None], rounds: int, calls: int) -> tuple[Cost, Cost, Cost, Cost]:
    return asyncio.run(_compare(started, rounds, calls))


async def _compare(started: Callable[[], None], rounds: int, calls: int) -> tuple[Cost, Cost, Cost, Cost]:
    import aiohttp
    from alibabacloud_quickbi_public20220101.models import GetMailTaskStatusRequest
    from alibabacloud_tea_openapi.utils import Utils

    from airflow_provider_quickbi.api.client import AsyncQuickBIClient
    from airflow_provider_quickbi.api.credentials import CredentialSpec
    from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
    from benchmarks.peers import official_client

    connection = json.loads(os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"])
    bundle = connection["extra"]["verify"]
    key = {"access_key_id": connection["login"], "access_key_secret": connection["password"]}
    settings = ClientSettings(
        Endpoint(connection["host"], "https", connection["port"]),
        CredentialSpec.of("access_key", **key),
        status_calls_per_second=1e6,
        verify=bundle,
    )
    sdk = official_client(connection)
    status_request = GetMailTaskStatusRequest(mail_id=_MAIL)
    address = f"https://{connection['host']}:{connection['port']}/"
    headers = {"x-acs-action": "GetMailTaskStatus", "x-acs-version": "2022-01-01"}
    nothing = hashlib.sha256(b"").hexdigest()
    host = f"{connection['host']}:{connection['port']}"
    signed_before: list[dict[str, str]] = []

    def sign() -> dict[str, str]:
        signed = headers | {
            "host": host,
            "x-acs-content-sha256": nothing,
            "x-acs-date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": os.urandom(16).hex(),
        }
        request = SimpleNamespace(method="POST", pathname="/", query={"MailId": _MAIL}, headers=signed)
        signed["authorization"] = Utils.get_authorization(request, "ACS3-HMAC-SHA256", nothing, *key.values())
        return signed

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncQuickBIClient(settings))
        tls = await asyncio.to_thread(ssl.create_default_context, cafile=bundle)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)))

        async def ours() -> None:
            assert (await client.get_mail_task_status(_MAIL))[0].status == "PROCESSING"

        async def bare() -> None:
            async with session.post(address, params={"MailId": _MAIL}, headers=signed_before.pop()) as response:
                assert (await response.json())["Result"][0]["status"] == "PROCESSING"

        async def signing() -> None:
            async with session.post(address, params={"MailId": _MAIL}, headers=sign()) as response:
                assert (await response.json())["Result"][0]["status"] == "PROCESSING"

        async def official() -> None:
            assert (await sdk.get_mail_task_status_async(status_request)).body.result[0].status == "PROCESSING"

        costs = (Cost(), Cost(), Cost(), Cost())
        for call in (ours, bare, signing, official):
            signed_before[:] = [sign() for _ in range(2 * _AT_ONCE)]
            await _add(Cost(), call, 2 * _AT_ONCE, _OFFICIAL_AT_ONCE)
        started()
        for number in range(rounds):
            await _add(costs[0], ours, calls, _AT_ONCE)
            signed_before[:] = [sign() for _ in range(calls)]  # not while it is measured
            await _add(costs[1], bare, calls, _AT_ONCE)
            await _add(costs[2], signing, calls, _AT_ONCE)
            if number % 5 == 0:
                await _add(costs[3], official, 2 * _AT_ONCE, _OFFICIAL_AT_ONCE)
        return costs


async def _add(cost: Cost, call: Callable[[], Awaitable[Any]], calls: int, at_once: int) -> None:
    async def some() -> None:
        for _ in range(calls // at_once):
            await call()

    cpu, begun_at = time.process_time(), time.perf_counter()
    await asyncio.gather(*[some() for _ in range(at_once)])
    cost.cpu_ms = min(cost.cpu_ms, 1000 * (time.process_time() - cpu) / calls)
    cost.calls_per_second = max(cost.calls_per_second, calls / (time.perf_counter() - begun_at))
