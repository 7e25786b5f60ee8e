"""Every Python example of the documentation does what it says: DAGs in Airflow itself, the rest as programs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_quickbi import connection
from airflow_provider_quickbi.hooks import quickbi as hooks
from airflow_provider_quickbi.notifications import quickbi as notifications
from airflow_provider_quickbi.operators import quickbi as operators
from airflow_provider_quickbi.sensors import quickbi as sensors
from airflow_provider_quickbi.testing.__main__ import add_demo_data
from airflow_provider_quickbi.triggers import quickbi as triggers

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The mail tasks that the examples name, with the names that Quick BI shows.
MAIL_TASKS = {
    "daily-sales": "Daily sales",
    "daily-stock": "Daily stock levels",
    "weekly-review": "Weekly review",
    "board-report": "董事会月报",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def names(self) -> set[str]:
        """Return every name and attribute that it uses."""
        nodes = list(ast.walk(ast.parse(self.text)))
        return {node.id for node in nodes if isinstance(node, ast.Name)} | {
            node.attr for node in nodes if isinstance(node, ast.Attribute)
        }


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, those within lists, too."""
    found: list[Block] = []
    lines: list[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        selector = re.match(r"\s*(```+|~~~+)(.*)", line)
        if selector is None:
            if lines is not None:
                lines.append(line)
        elif lines is None:
            begin, language, lines = number, selector[2].strip(), []
        else:
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, begin, language, "\n".join(lines) + "\n"))
            lines = None
    assert lines is None, f"{page.name}: a block is not closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language.lower().startswith("py")]
DAGS = [block for block in PYTHON if "DAG" in block.names()]
EVENT_DRIVEN = [block for block in DAGS if "AssetWatcher" in block.names()]
#: ``dag.test()`` of Airflow 3.3 cannot run a DAG with a deadline; tests/live/test_notices.py runs one.
WITH_DEADLINE = [block for block in DAGS if "DeadlineAlert" in block.names()]
PROGRAMS = [block for block in PYTHON if block not in DAGS]


SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture
def delivered(quickbi):
    """Every mail task that the examples name has a run that is sent, later than any DAG run of the test."""
    quickbi.clock.advance(60)
    for mail_id, name in MAIL_TASKS.items():
        quickbi.add_mail_task(name, mail_id=mail_id)
        quickbi.add_run(mail_id)
    return quickbi


@pytest.fixture(autouse=True)
def cubes(quickbi):
    """The dataset that the examples name, with a refresh that has succeeded."""
    cubes = quickbi.datasets
    cubes.add("Sales", dataset_id="sales-cube")
    cubes.add_run("sales-cube")
    return cubes


def applies(block: Block, airflow_version: tuple[int, ...]) -> None:
    """Skip what an older Airflow cannot import."""
    if airflow_version < (3,) and "from airflow.sdk import" in block.text:
        pytest.skip("airflow.sdk came with Airflow 3")


def test_every_example_is_a_whole_program_that_is_run_here():
    """A fragment would have to be marked otherwise than as Python, and there is none."""
    assert {block.language for block in PYTHON} == {"python"}
    assert len(DAGS) + len(PROGRAMS) == sum(page.read_text().count("```py") for page in PAGES)


def test_every_mail_task_of_the_documentation_is_one_of_the_simulator(quickbi):
    quickbi.reset()
    add_demo_data(quickbi)
    seeded = {mail["mail_id"] for mail in quickbi.mail_tasks()}
    pages = [*PAGES, ROOT / "README.zh-CN.md", *(ROOT / "example_dags").glob("*.py")]

    named = {
        mail_id
        for page in pages
        for value in re.findall(r'mail_id"?[=:] ?(\[[^]]+\]|"[^"]+")', page.read_text(encoding="utf-8"))
        for mail_id in re.findall('"([^"]+)"', value)
    }

    assert len(named) >= 4
    assert named - seeded == set()


def test_every_operator_sensor_trigger_and_the_hook_have_an_example():
    public = {
        name
        for module in (operators, sensors, triggers, notifications, hooks)
        for name, _ in inspect.getmembers(module, inspect.isclass)
        if re.search("^QuickBI.*(Operator|Sensor|EventTrigger|Notifier|Hook)$", name)
    }
    assert len(public) >= 8
    assert public - set().union(*(block.names() for block in PYTHON)) == set()


