"""What the connection form shows: as data for Airflow 3.2 and later, as WTForms fields below."""

from __future__ import annotations

from typing import Any

from airflow_provider_quickbi.connection.fields import FIELDS, Field


def form_behaviour() -> dict[str, Any]:
    """Return how the form treats the standard fields; ``extra`` is hidden because the form shows all of its fields."""
    return {
        "hidden_fields": ["extra"],
        "relabeling": {
            "login": "AccessKey ID",
            "password": "AccessKey Secret",
            "host": "Endpoint",
            "schema": "Protocol",
        },
        "placeholders": {
            "login": "LTAI...",
            "host": "only if the region does not imply the endpoint",
            "port": "443",
            "schema": "https",
        },
    }


def form_fields() -> dict[str, dict[str, Any]]:
    """Return the fields of the extra as ``conn-fields`` of the provider info, which Airflow 3.2 and later read."""
    return {
        field.name: {"label": field.label, "description": field.description, "schema": _schema(field)}
        for field in FIELDS
    }


def form_widgets() -> dict[str, Any]:
    """Return the fields of the extra as WTForms fields, which Airflow below 3.2 reads from the hook."""
    return {field.name: _widget(field) for field in FIELDS}


def _schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.kind, "null"]}
    optional: dict[str, Any] = {
        "default": field.default,
        "enum": list(field.choices) or None,  # without null, which the form would show as a choice
        "format": "password" if field.secret else None,
        "minimum": field.minimum,
        "maximum": field.maximum,
    }
    return schema | {key: value for key, value in optional.items() if value is not None}


def _widget(field: Field) -> Any:
    """Return the WTForms field of one of the classes that Airflow accepts; the parser checks limits and choices."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    label = lazy_gettext(field.label)
    common: dict[str, Any] = {"description": field.description, "default": field.default}
    if field.secret:
        return PasswordField(label, widget=BS3PasswordFieldWidget(), **common)
    if field.kind == "boolean":
        return BooleanField(label, **common)
    common["default"] = None if field.default is None else str(field.default)
    validators = [Optional(), any_of(list(field.choices))] if field.choices else [Optional()]
    return StringField(label, widget=BS3TextFieldWidget(), validators=validators, **common)
