"""One request to the server and its response, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from aiohttp import web

from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_quickbi.testing.calls import Call
    from airflow_provider_quickbi.testing.signature import SignedRequest
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

logger = logging.getLogger("airflow_provider_quickbi.testing")

JSON: Final = "application/json;charset=utf-8"
_POLL_SECONDS: Final = 0.05
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

P = ParamSpec("P")
T = TypeVar("T")


class Exchange:
    """A request as it arrived.

    :param quickbi: what responds.
    :param request: the request.
    :param connections: the numbers of the connections.
    :param stopping: set when the server stops.
    """

    def __init__(
        self,
        quickbi: QuickBISimulator,
        request: web.BaseRequest,
        connections: Mapping[asyncio.Transport, int],
        stopping: asyncio.Event,
    ) -> None:
        self.quickbi = quickbi
        self.request = request
        self.connections = connections
        self.stopping = stopping

    async def carry_out(self) -> web.StreamResponse:
        """Return the response, or one that is never sent because the connection is gone."""
        request, transport = self.request, self.request.transport
        body = await request.read()
        signed, call = self.quickbi.receive(
            request.method,
            request.raw_path,
            request.headers.items(),
            body,
            connection_id=self.connections.get(transport, 0) if transport else 0,
            remote_port=transport.get_extra_info("peername")[1] if transport else 0,
        )
        try:
            fault = None
            for callback in self.quickbi.callbacks_for(call):
                returned = await in_thread(callback, call)
                fault = returned if isinstance(returned, Fault) else fault
            fault = fault or self.quickbi.choose_fault(call)
            if fault is not None:
                return await self._go_wrong(fault, signed, call)
            return self._respond(self.quickbi.respond(signed, call), call)
        except Exception as error:
            self.quickbi.callback_errors.append(error)
            logger.exception("A callback or handler for %s failed", call.action)
            refusal = Refusal("InternalError", f"A callback or handler failed: {error!r}")
            return self._respond(self.quickbi.refuse(refusal, signed, call), call)

    async def _go_wrong(self, fault: Fault, signed: SignedRequest, call: Call) -> web.Response:
        call.fault = call.code = fault.kind
        if not await self._wait(fault.delay_before):
            return self._break_off(call)
        if fault.processed:
            response = self.quickbi.respond(signed, call)
        elif fault.refusal:
            refusal = Refusal(*fault.refusal, http_status=fault.status, headers=dict(fault.headers))
            response = self.quickbi.refuse(refusal, signed, call)
        else:
            response = Response(200, b"", {})
        if fault.wire == "hang":
            self._note(call, None)
            await self._wait(math.inf)
            return self._reset()
        if fault.wire == "reset" or not await self._wait(fault.delay_after):
            return self._break_off(call)
        response = fault.spoil(response)
        return self._send_half(response, call) if fault.wire == "half_body" else self._respond(response, call)

    def _respond(self, response: Response, call: Call) -> web.Response:
        self._note(call, response.status)
        headers = {"Content-Type": JSON, **response.headers}
        return web.Response(status=response.status, body=response.body, headers=headers)

    def _send_half(self, response: Response, call: Call) -> web.Response:
        """Send half of a body and close the connection."""
        self._note(call, None)
        if (transport := self.request.transport) is not None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(response.body)}\r\n\r\n"
            transport.write(head.encode() + response.body[: len(response.body) // 2])
            transport.close()
        return web.Response()  # never sent: the connection is closed

    def _break_off(self, call: Call) -> web.Response:
        self._note(call, None)
        return self._reset()

    def _reset(self) -> web.Response:
        transport = self.request.transport
        if transport is not None and not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        return web.Response()  # never sent: the connection is gone

    def _note(self, call: Call, status: int | None) -> None:
        call.http_status = status
        self.quickbi.log(call)
        fault = f" [{call.fault}]" if call.fault else ""
        logger.info("%s %s -> %s %s%s", call.action, call.params, status or "no response", call.code, fault)

    async def _wait(self, seconds: float) -> bool:
        """Wait; return False as soon as the client is gone or the server stops."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), min(left, _POLL_SECONDS))
            transport = self.request.transport
            if self.stopping.is_set() or transport is None or transport.is_closing():
                return False
        return True


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a daemon thread, so that one that never returns cannot keep the server from stopping."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="local-quickbi-callback", daemon=True).start()
    return await asyncio.wrap_future(outcome)
