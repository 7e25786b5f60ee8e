"""XComs that a trigger stores for its task without a worker: its progress, and the result.

``ti`` is the trigger's task instance, ``None`` outside of a triggerer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.codec import decode_group, encode_group

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup

#: Key of the XCom. Airflow deletes it before a try that starts on a worker; ``since`` identifies the try.
XCOM_KEY = "quickbi_wait"
#: Key of a task's result.
RESULT_KEY = "return_value"


async def remember(ti: Any, group: WaitGroup) -> bool:
    """Store what was learnt; return whether it is stored."""
    return await push(ti, XCOM_KEY, encode_group(group))


async def push(ti: Any, key: str, value: Any) -> bool:
    """Store an XCom; return whether it is stored.

    :param value: plain JSON. Another task may be mapped over a list or a dict.
    """
    try:
        await _set(ti, key, value)
    except Exception:  # noqa: BLE001 - on any error, it is stored later, or on a worker
        return False
    return True


async def recall(ti: Any) -> WaitGroup | None:
    """Return what was learnt before the trigger was recreated, ``None`` if nothing is stored or it cannot be read."""
    try:
        return decode_group(await read(ti))
    except (KeyError, ValueError, TypeError):
        return None  # as if this were the first trigger of the wait


async def read(ti: Any) -> Any:
    """Return the stored value, ``None`` if there is none or the request to Airflow fails."""
    try:
        return await _get(ti, XCOM_KEY)
    except Exception:  # noqa: BLE001 - as if nothing were stored
        return None


async def clear_result(ti: Any) -> None:
    """Delete the result of an earlier try, as a worker does when a try starts.

    :raises Exception: what Airflow raises if it cannot.
    """
    from airflow.sdk.execution_time.comms import DeleteXCom

    await _send(DeleteXCom(key=RESULT_KEY, **_where(ti)))


async def _set(ti: Any, key: str, value: Any) -> None:
    try:
        from airflow.sdk.execution_time.comms import SetXCom
    except ImportError:
        await _in_database("set", key=key, value=value, **_where(ti))
    else:
        length = len(value) if isinstance(value, (list, dict)) and key == RESULT_KEY else None
        await _send(SetXCom(key=key, value=value, mapped_length=length, **_where(ti)))


async def _get(ti: Any, key: str) -> Any:
    try:
        from airflow.sdk.execution_time.comms import GetXCom
    except ImportError:
        return await _in_database("get_one", key=key, **_where(ti))
    return (await _send(GetXCom(key=key, **_where(ti)))).value


def _where(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}


async def _send(message: Any) -> Any:
    from airflow.sdk.execution_time import task_runner

    return await task_runner.SUPERVISOR_COMMS.asend(message)


async def _in_database(method: str, **arguments: Any) -> Any:
    """Call a method of Airflow 2.11's XComs, which are in the metadata database; it blocks."""
    from airflow.models.xcom import XCom
    from asgiref.sync import sync_to_async

    return await sync_to_async(getattr(XCom, method))(**arguments)
