"""One request to the server and its response, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import re
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault, Response
from airflow_provider_quickbi.testing.signature import SignedRequest, collect_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing.calls import Call
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

logger = logging.getLogger("airflow_provider_quickbi.testing")

JSON: Final = "application/json;charset=utf-8"
_POLL_SECONDS: Final = 0.05
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Exchange:
    """A request as it arrived over a connection, to a server that may be stopping."""

    quickbi: QuickBISimulator
    request: web.BaseRequest
    transport: asyncio.Transport
    stopping: asyncio.Event

    async def carry_out(self, connection_id: int) -> web.StreamResponse:
        """Return the response, or one that is never sent because the connection is gone."""
        request = self.request
        path, _, query = re.sub("^https?://[^/]*", "", request.raw_path).partition("?")  # a proxy is sent a whole URL
        headers = collect_headers(request.headers.items())
        signed = SignedRequest(request.method, path, query, headers, await request.read())
        peer = self.transport.get_extra_info("peername") or ("", 0)
        call = self.quickbi.receive(signed, connection_id, peer[1])
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
            return await self._reset(call)
        if fault.processed:
            response = self.quickbi.respond(signed, call)
        elif fault.refusal:
            refusal = Refusal(*fault.refusal, http_status=fault.status, headers=dict(fault.headers))
            response = self.quickbi.refuse(refusal, signed, call)
        else:
            response = Response(200, b"", {})
        if fault.wire == "half_body":
            return self._send_half(response, call)
        if fault.wire in ("reset", "hang") or not await self._wait(fault.delay_after):
            return await self._reset(call, after=math.inf if fault.wire == "hang" else 0)
        return self._respond(fault.spoil(response), call)

    def _respond(self, response: Response, call: Call) -> web.Response:
        self._note(call, response.status)
        headers = {"Content-Type": JSON, **response.headers}
        return web.Response(status=response.status, body=response.body, headers=headers)

    def _send_half(self, response: Response, call: Call) -> web.Response:
        """Send half of a body and close the connection."""
        self._note(call, None)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(response.body)}\r\n\r\n"
        self.transport.write(head.encode() + response.body[: len(response.body) // 2])
        self.transport.close()
        return web.Response()  # never sent

    async def _reset(self, call: Call, after: float = 0) -> web.Response:
        self._note(call, None)
        await self._wait(after)
        if not self.transport.is_closing():
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()
        return web.Response()  # never sent

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
            await asyncio.sleep(min(left, _POLL_SECONDS))
            if self.stopping.is_set() or self.transport.is_closing():
                return False
        return True


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a daemon thread, so that one that never returns cannot keep the server from stopping."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="local-quickbi-callback", daemon=True).start()
    return await asyncio.wrap_future(outcome)
