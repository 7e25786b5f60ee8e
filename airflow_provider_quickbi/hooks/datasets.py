"""The hook's methods about datasets: find one by name, refresh it, and read its latest refresh."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import find_dataset
from airflow_provider_quickbi.exceptions import task_error, task_errors

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.client import QuickBIClient
    from airflow_provider_quickbi.api.datasets import DatasetRefreshJob


class DatasetMethods(BaseHook):
    """Methods of :class:`airflow_provider_quickbi.hooks.quickbi.QuickBIHook`."""

    @abstractmethod
    def get_conn(self) -> QuickBIClient:
        """Return the client."""

    def find_dataset(self, dataset_name: str, workspace_id: str) -> tuple[str, str]:
        """Return id and name of the one dataset of a workspace with exactly this name (``QueryDatasetList``).

        :param dataset_name: its name; names need not be unique in Quick BI.
        :param workspace_id: the workspace.
        :raises QuickBIRequestError: if no or more than one dataset has the name (the message lists the candidates), or
            if Quick BI rejects the request.
        :raises QuickBIUnavailable: if there is no valid response.
        """
        try:
            listed = list(self.get_conn().iter_datasets(workspace_id, dataset_name))
            found = find_dataset(listed, dataset_name, workspace_id)
        except QuickBIError as error:
            raise task_error(error) from None
        self.log.info("Dataset %r has id %s.", found.dataset_name, found.dataset_id)
        if found.acceleration_enabled is False:
            self.log.warning("Dataset %r (%s): extraction is not enabled.", found.dataset_name, found.dataset_id)
        return found.dataset_id, found.dataset_name

    def get_last_refresh(self, dataset_id: str) -> DatasetRefreshJob | None:
        """Return the latest refresh of a dataset, ``None`` if there is none (``QueryLastAccelerationEngineJob``).

        :param dataset_id: the dataset.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if there is no valid response.
        """
        with task_errors():
            return next(iter(self.get_conn().query_last_acceleration_engine_job(dataset_id)), None)

    def refresh_dataset(self, dataset_id: str) -> bool:
        """Start a refresh now, and return ``True`` (``AllotDatasetAccelerationTask``); the call is never retried.

        The service returns no id of the refresh. Prefer
        :class:`airflow_provider_quickbi.operators.quickbi.QuickBIRefreshDatasetOperator`, which starts it at most once.

        :param dataset_id: the dataset.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if none was started for now, or if that is unknown.
        """
        with task_errors():
            return self.get_conn().allot_dataset_acceleration_task(dataset_id)
