"""The connection form's fields as WTForms objects, which Airflow below 3.2 wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quickbi.connection import Field


def build_widget(field: Field) -> Any:
    """Return the WTForms field for a field of the connection.

    :param field: from the one table of fields.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, FloatField, PasswordField, SelectField, StringField
    from wtforms.validators import NumberRange, Optional

    label = lazy_gettext(field.label)
    common: dict[str, Any] = {"description": field.description, "default": field.default}
    if field.secret:
        return PasswordField(label, widget=BS3PasswordFieldWidget(), **common)
    if field.kind == "boolean":
        return BooleanField(label, **common)
    if field.kind == "number":
        limits = [Optional(), NumberRange(min=field.minimum, max=field.maximum)]
        return FloatField(label, widget=BS3TextFieldWidget(), validators=limits, **common)
    if field.choices:
        return SelectField(label, choices=[(choice, choice) for choice in field.choices], **common)
    return StringField(label, widget=BS3TextFieldWidget(), **common)
