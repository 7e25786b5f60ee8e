"""Every Alibaba Cloud credential type behind one method that returns the current credentials."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.clock import CLOCK, Clock
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError, TransientError, classify


@dataclass(frozen=True, slots=True)
class AuthType:
    """A credential type.

    :param name: as ``alibabacloud_credentials`` names it; ``default`` is its chain of providers.
    :param required: the fields that must be set.
    :param optional: further fields that it reads.
    :param renews: whether the credentials expire and are renewed, which may block; default ``True``.
    """

    name: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    renews: bool = True


_KEY = ("access_key_id", "access_key_secret")
#: Types that assume a role at STS also take ``proxy``, the URL of the proxy for that.
_ROLE = ("role_session_name", "role_session_expiration", "policy", "sts_endpoint")

#: Credential types by name, with the official field names (``alibabacloud_credentials.models.Config``).
AUTH_TYPES: dict[str, AuthType] = {
    auth.name: auth
    for auth in (
        AuthType("access_key", _KEY, renews=False),
        AuthType("sts", (*_KEY, "security_token"), renews=False),
        AuthType("ram_role_arn", (*_KEY, "role_arn"), ("security_token", "external_id", *_ROLE)),
        AuthType("ecs_ram_role", (), ("role_name", "disable_imds_v1")),
        AuthType("oidc_role_arn", ("role_arn", "oidc_provider_arn", "oidc_token_file_path"), _ROLE),
        AuthType("credentials_uri", ("credentials_uri",)),
        AuthType("bearer", ("bearer_token",), renews=False),
        AuthType("default"),
    )
}


def default_sts_endpoint(region: str, network: str) -> str | None:
    """Return the host of STS for a connection that assumes a role and sets no ``sts_endpoint``.

    Inside a VPC without a route to the internet only the region's VPC endpoint is reachable. Source: "Endpoints" of
    product Sts.

    :param region: one of :data:`airflow_provider_quickbi.api.settings.REGIONS`.
    :param network: ``public`` or ``vpc``.
    :returns: ``None`` for the public network, where the vendor's library chooses.
    """
    return f"sts-vpc.{region}.aliyuncs.com" if network == "vpc" else None


#: Seconds for which credentials are reused before the vendor's provider is called again. The provider renews them 15
#: minutes before they expire, so this only bounds how late a renewal is noticed.
_RECHECK_SECONDS = 10.0

_CODE_IN_RESPONSE = re.compile(r"""["']?Code["']?\s*[:=]\s*["']([A-Za-z][A-Za-z0-9.]{0,80})["']""")
_STATUS_IN_RESPONSE = re.compile(r"http_?code[=:]\s*(\d{3})", re.IGNORECASE)

#: Types whose credentials come from this machine or its host, over plain HTTP.
_LOCAL = ("credentials_uri", "ecs_ram_role", "default")
#: What the vendor's providers raise if there was no response, or none that is JSON.
_NO_RESPONSE = ("RetryError", "UnretryableException", "TeaException", "JSONDecodeError")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a request is signed with.

    :param access_key_id: empty with a bearer token.
    :param access_key_secret: empty with a bearer token.
    :param security_token: of temporary credentials, else empty.
    :param bearer_token: sent instead of a signature, else empty.
    """

    access_key_id: str = ""
    access_key_secret: str = ""
    security_token: str = ""
    bearer_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class CredentialSpec:
    """Which credentials to use: a type and its fields.

    :param auth_type: a key of :data:`AUTH_TYPES`.
    :param fields: pairs of official field name and value; not shown by ``repr``.
    """

    auth_type: str = "access_key"
    fields: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, auth_type: str, **fields: Any) -> CredentialSpec:
        """Return a spec of the fields that are set; ``None`` and empty text count as not set."""
        return cls(auth_type, tuple(sorted((name, value) for name, value in fields.items() if value not in (None, ""))))

    @property
    def identity(self) -> str:
        """The caller's identity without secrets: equal for two specs that the service takes for the same caller."""
        known = dict(self.fields)
        public = ("role_arn", "access_key_id", "role_name")
        named = next((f"{name}={known[name]}" for name in public if known.get(name)), "")
        secret = known.get("bearer_token") or known.get("credentials_uri")  # a URL may contain a password
        if not named and secret is not None:
            named = hashlib.sha256(str(secret).encode(errors="replace")).hexdigest()
        return f"{self.auth_type}:{named}"

    @property
    def shown(self) -> str:
        """The caller's identity for people: the role, or the ends of the AccessKey ID."""
        name, _, who = self.identity.removeprefix(f"{self.auth_type}:").partition("=")
        if name == "access_key_id":
            who = f"{who[:4]}***{who[-4:]}" if len(who) > 12 else "***"
        return f"{self.auth_type} {who}".rstrip()


@dataclass(slots=True)
class _Provider:
    """One of the vendor's credential clients, which renews credentials before they expire."""

    client: Any
    returned: Credentials | None = None


#: The providers of this process by spec. They are shared because some start a thread that never ends, and every client
#: with the same spec can use the credentials they fetch.
_providers: dict[CredentialSpec, _Provider] = {}
_providers_guard = threading.Lock()
_MAX_PROVIDERS = 64


