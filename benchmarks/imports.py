"""What importing the modules of a DAG file costs on top of ``airflow.sdk``, beside peers."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row, Section

TITLE = "Import on top of airflow.sdk"
_ROOT = Path(__file__).parent.parent
_PEERS_HOME = _ROOT / ".venvs" / "peers"
_CONSTRAINTS = _ROOT / "constraints" / "airflow-3.3.txt"
_INSTALL_TIMEOUT = 900
_MAX_MS = 25.0

_OURS = (
    "airflow_provider_quickbi.sensors.quickbi",
    "airflow_provider_quickbi.operators.quickbi",
    "airflow_provider_quickbi.triggers.quickbi",
)
_HOOK = "airflow_provider_quickbi.hooks.quickbi"
#: What a sensor, an operator and a trigger of any provider stand on, and ``import airflow.sdk`` does not load.
_BASES = """
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, Stats
import airflow.triggers.base
"""
#: Providers to compare with: the sensor, operator and trigger modules that a DAG with a deferrable task loads.
_PEERS = {
    "tableau": ("sensors.tableau", "operators.tableau"),
    "amazon": (
        "amazon.aws.sensors.quicksight",
        "amazon.aws.operators.quicksight",
        "amazon.aws.triggers.quicksight",
    ),
    "dbt-cloud": ("sensors.dbt", "operators.dbt", "triggers.dbt"),
    "databricks": ("sensors.databricks", "operators.databricks", "triggers.databricks"),
    "microsoft-azure": ("azure.operators.powerbi", "azure.triggers.powerbi"),
}
_PREFIXES = {
    "tableau": "airflow.providers.tableau.",
    "amazon": "airflow.providers.",
    "dbt-cloud": "airflow.providers.dbt.cloud.",
    "databricks": "airflow.providers.databricks.",
    "microsoft-azure": "airflow.providers.microsoft.",
}

_PROGRAM = """
import json, sys, time
import airflow.sdk

cpu = time.process_time()
%s
print(json.dumps(1000 * (time.process_time() - cpu)))
"""


def run(quick: bool) -> Section:
    """Measure.

    :param quick: for a smoke test; leaves the peers out.
    """
    with tempfile.TemporaryDirectory(prefix="quickbi-benchmark-imports-") as folder:
        measure = _Stopwatch(Path(folder), repeats=2 if quick else 7)
        bases = measure.cpu_ms(sys.executable, _BASES)
        together = measure.cpu_ms(sys.executable, _import(_OURS))
        own = measure.cpu_ms(sys.executable, _import(_OURS), after=_BASES)
        rows = [
            Row(
                "import of the sensor, operator and trigger modules together",
                f"{together:.0f} ms",
                f"{bases:.0f} ms of it are Airflow's own base classes, which every such module loads",
                f"under {_MAX_MS:.0f} ms",
                together < _MAX_MS,
            ),
            Row("the same, without Airflow's own base classes", f"{own:.0f} ms"),
        ]
        rows += [
            Row(f"`{module}` alone", f"{measure.cpu_ms(sys.executable, _import([module])):.0f} ms")
            for module in (*_OURS, _HOOK)
        ]
        if not quick:
            rows += _beside(measure)
    return Section(
        TITLE,
        rows,
        "CPU time of importing in a new process in which `airflow.sdk` is imported and everything is "
        "compiled; medians. The peers are installed with their newest releases that fit the same Airflow, "
        "in an environment of their own.",
    )


class _Stopwatch:
    """Times imports in new processes.

    :param folder: for what Airflow writes.
    :param repeats: of which the median counts.
    """

    def __init__(self, folder: Path, repeats: int) -> None:
        self._repeats = repeats
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        }

    def cpu_ms(self, python: str, statements: str, *, after: str = "") -> float:
        """Return the median CPU time of some statements.

        :param python: the interpreter.
        :param statements: what is timed.
        :param after: what is done before, on top of importing ``airflow.sdk``.
        """
        program = _PROGRAM % statements
        program = program.replace("import airflow.sdk\n", f"import airflow.sdk\n{after}\n", 1)
        times = []
        for number in range(self._repeats + 1):
            # The program is this module's own.
            done = subprocess.run(
                [python, "-c", program],
                env=self._environment,
                cwd=_ROOT,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            if number:  # the first one compiles
                times.append(float(json.loads(done.stdout.strip().splitlines()[-1])))
        return statistics.median(times)


def _import(modules: Sequence[str]) -> str:
    return "\n".join(f"import {module}" for module in modules)


def _beside(measure: _Stopwatch) -> list[Row]:
    rows = []
    python = _PEERS_HOME / "bin" / "python"
    problems = _install()
    for peer, modules in _PEERS.items():
        measure_name = f"apache-airflow-providers-{peer}: {', '.join(name.rpartition('.')[2] for name in modules[:1])}"
        what = f"{measure_name} {_kinds(modules)}"
        if peer in problems:
            rows.append(Row(what, "", f"could not be installed: {problems[peer]}"))
            continue
        try:
            took = measure.cpu_ms(str(python), _import([f"{_PREFIXES[peer]}{module}" for module in modules]))
        except RuntimeError as error:
            rows.append(Row(what, "", f"could not be imported: {_in_a_cell(str(error))}"))
        else:
            rows.append(Row(what, "", f"{took:,.0f} ms"))
    return rows


def _kinds(modules: Sequence[str]) -> str:
    kinds = [match[0] for module in modules if (match := re.search(r"(sensor|operator|trigger)(?=s\.)", module))]
    return f"{' and '.join([', '.join(kinds[:-1]), kinds[-1]])} modules" if len(kinds) > 1 else f"{kinds[0]} module"


def _install() -> dict[str, str]:
    """Install the peers that are not there, and return those that could not be with the reason."""
    pip = [str(_PEERS_HOME / "bin" / "python"), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    airflow = next(line for line in _CONSTRAINTS.read_text().splitlines() if line.startswith("apache-airflow=="))
    problems: dict[str, str] = {}
    if not (_PEERS_HOME / "bin" / "python").exists():
        _call([sys.executable, "-m", "venv", str(_PEERS_HOME)])
    for peer in ("", *_PEERS):
        marker = _PEERS_HOME / f".installed-{peer or 'airflow'}"
        if marker.exists():
            continue
        print(
            f"Installing {f'apache-airflow-providers-{peer}' if peer else airflow} into .venvs/peers", file=sys.stderr
        )
        wanted = [airflow, f"apache-airflow-providers-{peer}"] if peer else [airflow]
        problem = _call([*pip, "install", *quiet, "--constraint", str(_CONSTRAINTS), *wanted])
        if problem is None:
            marker.touch()
        else:
            problems[peer] = problem
    if "" in problems:
        return dict.fromkeys(_PEERS, problems[""])
    return problems


def _call(command: Sequence[str]) -> str | None:
    """Run a command; return what is wrong, ``None`` if nothing is."""
    try:
        # The command is this module's own.
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {_INSTALL_TIMEOUT} s"
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return _in_a_cell(errors[0] if errors else f"exit status {done.returncode}")


def _in_a_cell(text: str) -> str:
    return text.replace("|", "/").replace(str(_ROOT), ".")[:160]
