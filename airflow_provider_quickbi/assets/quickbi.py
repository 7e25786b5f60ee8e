"""Asset URIs: ``quickbi://<region or host>/mail-task/<mail id>`` and ``quickbi://<region or host>/dataset/<id>``."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow_provider_quickbi.api.datasets import DATASET
from airflow_provider_quickbi.api.models import MAIL_TASK
from airflow_provider_quickbi.api.settings import serving_region
from airflow_provider_quickbi.connection import DEFAULT_REGION

#: What a URI can be of.
_KINDS = {MAIL_TASK: "<mail id>", DATASET: "<dataset id>"}


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return the normal form of a ``quickbi://`` URI, so that two spellings identify one asset.

    :param uri: the URI, split.
    :raises ValueError: if it is not ``quickbi://<region or host>/mail-task/<mail id>``, or the same with ``dataset``.
    """
    parts = [part for part in uri.path.split("/") if part]
    if "@" in uri.netloc or uri.query or uri.fragment:
        raise ValueError("a quickbi:// URI has no user, query or fragment")
    if not uri.netloc or len(parts) != 2 or parts[0].lower() not in _KINDS:
        forms = " or ".join(f"quickbi://<region or host>/{kind}/{name}" for kind, name in _KINDS.items())
        raise ValueError(f"a quickbi:// URI must be {forms}")
    return uri._replace(
        scheme="quickbi", netloc=uri.netloc.lower(), path=f"/{parts[0].lower()}/{quote(unquote(parts[1]), safe='~')}"
    )


def mail_task_uri(mail_id: str, region: str = DEFAULT_REGION) -> str:
    """Return the asset URI of a mail task.

    :param mail_id: the mail task.
    :param region: its region, or the host of your own endpoint; default ``cn-hangzhou``.
    """
    return _uri(MAIL_TASK, mail_id, region)


def dataset_uri(dataset_id: str, region: str = DEFAULT_REGION) -> str:
    """Return the asset URI of a dataset.

    :param dataset_id: the dataset.
    :param region: its region, or the host of your own endpoint; default ``cn-hangzhou``.
    """
    return _uri(DATASET, dataset_id, region)


def mail_task_asset(mail_id: str, region: str = DEFAULT_REGION, **kwargs: Any) -> Any:
    """Return the asset of a mail task, for use as an outlet or in a schedule.

    :param mail_id: the mail task.
    :param region: its region, or the host of your own endpoint; default ``cn-hangzhou``.
    :param kwargs: for ``Asset``, such as ``watchers``.
    """
    return subject_asset(MAIL_TASK, mail_id, region, **kwargs)


def dataset_asset(dataset_id: str, region: str = DEFAULT_REGION, **kwargs: Any) -> Any:
    """Return the asset of a dataset, for use as an outlet or in a schedule.

    :param dataset_id: the dataset.
    :param region: its region, or the host of your own endpoint; default ``cn-hangzhou``.
    :param kwargs: for ``Asset``, such as ``watchers``.
    """
    return subject_asset(DATASET, dataset_id, region, **kwargs)


def subject_asset(kind: str, subject_id: str, region: str = DEFAULT_REGION, **kwargs: Any) -> Any:
    """Return the asset of a mail task or a dataset.

    :param kind: ``mail-task`` or ``dataset``.
    :param subject_id: its id.
    :param region: its region, or the host of your own endpoint; default ``cn-hangzhou``.
    :param kwargs: for ``Asset``.
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=_uri(kind, subject_id, region), **kwargs)


def is_quickbi(asset: Any) -> bool:
    """Whether an asset, or a reference to one, is that of a mail task or a dataset.

    :param asset: an outlet of a task.
    """
    return _written(asset).lower().startswith("quickbi://")


def is_of(asset: Any, kind: str, subject_id: str) -> bool:
    """Whether an asset, or a reference to one, is that of a given mail task or dataset.

    :param asset: an outlet of a task.
    :param kind: ``mail-task`` or ``dataset``.
    :param subject_id: its id.
    """
    path, _, last = _written(asset).rstrip("/").rpartition("/")
    return is_quickbi(asset) and last == _quoted(subject_id) and path.lower().endswith(f"/{kind}")


def is_elsewhere(asset: Any, region: str) -> bool:
    """Whether the asset of a mail task or a dataset is that of another region, or of an endpoint of its own.

    :param asset: an outlet of a task.
    :param region: a region of the Quick BI OpenAPI.
    """
    return serving_region(urlsplit(_written(asset)).netloc.lower()) != region


def _written(asset: Any) -> str:
    return str(getattr(asset, "uri", ""))


def _uri(kind: str, subject_id: str, region: str) -> str:
    return f"quickbi://{region.lower()}/{kind}/{_quoted(subject_id)}"


def _quoted(subject_id: str) -> str:
    return quote(subject_id, safe="~")
