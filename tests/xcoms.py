"""XComs of triggers that run outside of a triggerer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_quickbi._wait import trigger_memory


def task_instance(run_id: str, try_number: int = 1) -> Any:
    """What a triggerer gives a trigger of the task ``wait``."""
    return SimpleNamespace(dag_id="d", run_id=run_id, task_id="wait", map_index=-1, try_number=try_number)


class XComs:
    """Keeps what triggers store, as plain JSON.

    :param patch: puts them in the place of Airflow's.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._stored: dict[tuple[str, str], str] = {}
        #: How often something was stored.
        self.count = 0
        patch.setattr(trigger_memory, "_set", self._set)
        patch.setattr(trigger_memory, "_get", self._get)

    def of(self, run_id: str, key: str = trigger_memory.XCOM_KEY) -> Any:
        """Return what is stored for the task of a DAG run, ``None`` for nothing."""
        text = self._stored.get((run_id, key))
        return None if text is None else json.loads(text)

    async def _set(self, ti: Any, key: str, value: Any) -> None:
        self._stored[ti.run_id, key] = json.dumps(value, allow_nan=False)
        self.count += 1

    async def _get(self, ti: Any, key: str) -> Any:
        return self.of(ti.run_id, key)