@pytest.mark.parametrize("block", [block for block in DAGS if block not in EVENT_DRIVEN + WITH_DEADLINE], ids=str)
def test_a_dag_of_the_documentation_succeeds(block, airflow, airflow_version, delivered):
    applies(block, airflow_version)
    if airflow_version < (3,) and "executed_before" in block.text:
        # A run by hand is due when the last scheduled one was, and the latest run must lie in the window around that.
        now = datetime.now(SHANGHAI)
        due = now.replace(hour=0, minute=30, second=0, microsecond=0)
        delivered.remove_mail_task("daily-sales")
        delivered.add_mail_task(MAIL_TASKS["daily-sales"], mail_id="daily-sales")
        delivered.add_run("daily-sales", exec_time=due if due <= now else due - timedelta(days=1))
    if airflow_version < (3,) and "QuickBIDatasetRefreshSensor" in block.text:
        now = datetime.now(UTC)
        due = now.replace(hour=7, minute=0, second=0, microsecond=0)
        delivered.datasets.remove("sales-cube")
        delivered.datasets.add("Sales", dataset_id="sales-cube")
        delivered.datasets.add_run("sales-cube", exec_time=due if due <= now else due - timedelta(days=1))

    ran = airflow.run_source(block.text)

    assert ran.states, "it has no tasks"
    assert set(ran.states.values()) == {"success"}, ran.log
    assert ran.errors == {}
    assert delivered.calls, "it called nothing"


@pytest.mark.parametrize("block", WITH_DEADLINE, ids=str)
def test_a_dag_of_the_documentation_has_a_deadline_with_a_callback(block, airflow, airflow_version):
    if airflow_version < (3, 1):
        pytest.skip("DeadlineAlert came with Airflow 3.1")

    deadline = airflow.parse_source(block.text).deadline

    (alert,) = deadline if isinstance(deadline, list) else [deadline]
    assert alert.callback.path.endswith("QuickBISendMailNotifier")


@pytest.mark.parametrize("block", EVENT_DRIVEN, ids=str)
def test_a_dag_of_the_documentation_is_scheduled_by_a_delivery(block, airflow, airflow_version, delivered, cubes):
    applies(block, airflow_version)
    (asset,) = airflow.parse_source(block.text).schedule
    (watcher,) = airflow.watchers(asset)
    watcher.poll_interval = 0.01

    if isinstance(watcher, triggers.QuickBIDatasetRefreshEventTrigger):
        action, deliver = "QueryLastAccelerationEngineJob", lambda: cubes.add_run(watcher.dataset_id)
    else:
        action, deliver = "GetMailTaskStatus", lambda: delivered.add_run(watcher.mail_id)
    payload = asyncio.run(first_event(watcher, delivered, action, deliver))
    ran = airflow.run_source(block.text, event=(asset, {"from_trigger": True, "payload": payload}))

    assert set(ran.states.values()) == {"success"}, ran.log
    assert ran.notified(*(str(value) for value in payload.values())), ran.log


async def first_event(watcher: Any, quickbi: Any, action: str, deliver: Any) -> dict[str, Any]:
    """Let a run succeed while it is watched and return its event."""
    before = quickbi.count(action)

    async def deliver_later() -> None:
        while quickbi.count(action) < before + 2:
            await asyncio.sleep(0.01)
        deliver()

    async with asyncio.timeout(60), aclosing(watcher.run()) as events, asyncio.TaskGroup() as together:
        together.create_task(deliver_later())
        event = await anext(events)
    return event.payload


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_program_of_the_documentation_runs(block, delivered):
    exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})  # noqa: S102 - our own documentation


def connections() -> list[Any]:
    """Return each connection that a shell block sets or adds."""
    found = []
    for block in BLOCKS:
        if block.language in ("bash", "console"):
            for number, text in enumerate(re.findall(r"AIRFLOW_CONN_\w+='(\{.*?\})'", block.text, re.DOTALL)):
                found.append(pytest.param(text, id=f"{block}-{number}"))
            for command in re.findall("airflow connections add .*", block.text.replace("\\\n", "")):
                words = iter(shlex.split(command)[4:])
                options = {option.removeprefix("--conn-").replace("type", "conn_type"): next(words) for option in words}
                options["extra"] = json.loads(options.get("extra", "{}"))
                found.append(pytest.param(json.dumps(options), id=f"{block}-add"))
    return found


@pytest.mark.parametrize("text", connections())
def test_a_connection_of_the_documentation_is_understood(text, monkeypatch):
    monkeypatch.setattr("airflow_provider_quickbi.connection.parsing._exists", lambda path: True)
    values = json.loads(re.sub("<[^>]+>", "placeholder", text))
    assert values["conn_type"] == connection.CONN_TYPE

    read = connection.read_connection(
        connection.RawConnection(
            conn_id="quickbi_default",
            **{
                name: values.get(name) for name in ("conn_type", "login", "password", "host", "port", "schema", "extra")
            },
        )
    )

    assert read.settings.endpoint.host
