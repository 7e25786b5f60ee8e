"""The cost of importing: a DAG file loads nothing heavy, and the client needs no Airflow."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import airflow_provider_quickbi
from airflow_provider_quickbi import api

HEAVY = (
    "alibabacloud_credentials",
    "alibabacloud_tea_openapi",
    "alibabacloud_tea_util",
    "alibabacloud_quickbi_public20220101",
    "darabonba",
    "Tea",
    "apscheduler",
    "aiohttp",
    "requests",
    "urllib3",
)
#: The clients: a DAG file, which is parsed every few seconds, must not load them.
OURS = ("airflow_provider_quickbi.api.client", "airflow_provider_quickbi.api.status_poller")
FREE_OF_AIRFLOW = [
    *(f"airflow_provider_quickbi.api.{module.name}" for module in pkgutil.iter_modules(api.__path__)),
    *(
        f"airflow_provider_quickbi.{name}"
        for name in (
            "api",
            "_options",
            "connection",
            "_wait.evaluate",
            "_send.record",
            "get_provider_info",
            "_wait.logging",
        )
    ),
    "airflow_provider_quickbi.testing",
    "airflow_provider_quickbi.testing.fixtures",
]


def run(program: str) -> Any:
    """Run a program in a new process and return what it prints as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parsing_a_dag_file_loads_nothing_heavy():
    loaded = run(f"""
import json, sys
try:
    import airflow.sdk
except ImportError:
    import airflow.models.baseoperator
import airflow.providers.common.compat.sdk as base
from airflow.triggers.base import BaseTrigger
for name in ("BaseSensorOperator", "BaseOperator", "BaseHook", "BaseOperatorLink", "XCom", "conf", "Stats"):
    getattr(base, name)

class Bare(base.BaseSensorOperator):
    def poke(self, context):
        return True

Bare(task_id="bare")
before = set(sys.modules)
import airflow_provider_quickbi.hooks.quickbi
import airflow_provider_quickbi.operators.quickbi
import airflow_provider_quickbi.sensors.quickbi
import airflow_provider_quickbi.triggers.quickbi
import airflow_provider_quickbi.assets.quickbi
import airflow_provider_quickbi.links.quickbi
from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
QuickBIMailTaskSensor(task_id="wait", mail_id="m")
QuickBIRunMailTaskOperator(task_id="send", mail_id="m")
QuickBIListMailTasksOperator(task_id="list")
airflow_provider_quickbi.hooks.quickbi.QuickBIHook()
loaded = set(sys.modules) - before
print(json.dumps(sorted(name for name in loaded if name.split(".")[0] in {HEAVY!r} or name in {OURS!r})))
""")
    assert loaded == []


def test_the_client_imports_without_airflow_and_loads_nothing_heavy():
    loaded = run(f"""
import importlib, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "airflow" or name.startswith("airflow."):
            raise ImportError(f"{{name}} must not be imported here")

sys.meta_path.insert(0, Blocked())
for name in {[name for name in FREE_OF_AIRFLOW if ".testing" not in name]!r}:
    importlib.import_module(name)
heavy = sorted(name for name in sys.modules if name.split(".")[0] in {HEAVY!r})
for name in {[name for name in FREE_OF_AIRFLOW if ".testing" in name]!r}:
    importlib.import_module(name)
print(json.dumps(heavy))
""")
    assert loaded == []


def test_the_client_can_be_used_without_airflow():
    result = run("""
import asyncio, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "airflow" or name.startswith("airflow."):
            raise ImportError(f"{name} must not be imported here")

sys.meta_path.insert(0, Blocked())
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
from airflow_provider_quickbi.testing import LocalQuickBI

async def later(settings, mail_id):
    async with AsyncQuickBIClient(settings) as client:
        return [run.status for run in await client.get_mail_task_status(mail_id)]

with LocalQuickBI() as quickbi:
    mail_id = quickbi.add_mail_task("Daily sales")
    settings = ClientSettings(
        Endpoint(quickbi.host, "http", quickbi.port),
        CredentialSpec.of(
            "access_key", access_key_id=quickbi.access_key_id, access_key_secret=quickbi.access_key_secret
        ),
    )
    with QuickBIClient(settings) as client:
        client.manual_run_mail_task(mail_id)
    print(json.dumps(asyncio.run(later(settings, mail_id))))
""")
    assert result == ["SENT"]


def test_the_package_exports_only_its_version():
    public = [name for name in vars(airflow_provider_quickbi) if not name.startswith("_")]
    modules = {module.name for module in pkgutil.iter_modules(airflow_provider_quickbi.__path__)}
    assert set(public) <= modules
    assert airflow_provider_quickbi.__version__


@pytest.mark.parametrize("path", sorted(airflow_provider_quickbi.__path__))
def test_every_module_has_a_docstring_that_says_what_it_is_for(path: str):
    import ast
    from pathlib import Path

    without = [str(file) for file in Path(path).rglob("*.py") if not ast.get_docstring(ast.parse(file.read_text()))]
    assert [file for file in without if not file.endswith("airflow_provider_quickbi/__init__.py")] == []
