"""The two clients: blocking over a pooled ``requests.Session``, and asyncio over a pooled ``aiohttp.ClientSession``.

They only carry out steps; what is sent, read and tried again is decided in ``operations``, ``protocol`` and
``attempts``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from airflow_provider_quickbi.api import operations, vendor
from airflow_provider_quickbi.api.credentials import CredentialSource
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.flow import AcquireSlot, GetCredentials, Pause, Report, Send, Step, call_flow
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE, MailTaskPager
from airflow_provider_quickbi.api.protocol import MAX_ANSWER_BYTES, SignedRequest
from airflow_provider_quickbi.api.rate_limit import rate_limiter
from airflow_provider_quickbi.api.retry import RetryPolicy

if TYPE_CHECKING:
    from types import TracebackType

    import aiohttp
    import requests

    from airflow_provider_quickbi.api.models import MailTask, MailTaskRun
    from airflow_provider_quickbi.api.operations import MailTaskPage, Operation
    from airflow_provider_quickbi.api.settings import ClientSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
StatusResponse = tuple[int, Mapping[str, str], bytes]

_READ_CHUNK = 64 * 1024
_warned_about: set[tuple[str, bool]] = set()


class _Client:
    """What both clients have in common.

    :param settings: the account and how to reach it.
    :param retries: how often reads are tried again.
    :param on_call: told the operation and how each call ended, ``answered`` or a kind of error; must not block.
    """

    def __init__(
        self,
        settings: ClientSettings,
        retries: RetryPolicy | None = None,
        on_call: Callable[[str, str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.retries = retries or RetryPolicy()
        self._on_call = on_call
        self._account = settings.account
        self._credentials = CredentialSource(settings.credentials)
        _warn_without_tls(settings)

    def _steps(self, operation: Operation[T], retries: RetryPolicy | None) -> Any:
        pace = rate_limiter(self._account, operation.action, self.settings.status_calls_per_second)
        return call_flow(operation, self.settings.endpoint, pace, retries or self.retries)

    def _report(self, action: str, result: str) -> None:
        if self._on_call is not None:
            self._on_call(action, result)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.endpoint.url} as {self.settings.credentials.auth_type}>"


class QuickBIClient(_Client):
    """A blocking client. Close it, or use it in a ``with`` statement.

    :param settings: the account and how to reach it.
    :param retries: how often reads are tried again; by default 5 attempts within some 8 seconds.
    :param on_call: told the operation and how each call ended, ``answered`` or a kind of error.
    :param sleep: how to wait, in seconds.
    """

    def __init__(
        self,
        settings: ClientSettings,
        retries: RetryPolicy | None = None,
        on_call: Callable[[str, str], None] | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(settings, retries, on_call)
        self._sleep = sleep
        self._session: requests.Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client opens new ones if it is used again."""
        if self._session is not None:
            _close(self._session)
            self._session = None

    def get_mail_task_list(
        self,
        page_num: int = 1,
        page_size: int = DEFAULT_PAGE_SIZE,
        user_nick: str | None = None,
        paused: bool | None = None,
    ) -> MailTaskPage:
        """Return one page of mail tasks, see :func:`.operations.get_mail_task_list`.

        :raises QuickBIError: if there is no answer, after the retries.
        """
        return self.do(operations.get_mail_task_list(page_num, page_size, user_nick, paused))

    def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Iterator[MailTask]:
        """Give all mail tasks, each once, reading further pages only when they are asked for.

        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only those that are not (``False``).
        :param page_size: mail tasks a page.
        :raises QuickBIError: if a page cannot be read, after the retries.
        """
        pager = MailTaskPager()
        while (page_num := pager.page_num) is not None:
            yield from pager.feed(self.get_mail_task_list(page_num, page_size, user_nick, paused))

    def get_mail_task_status(
        self, mail_id: str, task_id: str | int | None = None, *, retries: RetryPolicy | None = None
    ) -> tuple[MailTaskRun, ...]:
        """Return a run, or the latest one; oldest first should there be several, none if there is no such run.

        :param mail_id: the mail task.
        :param task_id: the run; ``None`` for the latest one.
        :param retries: instead of the client's own.
        :raises QuickBIError: if there is no answer, after the retries.
        """
        return self.do(operations.get_mail_task_status(mail_id, task_id, self.settings.zone), retries=retries)

    def manual_run_mail_task(self, mail_id: str) -> bool:
        """Start a run now; it is never tried again.

        :returns: ``True``; the service gives no TaskId.
        :raises NotStartedError: if nothing was started and it may be tried later.
        :raises AlreadyRunningError: if a run is under way.
        :raises TransientError: if it is not known whether a run was started, unless ``reached`` is ``False``.
        :raises QuickBIError: for every other refusal.
        """
        return self.do(operations.manual_run_mail_task(mail_id))

    def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """Call any operation of ``quickbi-public`` and return its ``Result``.

        :param action: its name.
        :param parameters: names and values as the service documents them.
        :param repeatable: whether it may be tried again after throttling and transient errors.
        :raises QuickBIError: if there is no answer.
        """
        return self.do(operations.any_operation(action, parameters or {}, repeatable=repeatable))

    def do(self, operation: Operation[T], *, retries: RetryPolicy | None = None) -> T:
        """Call an operation and return its typed result."""
        steps = self._steps(operation, retries)
        try:
            step = next(steps)
            while True:
                try:
                    response = self._carry_out(step)
                except QuickBIError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def _carry_out(self, step: Step) -> Any:
        match step:
            case GetCredentials(refused):
                if refused is not None:
                    self._credentials.forget(refused)
                return self._credentials.get()
            case AcquireSlot(pace):
                return pace.acquire_blocking(self._sleep)
            case Send(action, request, reuse_connection):
                return self._send(action, request, reuse_connection)
            case Pause(seconds):
                return self._sleep(seconds)
            case Report(action, result):
                return self._report(action, result)

    def _send(self, action: str, request: SignedRequest, reuse_connection: bool) -> StatusResponse:
        import requests
        import urllib3

        handled = sys.exception()
        if self._session is None:
            self._session = self._open_session()
        session = self._session if reuse_connection else self._open_session()
        prepared = requests.PreparedRequest()
        prepared.prepare(method=request.method, url=request.url, headers=dict(request.headers))
        settings = self.settings
        try:
            # Not session.send(): it takes redirects apart and reads their bodies even if it does not follow them.
            with session.get_adapter(request.url).send(
                prepared,
                stream=True,
                timeout=(settings.connect_timeout, settings.read_timeout),
                proxies=session.proxies,
                verify=session.verify or False,
            ) as response:
                return response.status_code, response.headers, self._read(action, response)
        except requests.exceptions.SSLError as error:
            raise _tls_failure(action, settings, error, handled) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _no_response(action, settings, error, handled) from None
        finally:
            if session is not self._session:
                _close(session)

    def _open_session(self) -> requests.Session:
        import requests
        import urllib3

        settings = self.settings
        session = requests.Session()
        session.trust_env = False
        if settings.endpoint.scheme == "https" and _trust(settings) is None:
            # Said once in the log already; urllib3 would say it again for every call.
            said = f"Unverified HTTPS request is being made to host '{re.escape(settings.endpoint.host)}'"
            warnings.filterwarnings("ignore", said, urllib3.exceptions.InsecureRequestWarning)
        session.verify = settings.ca_bundle() or False
        if proxy := settings.proxy():
            session.proxies = {settings.endpoint.scheme: proxy}
        return session

    def _read(self, action: str, response: requests.Response) -> bytes:
        until = time.monotonic() + self.settings.answer_timeout
        # read1() gives what is there; the others wait until a whole chunk is, however slowly it trickles in.
        read = getattr(response.raw, "read1", response.raw.read)
        chunks: list[bytes] = []
        size = 0
        while chunk := read(_READ_CHUNK, decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise _too_large(action)
            if time.monotonic() > until:
                raise TimeoutError(f"no whole answer within {self.settings.answer_timeout:g} s")
        return b"".join(chunks)


class AsyncQuickBIClient(_Client):
    """A client for asyncio. Use it in an ``async with`` statement, in one event loop.

    :param settings: the account and how to reach it.
    :param retries: how often reads are tried again; by default 5 attempts within some 8 seconds.
    :param on_call: told the operation and how each call ended, ``answered`` or a kind of error; must not block.
    """

    def __init__(
        self,
        settings: ClientSettings,
        retries: RetryPolicy | None = None,
        on_call: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__(settings, retries, on_call)
        self._session: aiohttp.ClientSession | None = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._tls: ssl.SSLContext | bool = True
        self._proxy: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client opens new ones if it is used again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get_mail_task_list(
        self,
        page_num: int = 1,
        page_size: int = DEFAULT_PAGE_SIZE,
        user_nick: str | None = None,
        paused: bool | None = None,
    ) -> MailTaskPage:
        """Do as :meth:`QuickBIClient.get_mail_task_list`."""
        return await self.do(operations.get_mail_task_list(page_num, page_size, user_nick, paused))

    async def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> AsyncIterator[MailTask]:
        """Do as :meth:`QuickBIClient.iter_mail_tasks`."""
        pager = MailTaskPager()
        while (page_num := pager.page_num) is not None:
            for mail_task in pager.feed(await self.get_mail_task_list(page_num, page_size, user_nick, paused)):
                yield mail_task

    async def get_mail_task_status(
        self, mail_id: str, task_id: str | int | None = None, *, retries: RetryPolicy | None = None
    ) -> tuple[MailTaskRun, ...]:
        """Do as :meth:`QuickBIClient.get_mail_task_status`."""
        return await self.do(operations.get_mail_task_status(mail_id, task_id, self.settings.zone), retries=retries)

    async def manual_run_mail_task(self, mail_id: str) -> bool:
        """Do as :meth:`QuickBIClient.manual_run_mail_task`."""
        return await self.do(operations.manual_run_mail_task(mail_id))

    async def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """Do as :meth:`QuickBIClient.call`."""
        return await self.do(operations.any_operation(action, parameters or {}, repeatable=repeatable))

    async def do(self, operation: Operation[T], *, retries: RetryPolicy | None = None) -> T:
        """Call an operation and return its typed result."""
        await self._open()
        steps = self._steps(operation, retries)
        try:
            step = next(steps)
            while True:
                try:
                    response = await self._carry_out(step)
                except QuickBIError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _carry_out(self, step: Step) -> Any:
        match step:
            case GetCredentials(refused):
                if refused is not None:
                    self._credentials.forget(refused)
                return await self._credentials.get_async()
            case AcquireSlot(pace):
                return await pace.acquire()
            case Send(action, request, reuse_connection):
                return await self._send(action, request, reuse_connection)
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Report(action, result):
                return self._report(action, result)

    async def _open(self) -> None:
        """Open the session on first use; what takes long to import or to load is done in a thread."""
        if self._session is not None:
            return
        async with self._opening:
            if self._session is None:
                self._tls = await asyncio.to_thread(self._prepare)
                self._session = self._new_session()

    def _prepare(self) -> ssl.SSLContext | bool:
        import aiohttp  # noqa: F401 - imported here because it takes a third of a second

        vendor.signing()
        self._proxy = self.settings.proxy()
        if self.settings.endpoint.scheme == "http":
            return True
        return _trust(self.settings) or False

    def _new_session(self, *, keep_connections: bool = True) -> aiohttp.ClientSession:
        import aiohttp

        settings = self.settings
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, force_close=not keep_connections),
            timeout=aiohttp.ClientTimeout(
                total=settings.answer_timeout, sock_connect=settings.connect_timeout, sock_read=settings.read_timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    async def _send(self, action: str, request: SignedRequest, reuse_connection: bool) -> StatusResponse:
        import aiohttp
        from yarl import URL

        handled = sys.exception()
        await self._open()
        session = self._session if reuse_connection else self._new_session(keep_connections=False)
        assert session is not None  # noqa: S101 - _open() made it
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
            raise _tls_failure(action, self.settings, error, handled) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_response(action, self.settings, error, handled) from None
        finally:
            if session is not self._session:
                await session.close()

    async def _read(self, action: str, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise _too_large(action)
        return b"".join(chunks)


def _close(session: requests.Session) -> None:
    """Close a session's connections now; by itself it leaves that to the garbage collector."""
    adapters: list[Any] = list(session.adapters.values())
    for adapter in adapters:
        for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
            for pool in filter(None, map(manager.pools.get, manager.pools.keys())):
                pool.close()
    session.close()


def _no_response(
    action: str, settings: ClientSettings, error: BaseException, handled: BaseException | None
) -> TransientError:
    """Say that there was no answer, and whether the request can have arrived.

    :param action: the operation.
    :param settings: of the client.
    :param error: what the HTTP library raised.
    :param handled: what the caller was handling when it called: part of the error's context, but none of its causes.
    """
    names = {type(cause).__name__ for cause in _causes(error, handled)}
    unreached = names & {
        "ConnectTimeout",
        "ConnectTimeoutError",
        "NewConnectionError",
        "NameResolutionError",
        "ConnectionRefusedError",
        "gaierror",
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ConnectionTimeoutError",
        "ProxyError",
        "ClientProxyConnectionError",
        "ClientHttpProxyError",
    }
    if names & {"ConnectTimeout", "ConnectTimeoutError", "ConnectionTimeoutError"}:
        what = f"no connection to {settings.endpoint.host_header} within {settings.connect_timeout:g} s"
    elif unreached:
        what = f"no connection to {settings.endpoint.host_header}: {_plain(error, handled)}"
    elif names & {"ReadTimeout", "ReadTimeoutError", "SocketTimeoutError", "ServerTimeoutError", "TimeoutError"}:
        what = f"no answer from {settings.endpoint.host_header} within {settings.read_timeout:g} s"
    else:
        what = f"the connection to {settings.endpoint.host_header} broke: {_plain(error, handled)}"
    return TransientError(what, may_have_arrived=not unreached, action=action, kind=ErrorKind.TRANSIENT)


def _trust(settings: ClientSettings) -> ssl.SSLContext | None:
    """Return what certificates are verified with, ``None`` if they are not to be verified.

    :raises PermanentError: if there are no CA certificates where the settings or the environment say.
    """
    if (bundle := settings.ca_bundle()) is None:
        return None
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ValueError):
        raise PermanentError(
            f"there are no CA certificates in {bundle[:200]!r}",
            kind=ErrorKind.BAD_REQUEST,
            hint="Nothing was sent. Check verify, or the environment's REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE",
        ) from None


def _tls_failure(
    action: str, settings: ClientSettings, error: BaseException, handled: BaseException | None
) -> QuickBIError:
    """Say that TLS failed; unless it is about the certificate, that may have been after the request arrived."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error, handled)):
        return PermanentError(
            "the endpoint's TLS certificate is not trusted",
            action=action,
            kind=ErrorKind.BAD_REQUEST,
            hint="Set verify to the file of the CA that issued it, or check the endpoint's host",
        )
    return TransientError(
        f"the TLS connection to {settings.endpoint.host_header} failed: {_plain(error, handled)}",
        action=action,
        kind=ErrorKind.TRANSIENT,
        hint="If it never works, check port and schema",
    )


def _too_large(action: str) -> TransientError:
    return TransientError(
        f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes and was not read",
        action=action,
        kind=ErrorKind.TRANSIENT,
    )


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Give an exception, its causes, and what urllib3 and aiohttp wrap into it, but nothing from before the call."""
    pending: list[Any] = [error]
    seen: set[int] = {id(handled)}
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
        pending += [getattr(current, "os_error", None), *current.args]


def _plain(error: BaseException, handled: BaseException | None) -> str:
    """Name an error without its text, which may hold the address with its whole query."""
    causes = list(_causes(error, handled))
    system = next((cause for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return f"{type(error).__name__}, {system.strerror}" if isinstance(system, OSError) else type(error).__name__


def _warn_without_tls(settings: ClientSettings) -> None:
    insecure = (settings.endpoint.url, settings.verify is False)
    if (settings.endpoint.scheme == "https" and settings.verify is not False) or insecure in _warned_about:
        return
    _warned_about.add(insecure)
    if settings.endpoint.scheme == "http":
        log.warning("Quick BI at %s is asked without TLS: requests and answers can be read on the way", insecure[0])
    else:
        log.warning("The TLS certificate of Quick BI at %s is not verified (verify=False)", insecure[0])
