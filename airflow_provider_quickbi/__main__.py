"""Runs the command line: ``python -m airflow_provider_quickbi``."""

import sys

from airflow_provider_quickbi.cli import main

if __name__ == "__main__":
    sys.exit(main())
