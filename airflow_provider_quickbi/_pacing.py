"""Reads the Airflow ``redis`` connection that ``pacing_conn_id`` names, as Airflow's own Redis hook does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api.shared_rate_limit import DEFAULT_REDIS_PORT, RedisSettings
from airflow_provider_quickbi.connection import is_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

CONN_TYPE = "redis"
_SSL_OPTIONS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")


def redis_settings_of(connection: Any) -> RedisSettings:
    """Return where the Redis of a connection is; nothing is called.

    :param connection: Airflow's, of type ``redis``: ``host``, ``port``, ``login``, ``password``, and in the extra
        ``db``, ``ssl``, ``ssl_ca_certs``, ``ssl_cert_reqs``, ``ssl_certfile``, ``ssl_check_hostname``, ``ssl_keyfile``.
    :raises ValueError: if it is no such connection; the message names the field and holds nothing secret.
    """
    where = f"Connection {connection.conn_id!r}"
    if connection.conn_type != CONN_TYPE:
        raise ValueError(f"{where}: conn_type is {connection.conn_type!r}. It must be 'redis'.")
    host = (connection.host or "").strip()
    if not host:
        raise ValueError(f"{where}: host is missing. Write the name or address of the Redis server.")
    extra = connection.extra_dejson
    return RedisSettings(
        host=host,
        port=connection.port or DEFAULT_REDIS_PORT,
        db=_database(where, extra),
        username=connection.login or None,
        password=connection.password or None,
        unusable=f"{where}: password holds Airflow's mask. Enter it again" if is_mask(connection.password) else None,
        ssl=_flag(where, extra),
        ssl_options=tuple((name, extra[name]) for name in _SSL_OPTIONS if extra.get(name) is not None),
    )


def _database(where: str, extra: Mapping[str, Any]) -> int:
    value = extra.get("db")
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ValueError(f"{where}: db is not a database number. Write a number such as 0.")
    return int(value)


def _flag(where: str, extra: Mapping[str, Any]) -> bool:
    value = extra.get("ssl", False)
    text = str(value).strip().lower()
    if text not in ("true", "false", ""):
        raise ValueError(f"{where}: ssl is neither true nor false. Write true or false.")
    return text == "true"
