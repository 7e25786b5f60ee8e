"""TLS: which certificates are trusted, and a warning where a connection is not protected."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError
from airflow_provider_quickbi.api.proxies import is_loopback

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.settings import ClientSettings

log = logging.getLogger(__name__)

_warned: set[tuple[str, bool]] = set()


def ssl_context(settings: ClientSettings) -> ssl.SSLContext | None:
    """Return the context that verifies certificates, or ``None`` if they are not verified.

    :raises PermanentError: if the configured file or directory contains no CA certificates.
    """
    if (bundle := settings.ca_bundle()) is None:
        return None
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except (OSError, ValueError):
        raise PermanentError(
            f"no CA certificates in {bundle[:200]!r}",
            kind=ErrorKind.BAD_REQUEST,
            hint="No request was sent. Check verify, and REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE in the environment",
        ) from None


def warn_if_insecure(settings: ClientSettings) -> None:
    """Warn once per endpoint and process where traffic can be read or forged; loopback endpoints are exempt."""
    endpoint = settings.endpoint
    if is_loopback(endpoint.host) or (endpoint.scheme == "https" and settings.verify is not False):
        return
    key = (endpoint.url, settings.verify is False)
    if key in _warned:
        return
    _warned.add(key)
    if endpoint.scheme == "http":
        log.warning("Quick BI at %s: no TLS; requests and responses can be read in transit", endpoint.url)
    else:
        log.warning("Quick BI at %s: TLS certificates are not verified (verify=False)", endpoint.url)
