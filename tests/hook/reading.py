"""Hooks and connections, and how a test reads one."""

from __future__ import annotations

import asyncio
import socket
import traceback
from typing import Any

import pytest

from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

VARIABLE = "AIRFLOW_CONN_QUICKBI_DEFAULT"

SECRETS = {"password": "password-to-be-masked", "security_token": "token-to-be-masked"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def shows_no_library(error: BaseException) -> bool:
    """Whether a traceback of the error is only about this provider."""
    shown = "".join(traceback.format_exception(error))
    return "urllib3" not in shown and "requests/" not in shown and "During handling" not in shown


def read(hook: QuickBIHook, how: str) -> Any:
    if how == "blocking":
        return hook.quickbi_connection
    return asyncio.run(asyncio.wait_for(hook.read_connection_async(), 20))


#: The loader of Airflow 3.0 to 3.2 warns about itself when it looks for a connection in the database.
without_airflows_own_warnings = pytest.mark.filterwarnings("ignore")
