"""From an Airflow connection to client settings: every check of every field, before any request."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.api.credentials import AUTH_TYPES, CredentialSpec, default_sts_endpoint
from airflow_provider_quickbi.api.models import printable
from airflow_provider_quickbi.api.proxies import of_scheme
from airflow_provider_quickbi.api.settings import (
    DEFAULT_PORTS,
    NO_PROXIES,
    ClientSettings,
    Endpoint,
    Proxies,
    is_web_address,
    serving_region,
    split_endpoint,
)
from airflow_provider_quickbi.connection.fields import (
    ALIBABA_CONN_TYPE,
    CONN_TYPE,
    DEFAULT_REGION,
    FIELD_BY_NAME,
    FIELD_NAMES,
    FIELDS,
    SECRET_FIELDS,
)
from airflow_provider_quickbi.connection.masks import holds_mask, is_mask

#: The Quick BI console of mainland China, the only one whose URL is documented.
CHINA_CONSOLE_URL = "https://bi.aliyun.com/"

_AUTH_TYPE_ALIASES = {"AK": "access_key", "ak": "access_key"}
#: Environment variables of the Alibaba Cloud SDK that replace an empty field.
_ENVIRONMENT = {
    "role_arn": "ALIBABA_CLOUD_ROLE_ARN",
    "oidc_provider_arn": "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
    "oidc_token_file_path": "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    "credentials_uri": "ALIBABA_CLOUD_CREDENTIALS_URI",
}
_IN_STANDARD_FIELD = {
    "access_key_id": "login (AccessKey ID)",
    "access_key_secret": "password (AccessKey Secret)",
}
_WITHOUT_BLANKS = frozenset({"access_key_id", "credentials_uri", "external_id", *SECRET_FIELDS})
_PROXY_PASSWORD = re.compile(r"://[^/@\s:]*:([^/\s]+)@")
#: How Airflow's older forms and command line write a field of the extra.
_OWN_PREFIXES = (f"extra__{CONN_TYPE}", f"extra__{ALIBABA_CONN_TYPE}")
_PREFIX = re.compile(rf"(?:{'|'.join(_OWN_PREFIXES)})__(.+)")


class ConnectionFieldError(ValueError):
    """A field of a connection is invalid or missing; the message names the connection, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class RawConnection:
    """The values of an Airflow connection.

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
    """A parsed connection.

    :param settings: for a client.
    :param console_url: URL of the Quick BI console; ``None`` if unknown.
    :param pacing_conn_id: id of the ``redis`` connection through which processes share the rate limit; ``None`` if
        each process has its own.
    """

    settings: ClientSettings
    console_url: str | None
    pacing_conn_id: str | None = None


def read_connection(raw: RawConnection) -> QuickBIConnection:
    """Check every field of a connection and return it parsed; no request is sent.

    :param raw: the connection.
    :raises ConnectionFieldError: for the first field that is invalid or missing.
    """
    return _Parser(raw).parse()


def parse_extra(conn_id: str, extra: str | None) -> dict[str, Any]:
    """Decode an extra. Airflow itself treats an invalid one as empty.

    :param conn_id: of the connection, for the error.
    :param extra: as stored.
    :raises ConnectionFieldError: if it is not a JSON object.
    """
    if not extra:
        return {}
    remedy = "Write the extra as a JSON object."
    try:
        decoded = json.loads(extra)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise ConnectionFieldError(f"Connection {conn_id!r}: extra is not JSON{where}. {remedy}") from None
    if not isinstance(decoded, dict):
        raise ConnectionFieldError(f"Connection {conn_id!r}: extra is not a JSON object. {remedy}")
    return decoded


def secrets_of(raw: RawConnection) -> list[str]:
    """Return the values that must never be shown."""
    extra = _without_prefixes(raw.extra) if isinstance(raw.extra, Mapping) else {}
    found = [raw.password, *(extra.get(name) for name in SECRET_FIELDS)]
    found += _PROXY_PASSWORD.findall(str(extra.get("proxies", "")))
    return [str(value) for value in found if value and not is_mask(value)]


def _without_prefixes(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extra with the names of known fields freed of ``extra__<connection type>__``; a plain name wins."""
    plain = {str(name): value for name, value in extra.items()}
    for name in list(plain):
        known = _PREFIX.fullmatch(name)
        if known and known[1] in FIELD_NAMES:
            value = plain.pop(name)
            if plain.get(known[1]) in (None, ""):
                plain[known[1]] = value
    return plain


