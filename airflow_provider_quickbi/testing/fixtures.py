"""pytest fixtures: a Quick BI for each test, with the default connection pointing at it.

Load them with ``pytest_plugins = ["airflow_provider_quickbi.testing.fixtures"]`` in the top-level ``conftest.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_quickbi.testing.server import LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def quickbi(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalQuickBI]:
    """Run a :class:`LocalQuickBI` without limits for one test.

    The connection ``quickbi_default`` leads to it for the length of the test. To change the connection, set the
    variable again: ``monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(read_timeout=1))``.
    """
    with LocalQuickBI() as local:
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", local.connection_json())
        yield local
