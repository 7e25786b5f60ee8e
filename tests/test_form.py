"""The connection form has the same fields on every Airflow, whoever describes them."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Any

import pytest

from airflow_provider_quickbi import connection
from airflow_provider_quickbi.get_provider_info import get_provider_info
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

pytestmark = [
    # Flask-AppBuilder's own dependencies of Airflow 2.11 warn about each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:flask.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:marshmallow.*"),
    # Airflow 3.3 has moved it, and has it here as well.
    pytest.mark.filterwarnings("ignore:ProvidersManager.* is deprecated"),
]

AIRFLOW = tuple(int(part) for part in metadata.version("apache-airflow").split(".")[:2])

with_widgets = pytest.mark.skipif(
    find_spec("flask_appbuilder") is None, reason="only Airflow 2.11 has Flask-AppBuilder, which the widgets are for"
)
installed = pytest.mark.skipif(
    not any(
        point.value.startswith("airflow_provider_quickbi")
        for point in metadata.entry_points(group="apache_airflow_provider")
    ),
    reason="the package is used from its source directory here, and Airflow discovers installed ones only",
)


@pytest.fixture
def widgets() -> dict[str, Any]:
    """The hook's fields, as Airflow 2.11 asks for them."""
    return QuickBIHook.get_connection_form_widgets()


@with_widgets
def test_the_hooks_fields_are_those_of_the_provider_info(widgets: dict[str, Any]):
    described = get_provider_info()["connection-types"][0]["conn-fields"]
    assert list(widgets) == list(described)
    for name, widget in widgets.items():
        assert str(widget.kwargs["description"]) == described[name]["description"]
        assert str(widget.args[0]) == described[name]["label"]


@with_widgets
def test_each_field_is_of_a_class_that_airflow_takes(widgets: dict[str, Any]):
    from wtforms import BooleanField, IntegerField, PasswordField, StringField

    taken = (IntegerField, PasswordField, StringField, BooleanField)
    assert [name for name, widget in widgets.items() if widget.field_class not in taken] == []


@with_widgets
def test_secrets_and_nothing_else_are_password_fields(widgets: dict[str, Any]):
    from wtforms import PasswordField

    passwords = {name for name, widget in widgets.items() if widget.field_class is PasswordField}
    assert passwords == set(connection.SECRET_FIELDS)


@with_widgets
def test_each_field_takes_its_default_and_nothing(widgets: dict[str, Any]):
    from wtforms import Form

    for field in connection.FIELDS:
        form_class = type("OneField", (Form,), {"value": widgets[field.name]})
        untouched = form_class()
        if field.default is not None and field.kind != "boolean":
            assert str(untouched.value.data) == str(field.default), field.name
        assert form_class(data={"value": untouched.value.data}).validate(), field.name
        if field.kind != "boolean":
            assert form_class(data={"value": ""}).validate(), field.name


@with_widgets
def test_a_field_with_choices_takes_no_others(widgets: dict[str, Any]):
    from werkzeug.datastructures import MultiDict
    from wtforms import Form

    for field in connection.FIELDS:
        if field.choices:
            form_class = type("OneField", (Form,), {"value": widgets[field.name]})
            assert form_class(MultiDict({"value": field.choices[-1]})).validate(), field.name
            assert not form_class(MultiDict({"value": "anything else"})).validate(), field.name


@installed
def test_airflow_discovers_the_connection_type():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    hook = manager.hooks[connection.CONN_TYPE]
    assert hook is not None
    assert (hook.hook_name, hook.connection_testable) == (connection.HOOK_NAME, True)


@installed
@with_widgets
def test_airflow_2_shows_all_fields_and_hides_secrets():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    names = [name for name in manager.connection_form_widgets if name.startswith("extra__quickbi__")]
    assert [name.removeprefix("extra__quickbi__") for name in names] == [field.name for field in connection.FIELDS]
    sensitive = {name for name in names if manager.connection_form_widgets[name].is_sensitive}
    assert {name.removeprefix("extra__quickbi__") for name in sensitive} == set(connection.SECRET_FIELDS)
    assert manager.field_behaviours[connection.CONN_TYPE]["relabeling"]["login"] == "AccessKey ID"


@installed
@pytest.mark.skipif(
    AIRFLOW < (3, 1), reason="Airflow 2.11 has another form, and 3.0 shows no provider's fields by itself"
)
@pytest.mark.filterwarnings("ignore")  # the API server and its dependencies warn about each other
def test_airflow_3_shows_all_fields_and_hides_secrets(monkeypatch: pytest.MonkeyPatch):
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    if AIRFLOW < (3, 2):
        # It has stand-ins for Flask-AppBuilder, but keeps what it has found without them before.
        from airflow.utils.singleton import Singleton

        monkeypatch.setattr(Singleton, "_instances", {})

    [described] = [item for item in HookMetaService.hook_meta_data() if item.connection_type == connection.CONN_TYPE]
    assert described.hook_name == connection.HOOK_NAME
    assert described.extra_fields is not None
    assert described.standard_fields is not None
    assert described.standard_fields.password is not None
    assert list(described.extra_fields) == [field.name for field in connection.FIELDS]
    for field in connection.FIELDS:
        shown = described.extra_fields[field.name]
        schema = shown["schema"]
        assert schema["title"] == field.label
        assert shown["description"] == field.description
        assert (schema.get("format") == "password") is field.secret
        assert set(field.choices) <= set(schema.get("enum", ()))
    assert described.standard_fields.password.title == "AccessKey Secret"
