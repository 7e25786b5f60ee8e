"""Where Quick BI is and how to reach it: one frozen value that a client is built from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.credentials import CredentialSpec
    from airflow_provider_quickbi.api.shared_rate_limit import RedisSettings

#: Regions with a Quick BI OpenAPI. Source: "Endpoints" of product quickbi-public, version 2022-01-01.
REGIONS = (
    "cn-hangzhou",
    "cn-hongkong",
    "ap-southeast-1",
    "ap-southeast-3",
    "ap-southeast-5",
    "ap-northeast-1",
    "us-east-1",
    "eu-central-1",
    "me-central-1",
    "cn-shanghai-finance-1",
)
NETWORKS = ("public", "vpc")
#: The region that serves all of mainland China.
CHINA_REGION = "cn-hangzhou"
DEFAULT_PORTS = {"https": 443, "http": 80}

#: Pairs of scheme (``http``, ``https`` or ``all``) and proxy URL.
Proxies = tuple[tuple[str, str], ...]
#: Connect directly, whatever the environment says.
NO_PROXIES: Proxies = ()

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of the OpenAPI.

    :param host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
    :param scheme: ``https`` or ``http``.
    :param port: TCP port; ``None`` for the scheme's default.
    :raises ValueError: if a part is invalid.
    """

    host: str
    scheme: str = "https"
    port: int | None = None

    def __post_init__(self) -> None:
        if self.scheme not in DEFAULT_PORTS:
            raise ValueError(f"scheme must be https or http, not {self.scheme!r}")
        if not (_HOST.fullmatch(self.host) or _IPV6.fullmatch(self.host)):
            raise ValueError(f"{self.host[:100]!r} is not a host name")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port must be between 1 and 65535, not {self.port}")

    @classmethod
    def of_region(cls, region: str, network: str = "public") -> Endpoint:
        """Return the endpoint of a region.

        :param region: one of :data:`REGIONS`.
        :param network: ``public``, or ``vpc`` for the endpoint inside a VPC; default ``public``.
        :raises ValueError: if there is no such region or network.
        """
        if region not in REGIONS:
            raise ValueError(f"{region!r} is not one of {', '.join(REGIONS)}")
        if network not in NETWORKS:
            raise ValueError(f"{network!r} is not one of {', '.join(NETWORKS)}")
        product = "quickbi-public" if network == "public" else "quickbi-public-vpc"
        return cls(f"{product}.{region}.aliyuncs.com")

    @property
    def region(self) -> str | None:
        """The region whose endpoint this is; ``None`` for any other host."""
        return _REGION_OF_HOST.get(self.host.lower().rstrip("."))

    @property
    def host_header(self) -> str:
        """The host, with the port unless it is the scheme's default, as HTTP clients send it."""
        if self.port is None or self.port == DEFAULT_PORTS[self.scheme]:
            return self.host
        return f"{self.host}:{self.port}"

    @property
    def effective_port(self) -> int:
        """The TCP port, filled in from the scheme where none is given."""
        return self.port or DEFAULT_PORTS[self.scheme]

    @property
    def url(self) -> str:
        """The URL of the only resource."""
        return f"{self.scheme}://{self.host_header}/"


_REGION_OF_HOST = {Endpoint.of_region(region, network).host: region for region in REGIONS for network in NETWORKS}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Everything a client needs; equal values mean the same account reached in the same way.

    :param endpoint: where the OpenAPI is.
    :param credentials: what requests are signed with.
    :param timezone: IANA name of the zone in which the service writes times; default ``Asia/Shanghai``.
    :param status_calls_per_second: how often ``GetMailTaskStatus`` may be called; default 1, the documented limit
        (help.aliyun.com, document 412695).
    :param connect_timeout: seconds; default 5.
    :param read_timeout: seconds between two bytes of a response; default 10, the service's own limit.
    :param verify: ``True`` to verify TLS certificates, ``False`` not to, or the path of a CA bundle.
    :param proxies: the proxies to use, :data:`NO_PROXIES` for a direct connection, or ``None`` (default) for those of
        the environment; see :func:`airflow_provider_quickbi.api.proxies.proxy_for`.
    :param pacing: the Redis through which all processes share the limit; ``None`` for each process on its own.
    """

    endpoint: Endpoint
    credentials: CredentialSpec
    timezone: str = "Asia/Shanghai"
    status_calls_per_second: float = 1.0
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    verify: bool | str = True
    proxies: Proxies | None = field(default=None, repr=False)
    pacing: RedisSettings | None = None

    @property
    def account(self) -> tuple[str, str]:
        """What the service's limits are counted by, as far as is known: the endpoint and the caller's identity."""
        return self.endpoint.url, self.credentials.identity

    @property
    def zone(self) -> ZoneInfo:
        """:attr:`timezone` as an object."""
        return ZoneInfo(self.timezone)

    @property
    def response_timeout(self) -> float:
        """Seconds that a whole response may take; bounds one that trickles in byte by byte."""
        return self.connect_timeout + 3 * self.read_timeout

    def ca_bundle(self) -> str | None:
        """Return the file of trusted CA certificates; ``None`` if certificates are not verified."""
        if self.verify is False:
            return None
        if isinstance(self.verify, str):
            return self.verify
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH


def serving_region(region: str) -> str:
    """Return the region whose OpenAPI serves a region: one for all of mainland China.

    :param region: as an asset or a connection to other services names it.
    """
    return CHINA_REGION if region.startswith("cn-") and region not in REGIONS else region


def is_web_address(text: Any) -> bool:
    """Whether a value is an ``http`` or ``https`` URL with a host."""
    if not isinstance(text, str) or any(character.isspace() or ord(character) < 32 for character in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def split_endpoint(text: str) -> tuple[str | None, str, int | None]:
    """Parse an endpoint as people write it: ``host``, ``host:port`` or ``https://host:port/``.

    :returns: scheme (``None`` if not given), host and port (``None`` if not given).
    :raises ValueError: if there is a path, a query or user info, or the port is not a number.
    """
    has_scheme = "://" in text
    parts = urlsplit(text if has_scheme else f"//{text}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        written = "it" if "@" in text else repr(text[:100])  # the excess may contain a password
        raise ValueError(f"{written} is more than a scheme, a host and a port")
    host = parts.hostname or ""
    return (parts.scheme if has_scheme else None), (f"[{host}]" if ":" in host else host), parts.port
