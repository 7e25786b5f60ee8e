"""The link from a task to the Quick BI console."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

#: The XCom in which a task leaves the console's address when it runs.
CONSOLE_URL_KEY = "quickbi_console_url"


class QuickBIConsoleLink(BaseOperatorLink):
    """Opens the Quick BI console; the address was stored when the task ran, so no connection is needed to show it."""

    name = "Quick BI"
    #: Where Airflow 3 looks for the address: it is there as soon as the task runs.
    xcom_key = CONSOLE_URL_KEY

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow calls it so
        """Return the stored address, or an empty text if the task has not run or no address is known.

        :param operator: the task.
        :param ti_key: which of its instances.
        """
        return XCom.get_value(key=CONSOLE_URL_KEY, ti_key=ti_key) or ""

    @staticmethod
    def store(context: Any, console_url: str | None) -> None:
        """Leave the console's address for :meth:`get_link`.

        :param context: of the running task.
        :param console_url: ``None`` if it is not known.
        """
        if console_url is not None and (task_instance := context.get("ti")) is not None:
            task_instance.xcom_push(key=CONSOLE_URL_KEY, value=console_url)
