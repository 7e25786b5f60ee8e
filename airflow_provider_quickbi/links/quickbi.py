"""The link from a task to the Quick BI console."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

#: The XCom in which a task leaves the console's address when it runs.
CONSOLE_URL_KEY = "quickbi_console_url"
#: Attribute of a task that runs: what this process has stored; ``None`` if an earlier one has.
_STORED = "_quickbi_console_url"


class QuickBIConsoleLink(BaseOperatorLink):
    """Opens the Quick BI console; the address was stored when the task ran, so no connection is needed to show it."""

    name = "Quick BI"
    #: Where Airflow 3 looks for the address: it is there as soon as the task runs.
    xcom_key = CONSOLE_URL_KEY

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the stored address, or an empty text if the task has not run or no address is known.

        Airflow 3 calls this on the worker after the task, and logs an error about an XCom that is not there. So it is
        not read if the task ended before it stored the address.

        :param operator: the task.
        :param ti_key: which of its instances; on Airflow 2 its key, on Airflow 3 the one that has just run.
        """
        stored: str | None = getattr(operator, _STORED, "")
        if stored is None or isinstance(ti_key, tuple):
            stored = XCom.get_value(key=CONSOLE_URL_KEY, ti_key=ti_key)
        return stored or ""

    @staticmethod
    def store(task: Any, context: Any, console_url: str | None) -> None:
        """Store the console's address for :meth:`get_link`.

        :param task: that runs.
        :param context: of the task.
        :param console_url: ``None`` if it is not known.
        """
        if (task_instance := context.get("ti")) is not None:
            task_instance.xcom_push(key=CONSOLE_URL_KEY, value=console_url or "")
            setattr(task, _STORED, console_url or "")

    @staticmethod
    def resumed(task: Any) -> None:
        """Say that the process in which the task started has stored the address.

        :param task: that resumes after a deferral.
        """
        setattr(task, _STORED, None)
