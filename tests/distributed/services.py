"""PostgreSQL and Redis that somebody runs: a database and a Redis database number of one's own, gone afterwards."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import redis
from psycopg2 import sql

POSTGRES_VARIABLE = "QUICKBI_TEST_POSTGRES"
REDIS_VARIABLE = "QUICKBI_TEST_REDIS"
_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
_REDIS = "redis://127.0.0.1:6379"
#: Seconds that a service may take to respond before it counts as missing.
_RESPONSE_TIMEOUT = 5
#: Shows that a Redis database number is taken; it outlives a test that was killed by this many seconds at the most.
_MARK, _MARK_SECONDS = "airflow-provider-quickbi-tests", 3600


def postgres_url() -> str:
    """Return where PostgreSQL is, with a user who may create databases."""
    return os.environ.get(POSTGRES_VARIABLE) or _POSTGRES


def redis_url() -> str:
    """Return where Redis is, without a database number."""
    return urlunsplit(urlsplit(os.environ.get(REDIS_VARIABLE) or _REDIS)._replace(path=""))


def refusal() -> str | None:
    """Return one sentence that says what is missing and how to give another address; ``None`` if all is there."""
    services = (
        ("PostgreSQL", POSTGRES_VARIABLE, postgres_url(), _why_no_postgres),
        ("Redis", REDIS_VARIABLE, redis_url(), _why_no_redis),
    )
    missing, variables = [], []
    for name, variable, url, why_not in services:
        if (why := why_not(url)) is not None:
            missing.append(f"{name} at {_without_password(url)} ({why})")
            variables.append(f"{variable}={_without_password(url)}")
    if not missing:
        return None
    return (
        f"The distributed tests need {' and '.join(missing)}: start what is missing, or give another address through "
        f"the environment, as in {' '.join(variables)}."
    )


@contextmanager
def own_database() -> Iterator[str]:
    """Create a PostgreSQL database and drop it afterwards, whoever is still connected to it; yields its URL."""
    name = f"quickbi_tests_{secrets.token_hex(6)}"
    _administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(postgres_url())._replace(path=f"/{name}", query=""))
    finally:
        _administer(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def own_redis_number() -> Iterator[str]:
    """Take a Redis database number that holds nothing, and empty it afterwards; yields its URL."""
    for number in range(15, -1, -1):
        url = f"{redis_url()}/{number}"
        # A number that Redis does not have is an error of its own.
        with (
            closing(redis.Redis.from_url(url, socket_timeout=_RESPONSE_TIMEOUT)) as client,
            suppress(redis.ResponseError),
        ):
            if client.dbsize() == 0 and client.set(_MARK, os.getpid(), nx=True, ex=_MARK_SECONDS):
                break
    else:
        raise RuntimeError(f"Every database number of Redis at {_without_password(redis_url())} holds keys")
    try:
        yield url
    finally:
        with closing(redis.Redis.from_url(url, socket_timeout=_RESPONSE_TIMEOUT)) as client:
            client.flushdb()


def exists(database_url: str) -> bool:
    """Whether there is such a PostgreSQL database."""
    return bool(_administer(sql.SQL("SELECT 1 FROM pg_database WHERE datname = {}").format(_name_in(database_url))))


def keys(number_url: str) -> int:
    """Return how many keys a Redis database number holds."""
    with closing(redis.Redis.from_url(number_url, socket_timeout=_RESPONSE_TIMEOUT)) as client:
        return int(client.dbsize())


def connect(url: str) -> psycopg2.extensions.connection:
    """Connect to PostgreSQL; each statement is a transaction of its own."""
    connection = psycopg2.connect(url, connect_timeout=_RESPONSE_TIMEOUT)
    connection.autocommit = True
    return connection


def _administer(statement: sql.Composed) -> list[tuple[object, ...]]:
    with closing(connect(postgres_url())) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def _name_in(database_url: str) -> sql.Literal:
    return sql.Literal(urlsplit(database_url).path.removeprefix("/"))


def _why_no_postgres(url: str) -> str | None:
    try:
        with closing(connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            return None if cursor.fetchone() == (True,) else "its user may not create databases"
    except psycopg2.Error as error:
        return _in_brief(error)


def _why_no_redis(url: str) -> str | None:
    try:
        with closing(redis.Redis.from_url(url, socket_connect_timeout=_RESPONSE_TIMEOUT)) as client:
            client.ping()
            return None
    except (redis.RedisError, ValueError) as error:
        return _in_brief(error)


def _in_brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\.$", "", re.sub(r"^.*(FATAL|failed): +", "", lines[0]))


def _without_password(url: str) -> str:
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", url)
