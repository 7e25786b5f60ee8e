"""Asset URIs of mail tasks: ``quickbi://<region or host>/mail-task/<mail id>``."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, quote, unquote

from airflow_provider_quickbi.connection import DEFAULT_REGION

_KIND = "mail-task"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return the normal form of a ``quickbi://`` URI, so that two spellings are one asset.

    :param uri: the URI, split.
    :raises ValueError: if it is not ``quickbi://<region or host>/mail-task/<mail id>``.
    """
    parts = [part for part in uri.path.split("/") if part]
    if "@" in uri.netloc or uri.query or uri.fragment:
        raise ValueError("a quickbi:// URI has no user, query or fragment")
    if not uri.netloc or len(parts) != 2 or parts[0].lower() != _KIND:
        raise ValueError(f"a quickbi:// URI must be quickbi://<region or host>/{_KIND}/<mail id>")
    return uri._replace(
        scheme="quickbi", netloc=uri.netloc.lower(), path=f"/{_KIND}/{quote(unquote(parts[1]), safe='~')}"
    )


def mail_task_uri(mail_id: str, region: str = DEFAULT_REGION) -> str:
    """Return the asset URI of a mail task.

    :param mail_id: the mail task.
    :param region: its region, or the host of an endpoint of your own; default ``cn-hangzhou``.
    """
    return f"quickbi://{region.lower()}/{_KIND}/{quote(mail_id, safe='~')}"


def is_mail_task(asset: Any) -> bool:
    """Whether an asset, or a reference to one, is that of a mail task.

    :param asset: an outlet of a task.
    """
    return str(getattr(asset, "uri", "")).lower().startswith("quickbi://")


def mail_task_asset(mail_id: str, region: str = DEFAULT_REGION, **kwargs: Any) -> Any:
    """Return the asset of a mail task, to be named as an outlet or a schedule.

    :param mail_id: the mail task.
    :param region: its region, or the host of an endpoint of your own; default ``cn-hangzhou``.
    :param kwargs: for ``Asset``, such as ``watchers``.
    """
    from airflow.providers.common.compat.sdk import Asset

    return Asset(uri=mail_task_uri(mail_id, region), **kwargs)
