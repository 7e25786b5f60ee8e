"""What Airflow discovers of this package is valid, complete, and names things that exist."""

from __future__ import annotations

import importlib
import json
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_provider_quickbi import __version__, connection
from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.get_provider_info import get_provider_info

INFO = get_provider_info()
[CONNECTION_TYPE] = INFO["connection-types"]
CONN_FIELDS: dict[str, dict[str, Any]] = CONNECTION_TYPE["conn-fields"]

#: The rules for providers of Airflow's own repository, of Airflow 3.2 and later; the runtime schema lacks them.
STANDARD_FIELDS = {"description", "host", "port", "login", "password", "schema", "extra"}
SCHEMA_KEYS = {"type", "default", "format", "enum", "minimum", "maximum", "pattern", "minLength", "maxLength"}
TYPES = {"string", "integer", "boolean", "number", "object", "array", "null"}
FORMATS = {"password", "multiline", "email", "url", "json", "date", "date-time", "time"}


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(airflow.__path__[0]) / name).read_text(encoding="utf-8"))
    return loaded


@cache
def named_classes() -> list[str]:
    """Return every dotted name in the provider info that must lead to something."""
    return [
        CONNECTION_TYPE["hook-class-name"],
        *INFO["extra-links"],
        *INFO["notifications"],
        *(entry["handler"] for entry in (*INFO["asset-uris"], *INFO["dataset-uris"])),
    ]


def entry_points() -> list[metadata.EntryPoint]:
    """Return the entry points of the installed package."""
    found = [
        point
        for point in metadata.entry_points(group="apache_airflow_provider")
        if point.value.startswith("airflow_provider_quickbi")
    ]
    if not found:
        pytest.skip("the package is used from its source directory here and is not installed")
    return found


def test_the_provider_info_is_valid_by_the_running_airflows_schema():
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def test_the_connection_type_is_valid_by_the_stricter_schema_of_airflows_own_providers():
    strict = schema("provider.yaml.schema.json")
    rules = strict["properties"]["connection-types"]
    jsonschema.validate(INFO["connection-types"], {**rules, "definitions": strict.get("definitions", {})})


def test_the_provider_info_is_plain_json():
    assert json.loads(json.dumps(INFO)) == INFO


def test_the_version_is_the_packages():
    assert INFO["versions"] == [__version__]
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", __version__)


def test_the_installed_package_announces_the_provider_info():
    assert {(point.name, point.load()) for point in entry_points()} == {("provider_info", get_provider_info)}


def test_airflow_lists_the_notifier():
    from airflow.providers_manager import ProvidersManager

    from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier

    entry_points()
    notifier = f"{QuickBISendMailNotifier.__module__}.{QuickBISendMailNotifier.__name__}"
    assert notifier in map(str, ProvidersManager().notification)


@pytest.mark.parametrize("name", named_classes())
def test_everything_that_is_named_exists(name: str):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_module_that_is_named_can_be_imported(kind: str):
    [entry] = INFO[kind]
    for module in entry["python-modules"]:
        importlib.import_module(module)
    assert entry["integration-name"] == INFO["integrations"][0]["integration-name"]


def test_the_hook_says_the_same_as_the_provider_info():
    module, _, name = CONNECTION_TYPE["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (CONNECTION_TYPE["connection-type"], CONNECTION_TYPE["hook-name"])
    assert (hook.conn_name_attr, hook.default_conn_name) == ("quickbi_conn_id", "quickbi_default")
    behaviour = CONNECTION_TYPE["ui-field-behaviour"]
    assert hook.get_ui_field_behaviour() == {name.replace("-", "_"): value for name, value in behaviour.items()}


def test_the_standard_fields_are_treated_as_the_form_knows_them():
    behaviour = CONNECTION_TYPE["ui-field-behaviour"]
    assert set(behaviour) == {"hidden-fields", "relabeling", "placeholders"}
    assert set(behaviour["hidden-fields"]) <= STANDARD_FIELDS
    assert set(behaviour["relabeling"]) <= STANDARD_FIELDS - set(behaviour["hidden-fields"])
    assert set(behaviour["placeholders"]) <= STANDARD_FIELDS - set(behaviour["hidden-fields"])
    assert all(isinstance(text, str) for part in ("relabeling", "placeholders") for text in behaviour[part].values())


@pytest.mark.parametrize("name", CONN_FIELDS)
def test_each_field_is_described_as_the_form_wants_it(name: str):
    field = CONN_FIELDS[name]
    assert set(field) == {"label", "description", "schema"}
    assert field["label"].strip()
    assert field["description"].strip().endswith(".")
    described = field["schema"]
    assert set(described) <= SCHEMA_KEYS
    assert isinstance(described["type"], list)
    assert set(described["type"]) <= TYPES
    assert "null" in described["type"], "a field that is left empty is stored as null"
    assert described.get("format") in {None, *FORMATS}
    jsonschema.Draft7Validator.check_schema(described)
    if "enum" in described:
        assert None not in described["enum"], "the form would show a choice called null"
        assert described["default"] in described["enum"]
    else:
        jsonschema.validate(None, described)
    if "default" in described:
        jsonschema.validate(described["default"], described)
    assert all(isinstance(described.get(limit, 0), (int, float)) for limit in ("minimum", "maximum"))


def test_every_field_is_read_and_every_field_that_is_read_is_in_the_form():
    assert list(CONN_FIELDS) == [field.name for field in connection.FIELDS]
    for auth in AUTH_TYPES.values():
        assert {*auth.required, *auth.optional} <= set(CONN_FIELDS)


def test_secrets_are_password_fields_and_nothing_else_is():
    assert {name for name, field in CONN_FIELDS.items() if field["schema"].get("format") == "password"} == {
        "access_key_secret",
        "security_token",
        "bearer_token",
    }
    assert set(connection.SECRET_FIELDS) == {"access_key_secret", "security_token", "bearer_token"}


def test_no_two_fields_have_the_same_label():
    labels = [field["label"] for field in CONN_FIELDS.values()]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("quickbi://cn-hangzhou/mail-task/m-1", "quickbi://cn-hangzhou/mail-task/m-1"),
        ("quickbi://CN-Hangzhou/Mail-Task/m-1/", "quickbi://cn-hangzhou/mail-task/m-1"),
        ("quickbi://h/mail-task/a%20b", "quickbi://h/mail-task/a%20b"),
    ],
)
def test_asset_uris_have_one_normal_form(uri: str, normal: str):
    from urllib.parse import urlsplit

    from airflow_provider_quickbi.assets.quickbi import mail_task_uri, sanitize_uri

    assert sanitize_uri(urlsplit(uri)).geturl() == normal
    assert sanitize_uri(urlsplit(mail_task_uri("a b/ç"))).geturl() == mail_task_uri("a b/ç")


@pytest.mark.parametrize(
    "uri",
    [
        "quickbi://cn-hangzhou",
        "quickbi:///mail-task/m",
        "quickbi://h/other/m",
        "quickbi://h/mail-task/",
        "quickbi://h/mail-task/m/more",
        "quickbi://u:p@h/mail-task/m",
        "quickbi://h/mail-task/m?a=b",
        "quickbi://h/mail-task/m#f",
    ],
)
def test_other_asset_uris_are_refused(uri: str):
    from urllib.parse import urlsplit

    from airflow_provider_quickbi.assets.quickbi import sanitize_uri

    with pytest.raises(ValueError, match="a quickbi:// URI"):
        sanitize_uri(urlsplit(uri))
