"""Where Quick BI is and how to talk to it: one frozen value that a client is made from and an account is known by."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError

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
DEFAULT_PORTS = {"https": 443, "http": 80}

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of the OpenAPI.

    :param host: a DNS name, an IPv4 address, or an IPv6 address in brackets.
    :param scheme: ``https`` or ``http``.
    :param port: TCP port; ``None`` for the scheme's own.
    :raises ValueError: if the parts are no address.
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
        """Return the address for a region.

        :param region: one of :data:`REGIONS`.
        :param network: ``public``, or ``vpc`` for the address inside a VPC.
        :raises ValueError: if Quick BI has no address there.
        """
        if region not in REGIONS:
            raise ValueError(f"{region!r} is not one of {', '.join(REGIONS)}")
        if network not in NETWORKS:
            raise ValueError(f"{network!r} is not one of {', '.join(NETWORKS)}")
        product = "quickbi-public" if network == "public" else "quickbi-public-vpc"
        return cls(f"{product}.{region}.aliyuncs.com")

    @property
    def host_header(self) -> str:
        """The host, with the port only where it is not the scheme's own, as HTTP clients write it."""
        if self.port is None or self.port == DEFAULT_PORTS[self.scheme]:
            return self.host
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the only resource."""
        return f"{self.scheme}://{self.host_header}/"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All that a client needs; two equal values are the same account reached in the same way.

    :param endpoint: where the OpenAPI is.
    :param credentials: who asks.
    :param timezone: IANA name of the zone in which the service writes ``execTime``; default ``Asia/Shanghai``.
    :param status_calls_per_second: how often ``GetMailTaskStatus`` may be called; default 1, the documented limit
        (help.aliyun.com, document 412695).
    :param connect_timeout: seconds; default 5.
    :param read_timeout: seconds between two bytes of an answer; default 10, the service's own limit.
    :param verify: ``True`` to verify TLS certificates, ``False`` not to, or the path of a CA bundle.
    :param proxies: pairs of scheme (``http``, ``https``, ``all``) and proxy address; empty for the environment's.
    :param pacing: the Redis through which all processes share the allowance; ``None`` for each process on its own.
    """

    endpoint: Endpoint
    credentials: CredentialSpec
    timezone: str = "Asia/Shanghai"
    status_calls_per_second: float = 1.0
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    verify: bool | str = True
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pacing: RedisSettings | None = None

    @property
    def account(self) -> tuple[str, str]:
        """What the service's limits are counted by, as far as it is known: the endpoint and who asks."""
        return self.endpoint.url, self.credentials.identity

    @property
    def zone(self) -> ZoneInfo:
        """:attr:`timezone` as an object."""
        return ZoneInfo(self.timezone)

    @property
    def answer_timeout(self) -> float:
        """Seconds that a whole answer may take, so that one that trickles in does not hold a caller for ever."""
        return self.connect_timeout + 3 * self.read_timeout

    def proxy(self) -> str | None:
        """Return the proxy for the endpoint: the settings' own, else the environment's, else ``None``.

        :raises PermanentError: if it is no address of an HTTP proxy.
        """
        proxies = dict(self.proxies)
        if not proxies:
            if proxy_bypass(self.endpoint.host_header):
                return None
            proxies = getproxies()
        address = proxies.get(self.endpoint.scheme) or proxies.get("all")
        if address is None:
            return None
        if "://" not in address:  # as the environment often has it
            address = f"http://{address}"
        if not is_web_address(address):
            raise PermanentError(
                "the proxy's address cannot be used",
                kind=ErrorKind.BAD_REQUEST,
                hint="Nothing was sent. Write it as http://host:port, in proxies or in the environment",
            )
        return address

    def ca_bundle(self) -> str | None:
        """Return the file of CA certificates to trust; ``None`` where certificates are not verified."""
        if self.verify is False:
            return None
        if isinstance(self.verify, str):
            return self.verify
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH


def is_web_address(text: Any) -> bool:
    """Whether a value is an address of HTTP or HTTPS with a host."""
    if not isinstance(text, str) or any(character.isspace() or ord(character) < 32 for character in text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def split_endpoint(text: str) -> tuple[str | None, str, int | None]:
    """Read an endpoint as people write it: ``host``, ``host:port`` or ``https://host:port/``.

    :returns: scheme (``None`` if it was not given), host and port (``None`` if it was not given).
    :raises ValueError: if there is a path, a query or user info, or the port is no number.
    """
    has_scheme = "://" in text
    parts = urlsplit(text if has_scheme else f"//{text}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        written = "it" if "@" in text else repr(text[:100])  # a password may be among what it has more
        raise ValueError(f"{written} has more than a scheme, a host and a port")
    host = parts.hostname or ""
    return (parts.scheme if has_scheme else None), (f"[{host}]" if ":" in host else host), parts.port
