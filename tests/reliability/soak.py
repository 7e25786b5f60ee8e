"""Lets a Quick BI go wrong at random for a while and says what was survived: ``python -m tests.reliability.soak``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time


def main() -> int:
    """Run a soak as the command line, or else the environment, says; return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or time.time()))
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECONDS") or 900))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quickbi-soak-") as home:
        # Airflow reads these once, when it is imported first.
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        }
        from tests.reliability.soaking import run

        print(f"seed {given.seed}, {given.seconds:g} s", flush=True)
        report = run(given.seed, given.seconds)
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
