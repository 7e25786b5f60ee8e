"""The example DAGs: they parse anywhere, describe themselves, and do what they say however a DAG run is started."""

from __future__ import annotations

import functools
import itertools
import re
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_provider_quickbi.testing import LocalQuickBI
from dev.playground import DATASETS, add_mail_tasks

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example_dags"
AIRFLOW_3 = not version("apache-airflow").startswith("2.")
TASKS = {
    "quickbi_list_and_wait": {"list_mail_tasks", "report_sent"},
    "quickbi_refresh_and_send": {"refresh", "send", "sent", "announce"},
    "quickbi_notify_on_failure": {"load"},
    "quickbi_send_report": {"refresh", "send_report", "announce"},
    "quickbi_wait_for_scheduled_report": {"report_sent", "archive"},
    "quickbi_wait_in_a_window": {"sales_of_the_day", "stock_after_nine", "compare"},
}
#: Defines no DAG on Airflow 2, which has no asset watchers.
WATCHING = "quickbi_after_delivery"
EXPECTED = TASKS | ({WATCHING: {"archive"}} if AIRFLOW_3 else {})
#: How a DAG run is started: Airflow 3 knows runs without a logical date, and so without a data interval. On Airflow 2 a
#: DAG run started by hand is due when the last scheduled one was, and the window may have ended since.
STARTS = [
    (dag_id, started)
    for dag_id in EXPECTED
    for started in ("with a logical date", "without a logical date")
    if AIRFLOW_3 or (started == "with a logical date" and dag_id != "quickbi_wait_in_a_window")
]
_NUMBERS = itertools.count(1)


@pytest.fixture
def no_network(monkeypatch):
    """Let every attempt to reach anything fail, and leave no connection to Quick BI."""

    def refuse(*args):
        raise AssertionError(f"a DAG file uses the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT", raising=False)


@pytest.fixture
def run_example(airflow):
    """Run a copy of an example under a DAG id of its own."""

    def run(dag_id, **started):
        text = (EXAMPLES / f"{dag_id}.py").read_text()
        assert f'dag_id="{dag_id}"' in text
        return airflow.run_source(text.replace(f'dag_id="{dag_id}"', f'dag_id="{dag_id}_{next(_NUMBERS)}"'), **started)

    return run


@pytest.fixture
def reports(quickbi):
    """Every mail task that an example names, with a report that was sent after any DAG run of the test was due."""
    quickbi.clock.advance(60)
    for mail_id, name in (
        ("daily-sales", "Daily sales"),
        ("daily-stock", "Daily stock"),
        ("weekly-review", "Weekly review"),
    ):
        quickbi.add_mail_task(name, mail_id=mail_id)
        quickbi.add_run(mail_id)
    return quickbi


@pytest.fixture
def datasets(quickbi):
    """Every dataset that an example names."""
    datasets = quickbi.datasets
    datasets.add("Sales", dataset_id="sales-cube")
    return datasets


def test_the_examples_parse_without_a_network_and_without_quick_bi(airflow, no_network):
    bag = airflow.bag(EXAMPLES)

    assert bag.import_errors == {}
    assert {dag_id: set(dag.task_ids) for dag_id, dag in bag.dags.items()} == EXPECTED


def test_an_example_that_waits_for_a_day_says_why_its_first_scheduled_run_may_be_red(airflow):
    documented = {dag_id for dag_id, dag in airflow.bag(EXAMPLES).dags.items() if "QuickBIRunMissed" in dag.doc_md}

    assert documented == {"quickbi_list_and_wait", "quickbi_wait_for_scheduled_report", "quickbi_wait_in_a_window"}


def test_every_example_describes_itself_and_nothing_else_lies_beside_them(airflow):
    bag = airflow.bag(EXAMPLES)

    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*TASKS, WATCHING}
    for dag_id, dag in bag.dags.items():
        source = (EXAMPLES / f"{dag_id}.py").read_text()
        assert dag.description
        assert dag.doc_md
        assert {"quickbi", "example"} <= set(dag.tags)
        assert "schedule=" in source
        assert "catchup=" in source


