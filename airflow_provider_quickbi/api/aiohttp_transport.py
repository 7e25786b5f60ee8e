"""The asyncio transport: sends one signed request over a pooled ``aiohttp.ClientSession`` and reads the response."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.proxies import proxy_for
from airflow_provider_quickbi.api.responses import MAX_RESPONSE_BYTES
from airflow_provider_quickbi.api.tls import ssl_context
from airflow_provider_quickbi.api.transport_errors import no_response, response_too_large, tls_failure

if TYPE_CHECKING:
    import ssl

    import aiohttp

    from airflow_provider_quickbi.api.responses import RawResponse
    from airflow_provider_quickbi.api.settings import ClientSettings
    from airflow_provider_quickbi.api.signing import SignedRequest


class AiohttpTransport:
    """A connection pool of one event loop, opened on first use."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._tls: ssl.SSLContext | bool = True
        self._proxy: str | None = None

    async def open(self) -> None:
        """Open the pool if it is not open; slow imports and loading of certificates happen in a thread.

        :raises PermanentError: if the proxy or the CA certificates cannot be used.
        """
        if self._session is not None:
            return
        async with self._opening:
            if self._session is None:
                await asyncio.to_thread(self._prepare)
                self._session = self._new_session()

    async def send(self, action: str, request: SignedRequest, *, reuse_connection: bool) -> RawResponse:
        """See :meth:`.requests_transport.RequestsTransport.send`."""
        import aiohttp
        from yarl import URL

        handled = sys.exception()
        await self.open()
        session = self._session if reuse_connection else self._new_session(keep_connections=False)
        assert session is not None  # noqa: S101 - open() made it
        try:
            async with session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                return response.status, response.headers, await self._read(action, response)
        except aiohttp.ClientSSLError as error:
            raise tls_failure(action, self._settings, error, handled) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise no_response(action, self._settings, error, handled) from None
        finally:
            if session is not self._session:
                await session.close()

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _prepare(self) -> None:
        import aiohttp  # noqa: F401 - slow to import

        vendor.signing()
        self._proxy = proxy_for(self._settings)
        self._tls = True if self._settings.endpoint.scheme == "http" else ssl_context(self._settings) or False

    def _new_session(self, *, keep_connections: bool = True) -> aiohttp.ClientSession:
        import aiohttp

        settings = self._settings
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, force_close=not keep_connections),
            timeout=aiohttp.ClientTimeout(
                total=settings.response_timeout, sock_connect=settings.connect_timeout, sock_read=settings.read_timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    async def _read(self, action: str, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise response_too_large(action)
        return b"".join(chunks)
