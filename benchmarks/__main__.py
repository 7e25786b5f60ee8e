"""Measures and prints one table: ``python -m benchmarks [--quick] [--write] [section ...]``."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks import report
from dev.standalone import ending_on

#: Sections in the order of the table; the last ones take so long that they must be asked for by name.
SECTIONS = ("pacing", "sharing", "several", "learnt", "cost", "scale", "paging", "imports", "whole", "distributed")
LONG = ("whole", "distributed")
_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    """Run what the command line asks for.

    :returns: the exit status: 0, or 1 if something could not be measured; a missed target is no error.
    """
    options = _parse()
    failed = False
    sections: list[report.Section] = []
    with (
        ending_on(signal.SIGINT, signal.SIGTERM),  # nothing that was started is left
        tempfile.TemporaryDirectory(prefix="quickbi-benchmark-home-") as home,
    ):
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        for name in options.sections:
            print(f"Measuring: {name} ...", end=" ", file=sys.stderr, flush=True)
            begun_at = time.monotonic()
            run: Callable[[bool], report.Section] = import_module(f"benchmarks.{name}").run
            try:
                sections.append(run(options.quick))
            except Exception:
                failed = True
                print("failed", file=sys.stderr)
                traceback.print_exc()
            else:
                print(f"{time.monotonic() - begun_at:.0f} s", file=sys.stderr)
    page = _page(sections)
    print(page)
    if options.write and not failed:
        _PAGE.write_text(page + "\n")
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", choices=[*SECTIONS, []], help="what to measure; by default all but the long ones"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: small, and without the peers' imports")
    parser.add_argument("--write", action="store_true", help="write the table to docs/benchmarks.md, too")
    options = parser.parse_args()
    options.sections = options.sections or [name for name in SECTIONS if name not in LONG]
    return options


def _page(sections: list[report.Section]) -> str:
    machine = f"{os.cpu_count()} cores, Python {platform.python_version().rpartition('.')[0]}"
    airflow = version("apache-airflow")
    return f"""# Benchmarks

How fast the provider detects reports when calls are scarce, and what it costs, compared with conventional waits.
Each section is one run of `make bench` or `make bench SECTIONS=...` on one machine ({machine}, Airflow {airflow}), against the
local Quick BI in a process of its own. Compare the ratios: absolute figures depend on the machine.

{report.summary(sections)}

{report.table(sections)}

## How it is measured

{report.notes(sections)}"""


if __name__ == "__main__":
    sys.exit(main())
