"""The hook's methods about datasets."""

from __future__ import annotations

import pytest

from airflow_provider_quickbi.exceptions import QuickBIRequestError
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import LocalQuickBI

pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


def test_the_hook_finds_starts_and_reads_refreshes(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json())
    quickbi.datasets.add("Sales", dataset_id="cube", workspace_id="w")
    with QuickBIHook() as hook:
        assert hook.find_dataset("Sales", "w") == ("cube", "Sales")
        assert hook.get_last_refresh("cube") is None
        assert hook.refresh_dataset("cube")
        latest = hook.get_last_refresh("cube")
        assert latest is not None
        assert latest.status == "SUCCESS"
        quickbi.deny("User.OperationPermission.Error", action="AllotDatasetAccelerationTask")
        with pytest.raises(QuickBIRequestError, match="organisation administrator"):
            hook.refresh_dataset("cube")
        with pytest.raises(QuickBIRequestError, match=r"Cube\.Not\.Exist"):
            hook.get_last_refresh("nobody")
    assert quickbi.count("AllotDatasetAccelerationTask") == 2
