"""A deferrable wait as peers write it: first poll on the worker, then a loop for each wait, on the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook, BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent


def _client() -> Any:
    from benchmarks.peers import official_client

    connection = BaseHook.get_connection("quickbi_default")
    return official_client(
        {
            "login": connection.login,
            "password": connection.password,
            "host": connection.host,
            "port": connection.port,
            "schema": connection.schema or connection.extra_dejson.get("schema", "http"),
            "extra": connection.extra_dejson,
        }
    )


def _request(mail_id: str) -> Any:
    from alibabacloud_quickbi_public20220101.models import GetMailTaskStatusRequest

    return GetMailTaskStatusRequest(mail_id=mail_id)


class PeerTrigger(BaseTrigger):
    """Polls one mail task until it is ``SENT``; errors are ignored.

    :param mail_id: the mail task.
    :param poke_interval: seconds.
    """

    def __init__(self, mail_id: str, poke_interval: float) -> None:
        super().__init__()
        self.mail_id = mail_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return its class and arguments."""
        arguments = {"mail_id": self.mail_id, "poke_interval": self.poke_interval}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll."""
        client = await asyncio.to_thread(_client)
        while True:
            try:
                response = await client.get_mail_task_status_async(_request(self.mail_id))
                if response.body.result[-1].status == "SENT":
                    yield TriggerEvent({"status": "SENT"})
                    return
            except Exception as error:
                self.log.warning("%s", type(error).__name__)
            await asyncio.sleep(self.poke_interval)


class PeerSensor(BaseSensorOperator):
    """Polls once on the worker, then defers.

    :param mail_id: the mail task.
    """

    def __init__(self, *, mail_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mail_id = mail_id

    def poke(self, context: Any) -> bool:  # noqa: ARG002 - Airflow's signature
        """Return whether the mail task is ``SENT``."""
        try:
            response = _client().get_mail_task_status(_request(self.mail_id))
        except Exception as error:
            self.log.warning("%s", type(error).__name__)
            return False
        return bool(response.body.result[-1].status == "SENT")

    def execute(self, context: Any) -> None:
        """Wait."""
        if not self.poke(context):
            self.defer(trigger=PeerTrigger(self.mail_id, self.poke_interval), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any) -> None:
        """Resume."""
