"""How a hook looks its Airflow connection up, on a worker and on an event loop, and mail tasks by their names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_quickbi import _pacing, connection
from airflow_provider_quickbi.api.lookup import find_by_name
from airflow_provider_quickbi.connection import QuickBIConnection, RawConnection
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIConnectionUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_quickbi.api.models import MailTask


def read_connection(hook: BaseHook, conn_id: str) -> QuickBIConnection:
    """Look a connection up and parse it.

    :param hook: its ``get_connection`` is used.
    :raises QuickBIConnectionError: if a field is invalid or missing.
    :raises QuickBIConnectionUnreadable: if the connection does not exist or cannot be read now.
    """
    with _field_errors():
        return _read(hook, conn_id)


def _read(hook: BaseHook, conn_id: str) -> QuickBIConnection:
    with _lookup_errors(conn_id):
        found = hook.get_connection(conn_id)
    raw = _raw(conn_id, found)
    _mask(connection.secrets_of(raw))
    parsed = connection.read_connection(raw)
    if (pacing_conn_id := parsed.pacing_conn_id) is None:
        return parsed
    with _lookup_errors(pacing_conn_id, _pacing.CONN_TYPE):
        redis = BaseHook.get_connection(pacing_conn_id)
    _mask([redis.password or ""])
    return _paced(parsed, redis)


async def read_connection_async(hook: BaseHook, conn_id: str) -> QuickBIConnection:
    """See :func:`read_connection` without blocking the event loop."""
    with _field_errors():
        return await _read_async(hook, conn_id)


async def _read_async(hook: BaseHook, conn_id: str) -> QuickBIConnection:
    from asgiref.sync import sync_to_async

    with _lookup_errors(conn_id):
        found = await _find_async(hook, conn_id)
    raw = _raw(conn_id, found)
    # Masking notifies the triggerer's supervisor and waits for it. On the event loop Airflow 3.0 raises, and other
    # versions leave the supervisor, which writes the log, without the mask.
    await sync_to_async(_mask)(connection.secrets_of(raw))
    parsed = connection.read_connection(raw)
    if (pacing_conn_id := parsed.pacing_conn_id) is None:
        return parsed
    with _lookup_errors(pacing_conn_id, _pacing.CONN_TYPE):
        redis = await _find_async(BaseHook(), pacing_conn_id)
    await sync_to_async(_mask)([redis.password or ""])
    return _paced(parsed, redis)


def _paced(parsed: QuickBIConnection, redis: Any) -> QuickBIConnection:
    """Let a client share its rate limit through a Redis."""
    try:
        pacing = _pacing.redis_settings_of(redis)
    except ValueError as error:
        raise connection.ConnectionFieldError(str(error)) from None
    return replace(parsed, settings=replace(parsed.settings, pacing=pacing))


async def _find_async(hook: BaseHook, conn_id: str) -> Any:
    """Look a connection up without blocking the event loop.

    Where the supervisor runs in the same process, as in ``dag.test()``, Airflow's asynchronous lookup finds no
    connection of the metadata database, and it never calls an overridden ``get_connection``. The synchronous lookup
    does both.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from airflow.providers.common.compat.sdk import AirflowNotFoundException
    from asgiref.sync import sync_to_async

    if _overrides(hook, "aget_connection") or not _overrides(hook, "get_connection"):
        try:
            return await get_async_connection(conn_id, hook)
        except AirflowNotFoundException:
            pass
    return await sync_to_async(hook.get_connection)(conn_id)


def find_all(visible: Sequence[MailTask], names: Sequence[str], owner: str | None, log: Any) -> list[MailTask]:
    """Return the mail tasks with exactly these names, in the same order, and log what was found.

    :param visible: all mail tasks that the AccessKey may see.
    :param owner: nickname or user id of the owner, for names that several mail tasks share.
    :raises PermanentError: if no or more than one mail task has a name.
    """
    found = [find_by_name(visible, name, owner) for name in names]
    for mail_task in found:
        name, mail_id = mail_task.subscribe_name, mail_task.mail_id
        log.info("Mail task %r has MailId %s.", name, mail_id)
        if mail_task.paused:
            log.warning("Mail task %r (MailId %s) is paused: its schedule starts no runs.", name, mail_id)
    return found


def _overrides(hook: BaseHook, method: str) -> bool:
    own, base = getattr(hook, method, None), getattr(BaseHook, method, None)
    return getattr(own, "__func__", own) is not getattr(base, "__func__", base)


@contextmanager
def _field_errors() -> Iterator[None]:
    """Raise errors of fields as a task does, with a traceback that ends before the frames that hold the connection."""
    try:
        yield
    except connection.ConnectionFieldError as error:
        error.__traceback__ = error.__context__ = None
        raise QuickBIConnectionError(str(error)) from None


@contextmanager
def _lookup_errors(conn_id: str, conn_type: str = connection.CONN_TYPE) -> Iterator[None]:
    """Raise one retryable error if there is no connection, without the original text, which may quote it.

    "Not found" is ambiguous: most versions of Airflow also say so if a secrets backend or the API server does not
    respond. Any other error means that the connection cannot be read now.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        yield
    except Exception as error:  # noqa: BLE001 - each secrets backend raises its own
        if isinstance(error, AirflowNotFoundException):
            problem = (
                "does not exist, or Airflow cannot read it now; see its log. Add a connection of type "
                f"{conn_type!r} under Admin > Connections, or as AIRFLOW_CONN_{conn_id.upper()} in the "
                "environment."
            )
        else:
            problem = f"cannot be read now ({type(error).__name__}). Check the secrets backend and Airflow's log."
        raise QuickBIConnectionUnreadable(f"Connection {conn_id!r} {problem}", may_have_arrived=False) from None


def _raw(conn_id: str, found: Any) -> RawConnection:
    return RawConnection(
        conn_id=conn_id,
        conn_type=found.conn_type,
        login=found.login,
        password=found.password,
        host=found.host,
        port=found.port,
        schema=found.schema,
        extra=connection.parse_extra(conn_id, found.extra),
    )


def _mask(secrets: Sequence[str]) -> None:
    from airflow.providers.common.compat.sdk import mask_secret

    for secret in filter(None, secrets):
        mask_secret(secret)
