"""Reads connections, and returns the message of a refused one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_quickbi.connection import (
    ConnectionFieldError,
    QuickBIConnection,
    RawConnection,
    read_connection,
)

PLAIN = RawConnection(conn_id="my_quickbi", login="LTAI-id", password="the-secret")


def read(raw: RawConnection = PLAIN, /, **extra: Any) -> QuickBIConnection:
    return read_connection(replace(raw, extra=extra))


def plain(**fields: Any) -> RawConnection:
    """Return the plain connection with other standard fields."""
    return replace(PLAIN, **fields)


def fields(connection: QuickBIConnection) -> dict[str, Any]:
    return dict(connection.settings.credentials.fields)


def refusal(raw: RawConnection = PLAIN, /, **extra: Any) -> str:
    with pytest.raises(ConnectionFieldError) as caught:
        read_connection(replace(raw, extra=extra or raw.extra))
    message = str(caught.value)
    assert message.startswith(f"Connection '{raw.conn_id}': ")
    assert message.endswith(".")
    assert message.count("\n") == 0
    assert caught.value.__cause__ is None
    return message


REQUIRED = {
    "access_key": {},
    "sts": {"security_token": "the-token"},
    "ram_role_arn": {"role_arn": "acs:ram::1:role/r"},
    "ecs_ram_role": {},
    "oidc_role_arn": {
        "role_arn": "acs:ram::1:role/r",
        "oidc_provider_arn": "acs:ram::1:oidc-provider/p",
        "oidc_token_file_path": "/var/run/token",
    },
    "credentials_uri": {"credentials_uri": "http://127.0.0.1:7002/"},
    "bearer": {"bearer_token": "the-token"},
    "default": {},
}