@pytest.mark.parametrize(("dag_id", "started"), STARTS)
def test_an_example_does_what_it_says_once_its_report_is_sent(
    dag_id, started, run_example, reports, datasets, monkeypatch
):
    if started == "without a logical date":
        from airflow.sdk import DAG

        monkeypatch.setattr(DAG, "test", functools.partialmethod(DAG.test, logical_date=None))

    ran = run_example(dag_id)

    assert set(ran.states.values()) == {"success"}, ran.log
    assert {task.partition("[")[0] for task in ran.states} == EXPECTED[dag_id]
    assert reports.starts("weekly-review") == (dag_id in ("quickbi_send_report", "quickbi_refresh_and_send"))
    assert datasets.starts("sales-cube") == (dag_id == "quickbi_refresh_and_send")
    assert sum(reports.starts(mail["mail_id"]) for mail in reports.mail_tasks()) == reports.starts("weekly-review")


def test_a_delivery_that_starts_the_watching_example_is_archived(airflow, run_example):
    dags = list(airflow.bag(EXAMPLES / f"{WATCHING}.py").dags.values())
    assert len(dags) == AIRFLOW_3
    payload = {"mail_id": "daily-sales", "task_id": "1", "status": "SENT", "exec_time": "2026-01-31T09:00:00+08:00"}

    for dag in dags:
        (asset,) = dag.timetable.asset_condition.objects
        ran = run_example(WATCHING, event=(asset, {"from_trigger": True, "payload": payload}))

        assert ran.states == {"archive": "success"}, ran.log
        assert ran.notified("Archiving the report of this delivery", "'status': 'SENT'")


def test_mapped_waits_are_named_by_their_mail_task(run_example, reports):
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    ran = run_example("quickbi_list_and_wait")

    with create_session() as session:
        tasks = session.query(TaskInstance).filter_by(dag_id=ran.dag_id, task_id="report_sent")
        assert {task.rendered_map_index for task in tasks} == {"Daily sales", "Daily stock"}


def test_the_playground_says_where_its_task_dies_that_this_is_on_purpose_and_sends_the_mail_once(
    airflow, airflow_version, quickbi
):
    add_mail_tasks(quickbi)
    for dataset_id, name in DATASETS:
        quickbi.datasets.add(name, dataset_id=dataset_id)
    quickbi.set_manual_start("board-report", duration=2)
    demo = ROOT / "dev" / "dags" / "quickbi_demo.py"
    doc_md = airflow.bag(demo).dags["quickbi_demo"].get_task("send_board_report").doc_md

    ran = airflow.run_source(demo.read_text().replace("retry_delay=timedelta(seconds=1)", "retry_delay=timedelta(0)"))

    died, *_ = ran.errors["send_board_report"]
    assert "on purpose and in the first try only" in str(died)
    (quoted,) = re.findall(r"\*\*The first try fails on purpose\.\*\* It raises `(.*?)`", doc_md)
    assert f"{type(died).__name__}: {died}".startswith(quoted)
    if airflow_version >= (3, 3):  # start records survive a retry
        assert set(ran.states.values()) == {"success"}, ran.log
        assert len(ran.errors["send_board_report"]) == quickbi.starts("board-report") == 1


def test_the_playground_has_every_mail_task_that_examples_and_documentation_name():
    with LocalQuickBI() as quickbi:
        add_mail_tasks(quickbi)
        cubes = {dataset_id for dataset_id, _ in DATASETS}
        seeded = {str(mail["mail_id"]) for mail in quickbi.mail_tasks()}
        never_sent_by_schedule = {mail_id for mail_id in seeded if not quickbi.runs(mail_id)}
    examples = "".join(path.read_text() for path in (*EXAMPLES.glob("*.py"), *(ROOT / "dev" / "dags").glob("*.py")))
    pages = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    documented = "".join(re.findall(r"^```python\n(.*?)^```", pages, re.DOTALL | re.MULTILINE))

    assert set(re.findall(r'\bdataset_id="([^"{]+)"', examples + documented)) <= cubes
    named = set(re.findall(r'\bmail_id="([^"{]+)"', examples + documented))
    assert named <= seeded, sorted(named - seeded)
    started = set(re.findall(r'RunMailTaskOperator\(\s*task_id="\w+",\s*mail_id="([^"{]+)"', examples))
    assert started <= never_sent_by_schedule