class _Parser:
    """Parses one connection, field by field."""

    def __init__(self, raw: RawConnection) -> None:
        self.raw = raw
        self.is_alibaba = raw.conn_type == ALIBABA_CONN_TYPE
        if not isinstance(raw.extra, Mapping | None):
            raise self.error("extra", "is not a JSON object", "Write the extra as a JSON object")
        self.extra = _without_prefixes(raw.extra or {})
        if not self.is_alibaba and (unknown := sorted(set(self.extra) - FIELD_NAMES)):
            name = unknown[0][:100]
            near = get_close_matches(name, FIELD_NAMES, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            known = ", ".join(field.name for field in FIELDS)
            raise self.error(printable(name), f"is not a known field{meant} The known fields are {known}")
        if self.is_alibaba:
            self.refuse_unread_names()
        known_values = {name: value for name, value in self.extra.items() if name in FIELD_NAMES}
        for name, value in ({"login": raw.login, "password": raw.password} | known_values).items():
            if holds_mask(value):
                what = "the secret" if name in ("password", *SECRET_FIELDS) else "the value"
                raise self.error(name, f"holds Airflow's mask, not {what}", "Enter it again")

    def error(self, field: str, problem: str, remedy: str = "") -> ConnectionFieldError:
        """Return the error for a field; neither part ends with a full stop."""
        sentences = ". ".join(part for part in (problem, remedy) if part)
        return ConnectionFieldError(f"Connection {self.raw.conn_id!r}: {field} {sentences}.")

    def refuse_unread_names(self) -> None:
        """Reject unknown legacy names (``extra__…``) that were probably meant for this provider."""
        for name in self.extra:
            prefix, _, field = name.rpartition("__")
            if not prefix.startswith("extra__"):
                continue
            near = get_close_matches(field, FIELD_NAMES, 1, 0.8)
            if prefix in _OWN_PREFIXES or (near == ["region"] and not self.extra.get("region")):
                remedy = f"Rename it to {near[0]}" if near else "Remove it"
                raise self.error(printable(name[:100]), "is not a known field", remedy)

    def parse(self) -> QuickBIConnection:
        region, network, proxies = self.region(), self.choice("network"), self.proxies()
        settings = ClientSettings(
            endpoint=self.endpoint(region, network),
            credentials=self.credentials(
                default_sts_endpoint(region, network), of_scheme(dict(proxies or ()), "https")
            ),
            timezone=self.timezone(),
            status_calls_per_second=self.number("status_calls_per_second"),
            connect_timeout=self.number("connect_timeout"),
            read_timeout=self.number("read_timeout"),
            verify=self.verify(),
            proxies=proxies,
        )
        return QuickBIConnection(settings, self.console_url(region), self.text("pacing_conn_id"))

    # Kinds of fields

    def text(self, name: str) -> str | None:
        value = self.extra.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(name, f"is {_shown(value)}", "Write it as a string")
        return self.credential_text(name, value) if name in _WITHOUT_BLANKS else self.stripped(name, value)

    def credential_text(self, name: str, value: str) -> str | None:
        """Return a text without blanks: a ``+`` in the query of a URI becomes one, even at the end."""
        text = self.stripped(name, value)
        if text and " " in value.strip("\r\n\t"):
            raise self.error(name, "contains a blank", "In a connection URI, write + as %2B; otherwise remove it")
        return text

    def stripped(self, name: str, value: str) -> str | None:
        text = value.strip()
        if not text:
            return None
        if any(ord(character) < 32 for character in text):
            raise self.error(name, "contains a line break or another control character", "Remove it")
        return text

    def choice(self, name: str, aliases: Mapping[str, str] | None = None) -> str:
        field = FIELD_BY_NAME[name]
        value = self.text(name) or str(field.default)
        value = (aliases or {}).get(value, value)
        if value not in field.choices:
            raise self.error(name, f"is {_shown(value)}", f"It must be one of {', '.join(field.choices)}")
        return value

    def number(self, name: str) -> float:
        field = FIELD_BY_NAME[name]
        value = self.extra.get(name)
        if value is None or value == "":
            value = field.default
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # that is the check
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        low, high = field.minimum or 0.0, field.maximum or math.inf
        if not low <= number <= high:
            raise self.error(name, f"is {_shown(value)}", f"It must be a number from {low:g} to {high:g}")
        return number

    def flag(self, name: str) -> bool:
        value = self.extra.get(name)
        if value is None or value == "":
            return bool(FIELD_BY_NAME[name].default)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise self.error(name, f"is {_shown(value)}", "It must be true or false")

    # The endpoint

    def region(self) -> str:
        region = self.text("region") or DEFAULT_REGION
        if (serving := serving_region(region)) != region:
            if self.is_alibaba:
                return serving
            raise self.error("region", f"is {_shown(region)}", f"Use {serving}, which serves all of mainland China")
        return self.choice("region")

    def endpoint(self, region: str, network: str) -> Endpoint:
        host = (self.raw.host or "").strip()
        scheme = (self.raw.schema or "").strip().lower()
        if scheme not in ("", *DEFAULT_PORTS):
            raise self.error("schema", f"is {_shown(scheme)}", "It must be https or http")
        if self.is_alibaba or not host:
            if not self.is_alibaba and (scheme == "http" or self.raw.port):
                raise self.error("host", "is missing", "Set it, or remove port and schema, which apply only to a host")
            return Endpoint.of_region(region, network)
        try:
            host_scheme, host, host_port = split_endpoint(host)
            return Endpoint(host, scheme or host_scheme or "https", self.raw.port or host_port)
        except ValueError as error:
            remedy = "Write a host name such as quickbi-public.cn-hangzhou.aliyuncs.com"
            raise self.error("host", f"is invalid: {error}", remedy) from None

    # Credentials

    def credentials(self, sts_endpoint: str | None, sts_proxy: str | None) -> CredentialSpec:
        if self.extra.get("security_token") and not self.extra.get("auth_type"):
            name = "sts"
        else:
            name = self.choice("auth_type", _AUTH_TYPE_ALIASES)
        auth = AUTH_TYPES[name]
        values = {wanted: self.credential(wanted) for wanted in (*auth.required, *auth.optional)}
        for required in auth.required:
            if values[required] is None and required in _ENVIRONMENT:
                values[required] = os.environ.get(_ENVIRONMENT[required]) or None
            if values[required] is None:
                field = _IN_STANDARD_FIELD.get(required, required)
                raise self.error(field, "is missing", f"auth_type {name} requires it")
        if "sts_endpoint" in values:
            values |= {"sts_endpoint": values["sts_endpoint"] or sts_endpoint, "proxy": sts_proxy}
        return CredentialSpec.of(name, **values)

    def credential(self, name: str) -> str | int | bool | None:
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
        # Only the extra is decoded as a query: a blank at the end of these was pasted, and is stripped.
        return self.credential_text(name, (value or "").strip())

    # Everything else

    def timezone(self) -> str:
        name = self.text("timezone") or str(FIELD_BY_NAME["timezone"].default)
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            remedy = "It must be an IANA name such as Asia/Shanghai"
            raise self.error("timezone", f"is {_shown(name)}", remedy) from None
        return name

    def verify(self) -> bool | str:
        value = self.extra.get("verify")
        if isinstance(value, bool):
            return value
        text = self.text("verify") or "true"
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if not _exists(text):
            remedy = "Write true, false or the path of a CA bundle"
            raise self.error("verify", f"is {_shown(text)}, which does not exist", remedy)
        return text

    def proxies(self) -> Proxies | None:
        value = self.extra.get("proxies")
        if isinstance(value, str):
            value = self.proxies_text()
        if value is None or value == {}:
            return None
        if not isinstance(value, Mapping):
            raise self.error("proxies", f"is {_shown(value)}", "Write a URL, a JSON object of URLs, or none")
        if value.get("all") == "none":
            return NO_PROXIES
        for scheme, url in value.items():
            if scheme not in ("http", "https", "all") or not is_web_address(url):
                remedy = 'Write http://proxy:3128, {"https": "http://proxy:3128"} (keys http, https, all), or none'
                raise self.error("proxies", "is not a proxy URL", remedy)
        return tuple(sorted((str(scheme), str(url)) for scheme, url in value.items()))

    def proxies_text(self) -> object:
        text = self.text("proxies")
        if text is None or not text.startswith("{"):
            return text and {"all": "none" if text.lower() == "none" else text}
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.error("proxies", "is not valid JSON", "Check its quotes and braces") from None

    def console_url(self, region: str) -> str | None:
        url = self.text("console_url")
        if url is None:
            return CHINA_CONSOLE_URL if region == DEFAULT_REGION else None
        if not is_web_address(url):
            raise self.error("console_url", "is not a URL", "It must start with https:// or http://")
        if "@" in urlsplit(url).netloc:
            raise self.error("console_url", "contains a user name or password", "Remove it; everyone sees the link")
        return url


def _shown(value: object) -> str:
    """Return a value as an error may show it: in one line, short, and never a whole structure."""
    if isinstance(value, str):
        return repr(value[:100])
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**20):
        return repr(value)
    return f"of type {type(value).__name__}"


def _exists(path: str) -> bool:
    """Whether a file exists; what cannot be a path, such as one that is too long, does not."""
    try:
        return Path(path).exists()
    except OSError:
        return False
