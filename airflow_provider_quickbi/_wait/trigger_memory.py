"""XComs that a trigger stores for its task without a worker (Airflow 3.3 and later): what it has learnt, the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_quickbi._wait.codec import decode_group, encode_group

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup

#: Key of the XCom; Airflow deletes it before each try.
XCOM_KEY = "quickbi_wait"


async def remember(ti: Any, group: WaitGroup) -> bool:
    """Store what was learnt; return whether it is stored.

    :param ti: the trigger's task instance; ``None`` outside of a triggerer.
    :param group: what is waited for.
    """
    return await push(ti, XCOM_KEY, encode_group(group))


async def push(ti: Any, key: str, value: Any) -> bool:
    """Store an XCom; return whether it is stored.

    :param ti: the trigger's task instance; ``None`` outside of a triggerer.
    :param key: of the XCom.
    :param value: plain JSON.
    """
    if not _supported():
        return False
    try:
        from airflow.sdk.execution_time.comms import SetXCom

        await _send(SetXCom(key=key, value=value, **_where(ti)))
    except Exception:  # noqa: BLE001 - whatever is wrong, the task stores it on a worker instead
        return False
    return True


async def recall(ti: Any) -> WaitGroup | None:
    """Return what was learnt before the trigger was made anew, ``None`` if nothing is stored or it cannot be read.

    :param ti: the trigger's task instance; ``None`` outside of a triggerer.
    """
    if not _supported():
        return None
    try:
        from airflow.sdk.execution_time.comms import GetXCom

        result = await _send(GetXCom(key=XCOM_KEY, **_where(ti)))
        return decode_group(result.value) if isinstance(result.value, dict) else None
    except Exception:  # noqa: BLE001 - as if this were the first trigger of the wait
        return None


def _supported() -> bool:
    return hasattr(BaseTrigger, "on_kill")  # came with the same version


def _where(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}


async def _send(message: Any) -> Any:
    from airflow.sdk.execution_time import task_runner

    return await task_runner.SUPERVISOR_COMMS.asend(message)
