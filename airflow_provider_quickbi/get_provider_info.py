"""The provider info: what Airflow discovers about this package."""

from __future__ import annotations

from typing import Any

from airflow_provider_quickbi import __version__, connection

_INTEGRATION = "Alibaba Cloud Quick BI"
_PACKAGE = "airflow_provider_quickbi"
_HOOK = f"{_PACKAGE}.hooks.quickbi.QuickBIHook"
_LINK = f"{_PACKAGE}.links.quickbi.QuickBIConsoleLink"


def get_provider_info() -> dict[str, Any]:
    """Return the provider info; its schema is Airflow's ``provider_info.schema.json``."""
    behaviour = connection.form_behaviour()
    return {
        "package-name": "airflow-provider-quickbi",
        "name": _INTEGRATION,
        "description": (
            "List, start and wait for mail tasks (subscriptions) of Alibaba Cloud Quick BI, and refresh its datasets."
        ),
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://help.aliyun.com/zh/quick-bi/",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks"),
        "operators": _modules("operators"),
        "sensors": _modules("sensors"),
        "triggers": _modules("triggers"),
        "connection-types": [
            {
                "connection-type": connection.CONN_TYPE,
                "hook-class-name": _HOOK,
                "hook-name": connection.HOOK_NAME,
                "ui-field-behaviour": {
                    "hidden-fields": behaviour["hidden_fields"],
                    "relabeling": behaviour["relabeling"],
                    "placeholders": behaviour["placeholders"],
                },
                "conn-fields": connection.form_fields(),
            }
        ],
        "extra-links": [_LINK],
        "notifications": [f"{_PACKAGE}.notifications.quickbi.QuickBISendMailNotifier"],
        "cli": [f"{_PACKAGE}.cli.get_cli_commands"],
        "asset-uris": [{"schemes": ["quickbi"], "handler": f"{_PACKAGE}.assets.quickbi.sanitize_uri"}],
        "dataset-uris": [{"schemes": ["quickbi"], "handler": f"{_PACKAGE}.assets.quickbi.sanitize_uri"}],
    }


def _modules(kind: str) -> list[dict[str, Any]]:
    return [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.{kind}.quickbi"]}]
