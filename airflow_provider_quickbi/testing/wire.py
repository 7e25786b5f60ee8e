"""The connections of the server, and what leaves them when a call goes wrong: half a body, other types, a reset."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from airflow_provider_quickbi.testing.simulator import Response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from airflow_provider_quickbi.testing.calls import Call
    from airflow_provider_quickbi.testing.faults import Fault
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

JSON: Final = "application/json;charset=utf-8"
_CHUNK: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class CountingServer(web.Server):
    """Numbers the connections in the order in which they are accepted."""

    def __init__(self, simulator: QuickBISimulator, handler: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._simulator = simulator
        self._origins: dict[Any, tuple[int, int]] = {}
        self._transports: dict[Any, asyncio.Transport] = {}
        self._controls: set[Any] = set()
        self._number = 0

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """Give a connection a number."""
        peer = transport.get_extra_info("peername")
        self._simulator.connections_opened += 1
        self._number += 1
        self._origins[handler] = (self._number, peer[1] if peer else 0)
        self._transports[handler] = transport
        super().connection_made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._origins.pop(handler, None)
        self._transports.pop(handler, None)
        self._controls.discard(handler)
        super().connection_lost(handler, exc)

    def origin(self, handler: Any) -> tuple[int, int]:
        """Return the number of a connection and the client's port."""
        return self._origins.get(handler, (0, 0))

    def abort(self, kept: object = None) -> int:
        """Close every connection at once, but the one that is kept; returns how many were closed."""
        aborted = [transport for handler, transport in self._transports.items() if handler is not kept]
        for transport in aborted:
            transport.abort()
        return len(aborted)

    def note_control(self, handler: Any) -> None:
        """Do not count a connection any more: it serves to control the simulator."""
        if handler not in self._controls:
            self._controls.add(handler)
            self._simulator.connections_opened -= 1


def is_gone(request: web.BaseRequest) -> bool:
    """Whether the client has closed the connection."""
    transport = request.transport
    return transport is None or transport.is_closing()


def abort(request: web.BaseRequest) -> web.Response:
    """Reset the connection."""
    transport = request.transport
    if transport is not None and not transport.is_closing():
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    return web.Response()  # never sent: the connection is gone


def send_half(response: Response, request: web.BaseRequest) -> web.Response:
    """Send half of a body and close the connection."""
    transport = request.transport
    if transport is not None:
        head = f"HTTP/1.1 {response.status} OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(response.body)}\r\n\r\n"
        transport.write(head.encode() + response.body[: len(response.body) // 2])
        transport.close()
    return web.Response()  # never sent: the connection is closed


async def send_oversized(size: int, request: web.BaseRequest) -> web.StreamResponse:
    """Send valid JSON of so many bytes."""
    head, tail = b'{"RequestId":"', b'","Result":[],"Success":true}'
    response = web.StreamResponse(headers={"Content-Type": JSON})
    response.content_length = max(size, len(head) + len(tail))
    with suppress(ConnectionError):  # the client had enough
        await response.prepare(request)
        await response.write(head)
        left = response.content_length - len(head) - len(tail)
        while left > 0:
            await response.write(b"A" * min(left, _CHUNK))
            left -= _CHUNK
        await response.write(tail)
        await response.write_eof()
    return response


def spoil(fault: Fault, response: Response, call: Call) -> Response:
    """Return what a fault makes of an response that is sent in full."""
    if fault.wire == "half_json":
        return Response(response.status, response.body[: len(response.body) // 2], response.headers)
    if fault.wire == "wrong_types":
        return _change_types(response)
    if not fault.processed or (fault.status is None and fault.body is None):
        return response
    call.http_status = response.status if fault.status is None else fault.status
    return Response(call.http_status, response.body if fault.body is None else fault.body, dict(fault.headers))


def _change_types(response: Response) -> Response:
    changed = {"RequestId": 7, "Result": _change_type(json.loads(response.body).get("Result")), "Success": "yes"}
    return Response(response.status, json.dumps(changed).encode(), response.headers)


def _change_type(value: object) -> object:
    match value:
        case dict():
            return [_change_type(inner) for inner in value.values()]
        case list():
            return {str(number): _change_type(inner) for number, inner in enumerate(value)}
        case bool() | None:
            return {"value": value}
        case int() | float():
            return [value]
        case _:
            return {"text": value}
