"""A Quick BI that runs on this machine: the simulator behind a real HTTP server in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary

from aiohttp import web

from airflow_provider_quickbi.testing.exchange import Exchange
from airflow_provider_quickbi.testing.remote import PREFIX, respond_to_control
from airflow_provider_quickbi.testing.simulator import QuickBISimulator

if TYPE_CHECKING:
    from ssl import SSLContext

_PATIENCE: Final = 10.0
_HANDLER_TIMEOUT: Final = 1.0


class LocalQuickBI(QuickBISimulator):
    """Quick BI on ``127.0.0.1``, for tests and for trying things out.

    ::

        with LocalQuickBI() as quickbi:
            mail_id = quickbi.add_mail_task("Daily sales")
            os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"] = quickbi.connection_json()
            ...
            assert quickbi.mails_sent(mail_id) == 1

    It verifies signatures and responds as Quick BI documents it, over real connections. By default, nothing
    is limited and every run finishes at once. It may be stopped and started again: it keeps its state and its port.

    :param host: the address to listen on.
    :param port: the port to listen on; default 0: any free one.
    :param ssl_context: a server-side context, to speak HTTPS; default HTTP.
    :param settings: see :class:`~airflow_provider_quickbi.testing.simulator.QuickBISimulator`.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, ssl_context: SSLContext | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._listen_host = host
        self.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what a client connects to
        self.port = port
        """The port it listens on; 0 before it was started with ``port=0``."""
        self.scheme = "http" if ssl_context is None else "https"
        self._ssl_context = ssl_context
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._server: web.Server | None = None
        self._connection_numbers: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()

    # Starting and stopping

    def start(self) -> Self:
        """Listen, and return when calls can come.

        :returns: the server itself.
        :raises RuntimeError: it runs already.
        :raises OSError: the address cannot be used, for example because the port is in use.
        """
        if self._thread is not None:
            raise RuntimeError("This LocalQuickBI is running already.")
        listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="local-quickbi", daemon=True)
        self._thread.start()
        try:
            self.port = listening.result(_PATIENCE)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop listening, close every connection and wait until the thread is gone. Does nothing if it is not running.

        :raises RuntimeError: it did not stop within 10 seconds.
        """
        if self._thread is None:
            return
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop closed by itself in the meantime
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError(f"LocalQuickBI did not stop within {_PATIENCE:g} seconds.")
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        self.stop()
        errors, self.callback_errors = self.callback_errors, []
        if exc is None and errors:
            raise errors[0]

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    # Where it is

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
        """Return :meth:`connection` as JSON text, the value for ``AIRFLOW_CONN_QUICKBI_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def drop_connections(self) -> int:
        """Close every open connection over which calls came, as a load balancer does with idle ones.

        :returns: how many were open.
        """
        loop = self._loop
        return asyncio.run_coroutine_threadsafe(self._drop(), loop).result(_PATIENCE) if loop else 0

    async def _drop(self) -> int:
        dropped = [transport for transport in self._connection_numbers if not transport.is_closing()]
        for transport in dropped:
            transport.abort()
        await _turn()
        return len(dropped)

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
            self._loop = self._server = None

    async def _serve(self, listening: Future[int]) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(
            self._handle, access_log=None, max_line_size=65536, max_field_size=65536, lingering_time=0
        )
        listener = await self._loop.create_server(
            self._server, self._listen_host, self.port, ssl=self._ssl_context, backlog=1024, reuse_address=True
        )
        try:
            listening.set_result(listener.sockets[0].getsockname()[1])
            await self._stopping.wait()
        finally:
            for listening_socket in listener.sockets:
                self._loop.remove_reader(listening_socket.fileno())
            await _turn()  # what was just accepted has to become a connection, or nobody would close it
            listener.close()
            transports = [protocol.transport for protocol in self._server.connections]
            self._server.pre_shutdown()
            await self._server.shutdown(_HANDLER_TIMEOUT)
            for transport in filter(None, transports):
                transport.abort()  # TLS would wait for the client's close_notify
            await _turn()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(PREFIX):
            return await respond_to_control(self, request)
        if request.transport is None:
            return web.Response()  # never sent: the client is gone
        if request.transport not in self._connection_numbers:
            self.connections_opened += 1
        connection_id = self._connection_numbers.setdefault(request.transport, self.connections_opened)
        return await Exchange(self, request, request.transport, self._stopping).carry_out(connection_id)


async def _turn() -> None:
    """Let the loop do what is due: connections are made and lost a few turns after they were asked to."""
    for _ in range(4):
        await asyncio.sleep(0)
