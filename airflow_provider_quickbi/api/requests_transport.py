"""The blocking transport: sends one signed request over a pooled ``requests.Session`` and reads the response."""

from __future__ import annotations

import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.proxies import proxy_for
from airflow_provider_quickbi.api.responses import MAX_RESPONSE_BYTES
from airflow_provider_quickbi.api.tls import ssl_context
from airflow_provider_quickbi.api.transport_errors import no_response, response_too_large, tls_failure

if TYPE_CHECKING:
    import requests

    from airflow_provider_quickbi.api.clock import Clock
    from airflow_provider_quickbi.api.responses import RawResponse
    from airflow_provider_quickbi.api.settings import ClientSettings
    from airflow_provider_quickbi.api.signing import SignedRequest

_READ_CHUNK = 64 * 1024


class RequestsTransport:
    """A connection pool that is opened on first use.

    :param clock: limits how long a response may take.
    """

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._session: requests.Session | None = None

    def open(self) -> None:
        """Open the pool if it is not open, and import what takes half a second: not between a call's slot and the call.

        :raises PermanentError: if the proxy or the CA certificates cannot be used.
        """
        if self._session is None:
            vendor.signing()
            self._session = self._open_session()

    def send(self, action: str, request: SignedRequest, *, reuse_connection: bool) -> RawResponse:
        """Send a request and return status, headers and body.

        :param reuse_connection: whether a connection of the pool may be used.
        :raises QuickBIError: if there is no response.
        """
        import requests
        import urllib3

        handled = sys.exception()
        self.open()
        session = self._session if reuse_connection else self._open_session()
        assert session is not None  # noqa: S101 - open() made it
        prepared = requests.PreparedRequest()
        prepared.prepare(method=request.method, url=request.url, headers=dict(request.headers))
        settings = self._settings
        try:
            # Not session.send(), which reads the bodies of redirects even if it does not follow them.
            with session.get_adapter(request.url).send(
                prepared,
                stream=True,
                timeout=(settings.connect_timeout, settings.read_timeout),
                proxies=session.proxies,
                verify=session.verify or False,
            ) as response:
                return response.status_code, response.headers, self._read(action, response)
        except requests.exceptions.SSLError as error:
            raise tls_failure(action, settings, error, handled) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise no_response(action, settings, error, handled) from None
        finally:
            if session is not self._session:
                _close(session)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._session is not None:
            _close(self._session)
            self._session = None

    def _open_session(self) -> requests.Session:
        import requests
        import urllib3

        settings = self._settings
        session = requests.Session()
        session.trust_env = False
        if settings.endpoint.scheme == "https" and ssl_context(settings) is None:
            # Logged once already; urllib3 would warn on every call.
            message = f"Unverified HTTPS request is being made to host '{re.escape(settings.endpoint.host)}'"
            warnings.filterwarnings("ignore", message, urllib3.exceptions.InsecureRequestWarning)
        session.verify = settings.ca_bundle() or False
        if proxy := proxy_for(settings):
            session.proxies = {settings.endpoint.scheme: proxy}
        return session

    def _read(self, action: str, response: requests.Response) -> bytes:
        give_up_at = self._clock.monotonic() + self._settings.response_timeout
        # read1() returns what has arrived; read() waits for a whole chunk, however slowly it trickles in.
        read = getattr(response.raw, "read1", response.raw.read)
        chunks: list[bytes] = []
        size = 0
        while chunk := read(_READ_CHUNK, decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise response_too_large(action)
            if self._clock.monotonic() > give_up_at:
                raise TimeoutError(f"response incomplete after {self._settings.response_timeout:g} s")
        return b"".join(chunks)


def _close(session: requests.Session) -> None:
    """Close a session's connections now; by itself it leaves that to the garbage collector."""
    adapters: list[Any] = list(session.adapters.values())
    for adapter in adapters:
        for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
            for pool in filter(None, map(manager.pools.get, manager.pools.keys())):
                pool.close()
    session.close()