def _provider_of(spec: CredentialSpec) -> _Provider:
    with _providers_guard:
        if (provider := _providers.get(spec)) is None:
            module = vendor.credentials()
            if spec.auth_type == "default":
                client = module.Client()
            else:
                client = module.Client(module.Config(type=spec.auth_type, **dict(spec.fields)))
            if len(_providers) >= _MAX_PROVIDERS:
                del _providers[next(iter(_providers))]
            provider = _providers[spec] = _Provider(client)
        return provider


class CredentialSource:
    """Returns the current credentials and renews them where needed.

    Safe to share between threads and event loops.

    :param spec: which credentials to use.
    :param clock: how long credentials are reused; default the machine's.
    """

    def __init__(self, spec: CredentialSpec, clock: Clock = CLOCK) -> None:
        self._spec = spec
        self._clock = clock
        self._fixed = None if AUTH_TYPES[spec.auth_type].renews else Credentials(**dict(spec.fields))
        self._current: Credentials | None = None
        self._checked_at = 0.0
        self._renewal: asyncio.Task[Credentials] | None = None

    def get(self) -> Credentials:
        """Return the current credentials; may block while they are renewed.

        :raises TransientError: if they could not be fetched for now.
        :raises PermanentError: if they were refused or are misconfigured.
        """
        if self._fixed is not None:
            return self._fixed
        try:
            provider = _provider_of(self._spec)
            model = provider.client.get_credential()
        except QuickBIError:
            raise
        except Exception as error:  # noqa: BLE001 - the vendor raises what its HTTP library raises
            raise self._refusal(error) from None
        provider.returned = Credentials(
            access_key_id=model.access_key_id or "",
            access_key_secret=model.access_key_secret or "",
            security_token=model.security_token or "",
            bearer_token=getattr(model, "bearer_token", None) or "",
        )
        return provider.returned

    async def get_async(self) -> Credentials:
        """Return the current credentials without blocking the event loop: they are renewed in a thread, by one caller.

        :raises TransientError: if they could not be fetched for now.
        :raises PermanentError: if they were refused or are misconfigured.
        """
        if self._fixed is not None:
            return self._fixed
        if self._current is not None and self._clock.monotonic() - self._checked_at < _RECHECK_SECONDS:
            return self._current
        if self._renewal is None or self._renewal.get_loop() is not asyncio.get_running_loop():
            self._renewal = asyncio.create_task(asyncio.to_thread(self.get))
            self._renewal.add_done_callback(self._renewed)
        return await asyncio.shield(self._renewal)

    def forget(self, refused: Credentials) -> None:
        """Drop credentials so that the next call fetches new ones, unless that has already happened.

        :param refused: credentials that the service refused as expired although the provider considered them valid.
        """
        with _providers_guard:
            if (provider := _providers.get(self._spec)) is not None and provider.returned == refused:
                del _providers[self._spec]
        if self._current == refused:
            self._current = None

    def _renewed(self, renewal: asyncio.Task[Credentials]) -> None:
        self._renewal = None
        if not renewal.cancelled() and renewal.exception() is None:
            self._current, self._checked_at = renewal.result(), self._clock.monotonic()

    def _proxy_hint(self) -> str:
        """Return what to do about a proxy of the environment that the vendor's SDK uses for every host."""
        uses = ". Alibaba Cloud's SDK ignores NO_PROXY: unset {0}"
        if self._spec.auth_type in _LOCAL and any(map(os.environ.get, ("HTTP_PROXY", "http_proxy"))):
            return f"{uses.format('HTTP_PROXY')} (Quick BI itself is reached through HTTPS_PROXY)"
        of_sts = "sts_endpoint" in AUTH_TYPES[self._spec.auth_type].optional and "proxy" not in dict(self._spec.fields)
        if of_sts and any(map(os.environ.get, ("HTTPS_PROXY", "https_proxy"))):
            return f"{uses.format('HTTPS_PROXY')}, or set proxies in the connection to a proxy that reaches STS"
        return ""

    def _refusal(self, error: Exception) -> QuickBIError:
        """Return the error without the provider's own message, which quotes whole responses, secrets included."""
        text = str(error)
        code = found.group(1) if (found := _CODE_IN_RESPONSE.search(text)) else ""
        status = int(found.group(1)) if (found := _STATUS_IN_RESPONSE.search(text)) else None
        name = type(error).__name__
        message = f"cannot fetch credentials of type {self._spec.auth_type}: {name}"
        details: dict[str, Any] = {"action": "credentials", "code": code, "http_status": status}
        offline = isinstance(error, OSError) or name in _NO_RESPONSE
        in_trouble = status is not None and (status >= 500 or status == 429)
        busy = classify(code)[0] in (ErrorKind.THROTTLED, ErrorKind.TRANSIENT)
        if offline:
            message += self._proxy_hint()
        if (offline and not isinstance(error, FileNotFoundError)) or in_trouble or busy:
            return TransientError(message, may_have_arrived=False, **details)
        return PermanentError(
            message,
            kind=ErrorKind.CREDENTIALS,
            hint=f"Check {', '.join(AUTH_TYPES[self._spec.auth_type].required) or 'the environment'} of the connection",
            **details,
        )
