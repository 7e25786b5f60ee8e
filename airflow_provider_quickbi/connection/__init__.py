"""The Airflow connection: its fields, how they are parsed, and what the form shows."""

from __future__ import annotations

from airflow_provider_quickbi.connection.fields import (
    CONN_TYPE,
    DEFAULT_CONN_ID,
    DEFAULT_REGION,
    FIELD_NAMES,
    FIELDS,
    HOOK_NAME,
    SECRET_FIELDS,
    Field,
)
from airflow_provider_quickbi.connection.form import form_behaviour, form_fields, form_widgets
from airflow_provider_quickbi.connection.masks import is_mask
from airflow_provider_quickbi.connection.parsing import (
    CHINA_CONSOLE_URL,
    ConnectionFieldError,
    QuickBIConnection,
    RawConnection,
    parse_extra,
    read_connection,
    secrets_of,
)

__all__ = [
    "CHINA_CONSOLE_URL",
    "CONN_TYPE",
    "DEFAULT_CONN_ID",
    "DEFAULT_REGION",
    "FIELDS",
    "FIELD_NAMES",
    "HOOK_NAME",
    "SECRET_FIELDS",
    "ConnectionFieldError",
    "Field",
    "QuickBIConnection",
    "RawConnection",
    "form_behaviour",
    "form_fields",
    "form_widgets",
    "is_mask",
    "parse_extra",
    "read_connection",
    "secrets_of",
]
