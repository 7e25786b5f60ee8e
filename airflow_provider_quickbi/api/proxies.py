"""The proxy for a connection: the one decision that both clients use."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError
from airflow_provider_quickbi.api.settings import is_web_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.settings import ClientSettings

#: A host with an optional port, as an entry of ``NO_PROXY`` may have it.
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(:(?P<port>[0-9]{1,5}))?")


def proxy_for(settings: ClientSettings) -> str | None:
    """Return the proxy's URL for a client's endpoint, or ``None`` for a direct connection.

    The settings' own ``proxies`` decide if there are any. Otherwise the environment does: ``HTTP_PROXY``,
    ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, of which the lower-case names take precedence. The environment
    never applies to endpoints on this machine.

    :raises PermanentError: if the proxy's URL is invalid.
    """
    endpoint = settings.endpoint
    proxies: Mapping[str, str]
    if settings.proxies is not None:
        proxies = dict(settings.proxies)
    else:
        proxies = getproxies_environment()
        if is_loopback(endpoint.host) or no_proxy_matches(
            proxies.get("no", ""), endpoint.host, endpoint.effective_port
        ):
            return None
    url = of_scheme(proxies, endpoint.scheme)
    if not url:
        return None
    if "://" not in url:  # as the environment often has it
        url = f"http://{url}"
    if not is_web_address(url):
        raise PermanentError(
            f"the proxy for {endpoint.scheme} is not a valid HTTP URL",
            kind=ErrorKind.BAD_REQUEST,
            hint="No request was sent. Write it as http://host:port, in proxies or in the environment",
        )
    return url


def of_scheme(proxies: Mapping[str, str], scheme: str) -> str | None:
    """Return the proxy for a scheme, ``None`` if there is none.

    :param proxies: URLs by scheme; ``all`` is for those that are not there.
    :param scheme: ``http`` or ``https``.
    """
    return proxies.get(scheme) or proxies.get("all")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: ``localhost``, a name below it, ``127.0.0.0/8`` or ``::1``.

    :param host: a DNS name or an IP address; IPv6 with or without brackets.
    """
    address = _ip(host)
    if address is not None:
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def no_proxy_matches(no_proxy: str, host: str, port: int) -> bool:
    """Whether a host is to be reached without a proxy.

    An entry is a host name, which also stands for the names below it (``example.com``, ``.example.com``,
    ``*.example.com``), an IP address, a range (``10.0.0.0/8``, ``fd00::/8``), a pattern (``192.168.*``), or ``*`` for
    every host. Each but a range may have a port.

    :param no_proxy: entries separated by commas or blanks.
    :param host: a DNS name or an IP address; IPv6 with or without brackets.
    """
    return any(_entry_matches(entry, host, port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _entry_matches(entry: str, host: str, port: int) -> bool:
    address = _ip(host)
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    bare = _ip(entry)
    if bare is not None:
        return bare == address
    parts = _HOST_AND_PORT.fullmatch(entry)
    if parts is None or (parts["port"] is not None and int(parts["port"]) != port):
        return False
    if address is not None and (listed := _ip(parts["host"])) is not None:
        return listed == address
    pattern, name = parts["host"].rstrip(".").lower(), host.rstrip(".").lower()
    suffix = pattern.removeprefix("*").removeprefix(".")
    if "*" in suffix or pattern == "*":
        return fnmatchcase(name, pattern)
    return bool(suffix) and (name == suffix or (address is None and name.endswith(f".{suffix}")))


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
