"""An Airflow connection becomes client settings; one table of fields feeds the form, the checks and the docs."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.api.credentials import AUTH_TYPES, CredentialSpec
from airflow_provider_quickbi.api.models import printable
from airflow_provider_quickbi.api.settings import (
    DEFAULT_PORTS,
    NETWORKS,
    REGIONS,
    ClientSettings,
    Endpoint,
    Proxies,
    is_web_address,
    split_endpoint,
)

CONN_TYPE = "quickbi"
DEFAULT_CONN_ID = "quickbi_default"
HOOK_NAME = "Alibaba Cloud Quick BI"
#: The connection type of apache-airflow-providers-alibaba, whose credentials and region are understood as they are.
ALIBABA_CONN_TYPE = "alibaba_cloud"

AUTH_TYPE_ALIASES = {"AK": "access_key", "ak": "access_key"}
DEFAULT_REGION = "cn-hangzhou"
#: The Quick BI console; only the address for China is documented.
CHINA_CONSOLE_URL = "https://bi.aliyun.com/"


class ConnectionFieldError(ValueError):
    """A field of a connection is wrong or missing; the message names the connection, the field and what is expected."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the connection's extra, as the form shows it and as it is read.

    :param name: its key in the extra.
    :param label: as the form shows it.
    :param description: one sentence of help.
    :param kind: ``string``, ``number`` or ``boolean``.
    :param default: what is taken if it is left out, as the form shows it.
    :param choices: the values it may have.
    :param secret: whether it is a password field and masked.
    :param minimum: the smallest number.
    :param maximum: the largest number.
    """

    name: str
    label: str
    description: str
    kind: str = "string"
    default: Any = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None


#: The one table of fields in the extra, in the order of the form.
FIELDS: tuple[Field, ...] = (
    Field(
        "region",
        "Region",
        "Region of the Quick BI OpenAPI; cn-hangzhou serves all of mainland China. Not used if a host is given.",
        default=DEFAULT_REGION,
        choices=REGIONS,
    ),
    Field(
        "network",
        "Network",
        "public, or vpc for the region's address inside an Alibaba Cloud VPC.",
        default="public",
        choices=NETWORKS,
    ),
    Field(
        "auth_type",
        "Authentication type",
        "access_key uses AccessKey ID and Secret; the others use the fields below; default is the SDK's own chain "
        "(environment, OIDC, profile, instance metadata).",
        default="access_key",
        choices=tuple(AUTH_TYPES),
    ),
    Field(
        "access_key_id",
        "AccessKey ID (extra)",
        "In place of the AccessKey ID of the standard fields; an alibaba_cloud connection has it here.",
    ),
    Field(
        "access_key_secret",
        "AccessKey Secret (extra)",
        "In place of the AccessKey Secret of the standard fields; an alibaba_cloud connection has it here.",
        secret=True,
    ),
    Field(
        "security_token",
        "Security token",
        "Of temporary credentials; for sts, and for ram_role_arn if its AccessKey is temporary.",
        secret=True,
    ),
    Field("role_arn", "Role ARN", "The RAM role to assume; for ram_role_arn and oidc_role_arn."),
    Field("role_session_name", "Role session name", "Name of the session in the audit log of the assumed role."),
    Field(
        "role_session_expiration",
        "Role session duration",
        "Seconds for which an assumed role's credentials are valid.",
        kind="number",
        default=3600,
        minimum=900,
        maximum=43200,
    ),
    Field("policy", "Role policy", "JSON policy that narrows the assumed role's rights further."),
    Field("external_id", "External ID", "External id that the assumed role demands; for ram_role_arn."),
    Field("sts_endpoint", "STS endpoint", "Host of the STS service, if not the public one; for assumed roles."),
    Field(
        "oidc_provider_arn",
        "OIDC provider ARN",
        "The identity provider; for oidc_role_arn. Without it, ALIBABA_CLOUD_OIDC_PROVIDER_ARN.",
    ),
    Field(
        "oidc_token_file_path",
        "OIDC token file",
        "Path of the file with the OIDC token; for oidc_role_arn. Without it, ALIBABA_CLOUD_OIDC_TOKEN_FILE.",
    ),
    Field(
        "role_name", "ECS RAM role", "Name of the instance's RAM role; for ecs_ram_role. Without it, it is looked up."
    ),
    Field(
        "disable_imds_v1",
        "Instance metadata v2 only",
        "Refuse the older protocol of the instance metadata service; for ecs_ram_role.",
        kind="boolean",
        default=False,
    ),
    Field("credentials_uri", "Credentials URI", "Local address that gives temporary credentials; for credentials_uri."),
    Field("bearer_token", "Bearer token", "Sent instead of a signature; for bearer.", secret=True),
    Field(
        "timezone",
        "Time zone of execTime",
        "IANA name of the zone in which Quick BI writes the time of a run.",
        default="Asia/Shanghai",
    ),
    Field(
        "status_calls_per_second",
        "Status calls a second",
        "How often GetMailTaskStatus may be called; the documented limit is 1 a second.",
        kind="number",
        default=1,
        minimum=0.001,
        maximum=1000,
    ),
    Field(
        "connect_timeout",
        "Connect timeout",
        "Seconds to wait for a connection.",
        kind="number",
        default=5,
        minimum=0.001,
        maximum=300,
    ),
    Field(
        "read_timeout",
        "Read timeout",
        "Seconds to wait for an answer; the service itself gives up after 10.",
        kind="number",
        default=10,
        minimum=0.001,
        maximum=300,
    ),
    Field(
        "verify",
        "Verify TLS certificate",
        "true, false, or the path of a file with the CA certificates to trust.",
        default="true",
    ),
    Field(
        "proxies",
        "Proxies",
        'A proxy\'s address, or JSON such as {"https": "http://proxy:3128"}. Without it, the environment\'s.',
    ),
    Field(
        "console_url",
        "Console address",
        "Address of the Quick BI console that the task's link opens; known for mainland China.",
    ),
)

#: The password in a proxy's address.
_PROXY_PASSWORD = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")

FIELD_NAMES = frozenset(field.name for field in FIELDS)
SECRET_FIELDS = tuple(field.name for field in FIELDS if field.secret)

#: What the standard fields of the form are called; ``extra`` is hidden because every field of it is shown.
HIDDEN_FIELDS = ("extra",)
RELABELING = {
    "login": "AccessKey ID",
    "password": "AccessKey Secret",
    "host": "Endpoint",
    "schema": "Protocol",
}
PLACEHOLDERS = {
    "login": "LTAI...",
    "host": "only for an endpoint that the region does not give",
    "port": "443",
    "schema": "https",
}

#: Where the SDK's own environment variables stand in for a field of the connection.
_ENVIRONMENT = {
    "role_arn": "ALIBABA_CLOUD_ROLE_ARN",
    "oidc_provider_arn": "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
    "oidc_token_file_path": "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    "credentials_uri": "ALIBABA_CLOUD_CREDENTIALS_URI",
}


@dataclass(frozen=True, slots=True)
class RawConnection:
    """What Airflow gives of a connection.

    :param conn_id: its id, for errors.
    :param conn_type: ``quickbi`` or ``alibaba_cloud``.
    :param extra: the decoded extra.
    """

    conn_id: str
    conn_type: str | None = CONN_TYPE
    login: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    schema: str | None = None
    extra: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"RawConnection({self.conn_id!r})"


@dataclass(frozen=True, slots=True)
class QuickBIConnection:
    """What a connection says.

    :param settings: for a client.
    :param console_url: where the Quick BI console is; ``None`` if it is not known.
    """

    settings: ClientSettings
    console_url: str | None


def read_connection(raw: RawConnection) -> QuickBIConnection:
    """Check every field of a connection and make settings of it; nothing is called.

    :param raw: the connection.
    :raises ConnectionFieldError: for the first field that is wrong or missing.
    """
    return _Reader(raw).read()


def check_extra(conn_id: str, extra: str | None) -> None:
    """Refuse an extra that Airflow would silently take for an empty one.

    :param conn_id: of the connection, for the error.
    :param extra: as it is stored.
    :raises ConnectionFieldError: if it is no JSON object.
    """
    if not extra:
        return
    remedy = "Write the extra as a JSON object."
    try:
        decoded = json.loads(extra)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConnectionFieldError(f"Connection {conn_id!r}: extra is not JSON{where}. {remedy}") from None
    if not isinstance(decoded, Mapping):
        raise ConnectionFieldError(f"Connection {conn_id!r}: extra is not a JSON object. {remedy}")


def secrets_of(raw: RawConnection) -> list[str]:
    """Return what must never be shown."""
    extra = raw.extra if isinstance(raw.extra, Mapping) else {}
    found = [raw.password, *(extra.get(name) for name in SECRET_FIELDS)]
    found += _PROXY_PASSWORD.findall(str(extra.get("proxies", "")))
    return [str(value) for value in found if value]


class _Reader:
    def __init__(self, raw: RawConnection) -> None:
        self.raw = raw
        self.borrowed = raw.conn_type == ALIBABA_CONN_TYPE
        extra = raw.extra if raw.extra is not None else {}
        if not isinstance(extra, Mapping):
            raise self.wrong("extra", "is not a JSON object", "Write the extra as a JSON object")
        if not self.borrowed and (unknown := sorted(set(map(str, extra)) - FIELD_NAMES)):
            known = ", ".join(field.name for field in FIELDS)
            raise self.wrong(printable(unknown[0][:100]), "is not known", f"The extra takes {known}")
        self.extra = extra

    def wrong(self, field: str, what: str, remedy: str) -> ConnectionFieldError:
        return ConnectionFieldError(f"Connection {self.raw.conn_id!r}: {field} {what}. {remedy}.")

    def read(self) -> QuickBIConnection:
        region = self.region()
        endpoint = self.endpoint(region)
        settings = ClientSettings(
            endpoint=endpoint,
            credentials=self.credentials(),
            timezone=self.timezone(),
            status_calls_per_second=self.number("status_calls_per_second"),
            connect_timeout=self.number("connect_timeout"),
            read_timeout=self.number("read_timeout"),
            verify=self.verify(),
            proxies=self.proxies(),
        )
        return QuickBIConnection(settings, self.console_url(region))

    def text(self, name: str) -> str | None:
        value = self.extra.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(name, f"is {type(value).__name__}", "Write it as text")
        value = value.strip()
        if any(ord(character) < 32 for character in value):
            raise self.wrong(name, "has a line break or another control character", "Take it out")
        return value or None

    def chosen(self, name: str, aliases: Mapping[str, str] | None = None) -> str:
        field = _field(name)
        value = self.text(name) or field.default
        value = (aliases or {}).get(value, value)
        if value not in field.choices:
            raise self.wrong(name, f"is {value[:100]!r}", f"It must be one of {', '.join(field.choices)}")
        return str(value)

    def number(self, name: str) -> float:
        field = _field(name)
        value = self.extra.get(name)
        if value is None or value == "":
            value = field.default
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        low, high = field.minimum or 0.0, field.maximum or math.inf
        if not low <= number <= high:
            raise self.wrong(name, "is not such a number", f"It must be a number from {low:g} to {high:g}")
        return number

    def flag(self, name: str) -> bool:
        value = self.extra.get(name)
        if value is None or value == "":
            return bool(_field(name).default)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise self.wrong(name, "is neither true nor false", "Write true or false")

    def region(self) -> str:
        if self.borrowed:
            region = self.text("region") or DEFAULT_REGION
            mainland = region.startswith("cn-") and region not in REGIONS
            return DEFAULT_REGION if mainland else self.chosen("region")
        region = self.text("region") or ""
        if region.startswith("cn-") and region not in REGIONS:
            raise self.wrong("region", f"is {region[:100]!r}", "All of mainland China is served by cn-hangzhou")
        return self.chosen("region")

    def endpoint(self, region: str) -> Endpoint:
        network = self.chosen("network")
        schema = (self.raw.schema or "").strip().lower()
        if schema not in ("", *DEFAULT_PORTS):
            raise self.wrong("schema", f"is {schema[:100]!r}", "It must be https or http")
        if self.borrowed or not (self.raw.host or "").strip():
            if not self.borrowed and (schema == "http" or self.raw.port):
                raise self.wrong("host", "is missing", "A port or the protocol http can be set only for a host")
            return Endpoint.of_region(region, network)
        try:
            written_schema, host, written_port = split_endpoint((self.raw.host or "").strip())
            return Endpoint(host, schema or written_schema or "https", self.raw.port or written_port)
        except ValueError as error:
            raise self.wrong(
                "host", f"cannot be used: {error}", "Write a host name such as quickbi-public.cn-hangzhou.aliyuncs.com"
            ) from None

    def credentials(self) -> CredentialSpec:
        default = "sts" if self.extra.get("security_token") and not self.extra.get("auth_type") else None
        name = default or self.chosen("auth_type", AUTH_TYPE_ALIASES)
        auth = AUTH_TYPES[name]
        values: dict[str, Any] = {}
        for wanted in (*auth.required, *auth.optional):
            value = self.credential(wanted)
            if value is None and wanted in auth.required and wanted in _ENVIRONMENT:
                value = os.environ.get(_ENVIRONMENT[wanted]) or None
            if value is None and wanted in auth.required:
                raise self.wrong(_WHERE.get(wanted, wanted), "is missing", f"auth_type {name} needs it")
            values[wanted] = value
        return CredentialSpec.of(name, **values)

    def credential(self, name: str) -> Any:
        if name == "access_key_id":
            return self.standard("login", self.raw.login) or self.text(name)
        if name == "access_key_secret":
            return self.standard("password", self.raw.password) or self.text(name)
        if name == "role_session_expiration":
            return int(self.number(name)) if self.extra.get(name) not in (None, "") else None
        if name == "disable_imds_v1":
            return self.flag(name) or None
        return self.text(name)

    def standard(self, name: str, value: str | None) -> str | None:
        value = (value or "").strip()
        if any(ord(character) < 32 for character in value):
            raise self.wrong(name, "has a line break or another control character", "Take it out")
        return value or None

    def timezone(self) -> str:
        name = self.text("timezone") or _field("timezone").default
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise self.wrong(
                "timezone", f"is {name[:100]!r}", "It must be an IANA name such as Asia/Shanghai"
            ) from None
        return str(name)

    def verify(self) -> bool | str:
        value = self.extra.get("verify")
        if value is None or isinstance(value, bool):
            return True if value is None else value
        text = self.text("verify") or "true"
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if not _exists(text):
            raise self.wrong("verify", f"names {text[:200]!r}, which is not there", "Write true, false or a CA file")
        return text

    def proxies(self) -> Proxies | None:
        value = self.extra.get("proxies")
        if isinstance(value, str) and value.strip().startswith("{"):
            value = self.decoded("proxies", value)
        if value is None or value == "" or value == {}:
            return None
        if isinstance(value, str):
            value = {"all": value.strip()}
        if not isinstance(value, Mapping):
            raise self.wrong("proxies", f"is {type(value).__name__}", "Write an address or a JSON object of addresses")
        for scheme, address in value.items():
            if scheme not in ("http", "https", "all") or not is_web_address(address):
                raise self.wrong(
                    "proxies", "is not usable", 'Write it as {"https": "http://proxy:3128"}, keys http, https, all'
                )
        return tuple(sorted((str(scheme), str(address)) for scheme, address in value.items()))

    def decoded(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.wrong(name, "is not JSON", "Check its quotes and braces") from None

    def console_url(self, region: str) -> str | None:
        url = self.text("console_url")
        if url is None:
            return CHINA_CONSOLE_URL if region == DEFAULT_REGION else None
        if not is_web_address(url):
            raise self.wrong("console_url", "is not a web address", "It must begin with https:// or http://")
        if "@" in urlsplit(url).netloc:
            raise self.wrong("console_url", "has a user name or password", "Take it out: everybody sees the link")
        return url


def _exists(path: str) -> bool:
    """Whether there is such a file; what is no path at all, such as one that is too long, is not there."""
    try:
        return Path(path).exists()
    except OSError:
        return False


_WHERE = {
    "access_key_id": "login (AccessKey ID)",
    "access_key_secret": "password (AccessKey Secret)",
}


def _field(name: str) -> Field:
    return _BY_NAME[name]


_BY_NAME = {field.name: field for field in FIELDS}


def form_behaviour() -> dict[str, Any]:
    """Return how the form treats the standard fields."""
    return {"hidden_fields": list(HIDDEN_FIELDS), "relabeling": dict(RELABELING), "placeholders": dict(PLACEHOLDERS)}


def form_fields() -> dict[str, dict[str, Any]]:
    """Return the form's fields of the extra, as the provider info describes them."""
    return {
        field.name: {"label": field.label, "description": field.description, "schema": _schema(field)}
        for field in FIELDS
    }


def _schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.kind, "null"]}
    optional: tuple[tuple[str, Any], ...] = (
        ("default", field.default),
        ("enum", list(field.choices) or None),  # a null among them would be shown as a choice
        ("format", "password" if field.secret else None),
        ("minimum", field.minimum),
        ("maximum", field.maximum),
    )
    return schema | {key: value for key, value in optional if value is not None}


def form_widgets(build: Callable[[Field], Any]) -> dict[str, Any]:
    """Return the form's fields of the extra as Airflow 2.11 to 3.1 want them.

    :param build: makes a WTForms field.
    """
    return {field.name: build(field) for field in FIELDS}
