"""The connection form's fields as WTForms objects, which Airflow below 3.2 wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quickbi.connection import Field


def build_widget(field: Field) -> Any:
    """Return the WTForms field for a field of the connection.

    Airflow takes no other classes than these; choices and limits are checked when the connection is read.

    :param field: from the one table of fields.
    """
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
