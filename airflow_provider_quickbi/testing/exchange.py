"""One request to the server and its response, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

from airflow_provider_quickbi.testing import wire
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault
from airflow_provider_quickbi.testing.simulator import QuickBISimulator, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing.calls import Call
    from airflow_provider_quickbi.testing.signature import SignedRequest

logger = logging.getLogger("airflow_provider_quickbi.testing")

_POLL_SECONDS: Final = 0.05


class Exchange:
    """A request as it arrived.

    :param quickbi: what responds.
    :param request: the request.
    :param stopping: set when the server stops.
    """

    def __init__(self, quickbi: QuickBISimulator, request: web.BaseRequest, stopping: asyncio.Event) -> None:
        self.quickbi = quickbi
        self.request = request
        self.stopping = stopping

    async def carry_out(self, connection_id: int, remote_port: int) -> web.StreamResponse:
        """Return the response, or one that is never sent because the connection is gone."""
        request = self.request
        body = await request.read() if request.body_exists else b""
        signed, call = self.quickbi.receive(
            request.method,
            request.raw_path,
            request.headers.items(),
            body,
            connection_id=connection_id,
            remote_port=remote_port,
        )
        try:
            fault = await self._run_callbacks(call) or self.quickbi.faults.choose(call)
            if fault is not None:
                return await self._go_wrong(fault, signed, call)
            return self._respond(self.quickbi.respond(signed, call), call)
        except Exception as error:
            self.quickbi.callback_errors.append(error)
            logger.exception("A callback or handler for %s failed", call.action)
            refusal = Refusal("InternalError", f"A callback or handler failed: {error!r}")
            return self._respond(self.quickbi.refuse(refusal, signed, call), call)

    async def _run_callbacks(self, call: Call) -> Fault | None:
        fault: Fault | None = None
        for callback in self.quickbi.callbacks_for(call):
            fault = await _in_thread(callback, call) or fault
        return fault

    async def _go_wrong(self, fault: Fault, signed: SignedRequest, call: Call) -> web.StreamResponse:
        call.fault, call.code = fault.kind, fault.code
        if fault.wire == "whole" and not fault.processed and not await self._wait(fault.seconds):
            return self._cut_off(call)
        if fault.processed or fault.kind == "delay":
            response = self.quickbi.respond(signed, call)
        else:
            response = self._faulty_response(fault, signed, call)
        if fault.wire in ("reset", "hang", "half_body"):
            call.http_status = None
            self._note(call)
            return await self._break_off(fault, response)
        if fault.wire == "oversized":
            self._note(call)
            return await wire.send_oversized(fault.size, self.request)
        if fault.processed and not await self._wait(fault.seconds):
            return self._cut_off(call)
        return self._respond(wire.spoil(fault, response, call), call)

    async def _break_off(self, fault: Fault, response: Response) -> web.Response:
        if fault.wire == "half_body":
            return wire.send_half(response, self.request)
        if fault.wire == "hang":
            patient = await self._wait(fault.seconds or None)
            if patient and self.request.transport is not None:
                self.request.transport.close()
        return wire.abort(self.request)

    def _faulty_response(self, fault: Fault, signed: SignedRequest, call: Call) -> Response:
        if fault.refusal is not None:
            return self.quickbi.refuse(fault.make_refusal(), signed, call)
        call.http_status = fault.status or 200
        return Response(call.http_status, fault.body or b"", dict(fault.headers))

    def _respond(self, response: Response, call: Call) -> web.Response:
        self._note(call)
        return web.Response(
            status=response.status, body=response.body, headers={"Content-Type": wire.JSON, **response.headers}
        )

    def _cut_off(self, call: Call) -> web.Response:
        call.http_status = None
        self._note(call)
        return wire.abort(self.request)

    def _note(self, call: Call) -> None:
        self.quickbi.call_log.add(call)
        if logger.isEnabledFor(logging.INFO):
            fault = f" [{call.fault}]" if call.fault else ""
            status = call.http_status or "no response"
            logger.info("%s %s -> %s %s%s", call.action, dict(call.params), status, call.code, fault)

    async def _wait(self, seconds: float | None) -> bool:
        """Wait; return False as soon as the client is gone or the server stops. ``None`` waits for nothing else."""
        if seconds == 0:
            return True
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while end is None or loop.time() < end:
            pause = _POLL_SECONDS if end is None else min(_POLL_SECONDS, max(0.0, end - loop.time()))
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            if self.stopping.is_set() or wire.is_gone(self.request):
                return False
        return True


async def _in_thread(callback: Callable[[Call], Fault | None], call: Call) -> Fault | None:
    """Run a callback in a daemon thread, so that one that never returns cannot keep the server from stopping."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Fault | None] = loop.create_future()

    def settle(fault: Fault | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(fault)
        else:
            outcome.set_exception(error)

    def run() -> None:
        fault: Fault | None = None
        failure: BaseException | None = None
        try:
            fault = callback(call)
        except Exception as error:
            logger.debug("A callback for %s failed", call.action, exc_info=True)
            failure = error
        try:
            loop.call_soon_threadsafe(settle, fault if isinstance(fault, Fault) else None, failure)
        except RuntimeError:
            logger.debug("The server stopped before a callback for %s returned", call.action)

    threading.Thread(target=run, name="local-quickbi-callback", daemon=True).start()
    return await outcome
