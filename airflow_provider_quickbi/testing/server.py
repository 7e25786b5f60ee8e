"""A Quick BI that runs on this machine: the simulator behind a real HTTP server in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from aiohttp import web

from airflow_provider_quickbi.testing import wire
from airflow_provider_quickbi.testing.control import CONTROL_PREFIX, respond_to_control
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault
from airflow_provider_quickbi.testing.simulator import QuickBISimulator, Response, SimulatorSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext
    from types import TracebackType

    from airflow_provider_quickbi.testing.calls import Call
    from airflow_provider_quickbi.testing.signature import SignedRequest

logger = logging.getLogger("airflow_provider_quickbi.testing")

START_TIMEOUT: Final = 10.0
"""How many seconds the server may take to listen."""

STOP_TIMEOUT: Final = 10.0
"""How many seconds the server may take to stop."""

_HANDLER_TIMEOUT: Final = 1.0
_POLL_SECONDS: Final = 0.05


class _CountingServer(web.Server):
    """Numbers the connections in the order in which they are accepted."""

    def __init__(self, simulator: QuickBISimulator, handler: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._simulator = simulator
        self._origins: dict[Any, tuple[int, int]] = {}
        self._transports: dict[Any, asyncio.Transport] = {}
        self._controls: set[Any] = set()
        self._number = 0

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._simulator.connections_opened += 1
        self._number += 1
        self._origins[handler] = (self._number, peer[1] if peer else 0)
        self._transports[handler] = transport
        super().connection_made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
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


class LocalQuickBI(QuickBISimulator):
    """Quick BI on ``127.0.0.1``, for tests and for trying things out.

    ::

        with LocalQuickBI() as quickbi:
            mail_id = quickbi.add_mail_task("Daily sales")
            os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"] = quickbi.connection_json()
            ...
            assert quickbi.mails_sent(mail_id) == 1

    It verifies signatures and responds as Quick BI documents it, over real connections. Unless told otherwise, nothing
    is limited and every run finishes at once. It may be stopped and started again: it keeps its state and its port.

    :param host: the address to listen on; default ``127.0.0.1``.
    :param port: the port to listen on; default 0: any free one.
    :param ssl_context: a server-side context, to speak HTTPS; default HTTP.
    :param settings: see :class:`~airflow_provider_quickbi.testing.simulator.SimulatorSettings`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: SSLContext | None = None,
        **settings: Unpack[SimulatorSettings],
    ) -> None:
        super().__init__(**settings)
        self._listen_host = host
        self._port = port
        self._ssl_context = ssl_context
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._server: _CountingServer | None = None

    # Starting and stopping

    def start(self) -> Self:
        """Listen, and return when calls can come.

        :returns: the server itself.
        :raises RuntimeError: it runs already, or did not listen within 10 seconds.
        :raises OSError: the address cannot be used, for example because the port is in use.
        """
        if self._thread is not None:
            raise RuntimeError("This LocalQuickBI is running already.")
        listening: Future[int] = Future()
        thread = threading.Thread(target=self._run, args=(listening,), name="local-quickbi", daemon=True)
        self._thread = thread
        thread.start()
        try:
            self._port = listening.result(START_TIMEOUT)
        except TimeoutError:
            self.stop()
            raise RuntimeError(f"LocalQuickBI did not listen within {START_TIMEOUT:g} seconds.") from None
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop listening, close every connection and wait until the thread is gone. Does nothing if it is not running.

        :raises RuntimeError: it did not stop within 10 seconds.
        """
        thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is None:
            return
        if loop is not None and stopping is not None:
            with suppress(RuntimeError):  # the loop closed by itself in the meantime
                loop.call_soon_threadsafe(stopping.set)
        thread.join(STOP_TIMEOUT)
        if thread.is_alive():
            raise RuntimeError(f"LocalQuickBI did not stop within {STOP_TIMEOUT:g} seconds.")
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        errors = self.callback_errors.copy()
        self.callback_errors.clear()
        if exc is None and errors:
            raise errors[0]

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    # Where it is

    @property
    def host(self) -> str:
        """The host that a client connects to."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a client connects to instead
        return everywhere.get(self._listen_host, self._listen_host)

    @property
    def port(self) -> int:
        """The port it listens on; 0 before it was started with ``port=0``."""
        return self._port

    @property
    def scheme(self) -> str:
        """``"http"`` or ``"https"``."""
        return "http" if self._ssl_context is None else "https"

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def connection(self, **extra: object) -> dict[str, Any]:
        """Return the Airflow connection to this server.

        :param extra: fields of the connection's extra, such as ``read_timeout=2``.
        :returns: the connection as Airflow's JSON form spells it.
        """
        return {
            "conn_type": "quickbi",
            "login": self.access_key_id,
            "password": self.access_key_secret,
            "host": self.host,
            "port": self.port,
            "schema": self.scheme,
            "extra": extra,
        }

    def connection_json(self, **extra: object) -> str:
        """Return :meth:`connection` as JSON text, the value for ``AIRFLOW_CONN_QUICKBI_DEFAULT``.

        :param extra: fields of the connection's extra.
        """
        return json.dumps(self.connection(**extra))

    def drop_connections(self) -> int:
        """Close every open connection, as a load balancer does with idle ones.

        :returns: how many were open.
        """
        loop = self._loop
        if self._thread is None or loop is None:
            return 0
        return asyncio.run_coroutine_threadsafe(self.drop_connections_but(None), loop).result(STOP_TIMEOUT)

    async def drop_connections_but(self, kept: object) -> int:
        """Close every open connection but one, in the server's own thread.

        :param kept: the protocol of the connection that stays; None for none.
        :returns: how many were closed.
        """
        dropped = 0 if self._server is None else self._server.abort(kept)
        await _turn()
        return dropped

    # The server's thread

    def _run(self, listening: Future[int]) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(listening))
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)
        finally:
            self._loop = self._stopping = self._server = None

    async def _serve(self, listening: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._server = _CountingServer(
            self, self._handle, access_log=None, max_line_size=65536, max_field_size=65536, lingering_time=0
        )
        listener = await self._loop.create_server(
            self._server, self._listen_host, self._port, ssl=self._ssl_context, backlog=1024, reuse_address=True
        )
        try:
            listening.set_result(listener.sockets[0].getsockname()[1])
            await self._stopping.wait()
        finally:
            await self._close(listener, self._server)

    async def _close(self, listener: asyncio.Server, server: _CountingServer) -> None:
        for listening_socket in listener.sockets:
            asyncio.get_running_loop().remove_reader(listening_socket.fileno())
        await _turn()  # what was just accepted has to become a connection, or nobody would close it
        listener.close()
        server.pre_shutdown()
        await server.shutdown(_HANDLER_TIMEOUT)
        server.abort()  # TLS would wait for the client to say goodbye
        await _turn()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(CONTROL_PREFIX):
            if self._server is not None:
                self._server.note_control(request.protocol)
            return await respond_to_control(self, request)
        body = await request.read() if request.body_exists else b""
        connection_id, remote_port = self._server.origin(request.protocol) if self._server else (0, 0)
        signed, call = self.receive(
            request.method,
            request.raw_path,
            request.headers.items(),
            body,
            connection_id=connection_id,
            remote_port=remote_port,
        )
        try:
            fault = await self._run_callbacks(call) or self.faults.choose(call)
            if fault is not None:
                return await self._go_wrong(fault, signed, call, request)
            return self._respond(self.respond(signed, call), call)
        except Exception as error:
            self.callback_errors.append(error)
            logger.exception("A callback or handler for %s failed", call.action)
            refusal = Refusal("InternalError", f"A callback or handler failed: {error!r}")
            return self._respond(self.refuse(refusal, signed, call), call)

    async def _run_callbacks(self, call: Call) -> Fault | None:
        fault: Fault | None = None
        for callback in self.callbacks_for(call):
            fault = await _in_thread(callback, call) or fault
        return fault

    async def _go_wrong(
        self, fault: Fault, signed: SignedRequest, call: Call, request: web.BaseRequest
    ) -> web.StreamResponse:
        call.fault, call.code = fault.kind, fault.code
        if fault.wire == "whole" and not fault.processed and not await self._wait(fault.seconds, request):
            return self._cut_off(call, request)
        if fault.processed or fault.kind == "delay":
            response = self.respond(signed, call)
        else:
            response = self._faulty_response(fault, signed, call)
        if fault.wire in ("reset", "hang", "half_body"):
            call.http_status = None
            self._note(call)
            return await self._break_off(fault, response, request)
        if fault.wire == "oversized":
            self._note(call)
            return await wire.send_oversized(fault.size, request)
        if fault.processed and not await self._wait(fault.seconds, request):
            return self._cut_off(call, request)
        return self._respond(wire.spoil(fault, response, call), call)

    async def _break_off(self, fault: Fault, response: Response, request: web.BaseRequest) -> web.Response:
        if fault.wire == "half_body":
            return wire.send_half(response, request)
        if fault.wire == "hang":
            patient = await self._wait(fault.seconds or None, request)
            if patient and request.transport is not None:
                request.transport.close()
        return wire.abort(request)

    def _faulty_response(self, fault: Fault, signed: SignedRequest, call: Call) -> Response:
        if fault.refusal is not None:
            return self.refuse(fault.make_refusal(), signed, call)
        call.http_status = fault.status or 200
        return Response(call.http_status, fault.body or b"", dict(fault.headers))

    def _respond(self, response: Response, call: Call) -> web.Response:
        self._note(call)
        return web.Response(
            status=response.status, body=response.body, headers={"Content-Type": wire.JSON, **response.headers}
        )

    def _cut_off(self, call: Call, request: web.BaseRequest) -> web.Response:
        call.http_status = None
        self._note(call)
        return wire.abort(request)

    def _note(self, call: Call) -> None:
        self.call_log.add(call)
        if logger.isEnabledFor(logging.INFO):
            fault = f" [{call.fault}]" if call.fault else ""
            status = call.http_status or "no response"
            logger.info("%s %s -> %s %s%s", call.action, dict(call.params), status, call.code, fault)

    async def _wait(self, seconds: float | None, request: web.BaseRequest) -> bool:
        """Wait; return False as soon as the client is gone or the server stops. ``None`` waits for nothing else."""
        if seconds == 0:
            return True
        stopping = self._stopping
        if stopping is None:
            return False
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        while end is None or loop.time() < end:
            pause = _POLL_SECONDS if end is None else min(_POLL_SECONDS, max(0.0, end - loop.time()))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
            if stopping.is_set() or wire.is_gone(request):
                return False
        return True


async def _turn() -> None:
    """Let the loop do what is due: connections are made and lost a few turns after they were asked to."""
    for _ in range(4):
        await asyncio.sleep(0)


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
