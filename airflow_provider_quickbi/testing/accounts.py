"""Who may call the simulator, and what each caller may do."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_quickbi.testing.clock import When, to_timestamp
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.signature import SignedRequest, check_signature, read_authorization

DATE_TOLERANCE: Final = 15 * 60.0
"""How many seconds the date of a signature may be off; the gateway documents 15 minutes."""

_NONCES_KEPT: Final = 100_000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


@dataclass(frozen=True, slots=True)
class _Account:
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    security_token_expires_at: When | None = None
    active: bool = True


class Accounts:
    """The accounts, bearer tokens and denials of an organisation."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._bearer_tokens: dict[str, str] = {}
        self._denials: list[tuple[str | None, str | None, str, str | None]] = []
        self._nonces: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add_account(
        self,
        access_key_id: str,
        access_key_secret: str,
        *,
        security_token: str | None = None,
        security_token_expires_at: When | None = None,
        active: bool = True,
    ) -> None:
        """Add an account, or replace the one with the same id.

        :param access_key_id: the AccessKey id.
        :param access_key_secret: its secret.
        :param security_token: the STS token that requests must carry; default none, for a permanent key.
        :param security_token_expires_at: when that token expires, in real time; default never.
        :param active: whether the AccessKey is enabled.
        :raises ValueError: the id or the secret is empty.
        """
        if not access_key_id or not access_key_secret:
            raise ValueError("An account needs an access_key_id and an access_key_secret that are not empty.")
        self._accounts[access_key_id] = _Account(access_key_secret, security_token, security_token_expires_at, active)

    def change_account(self, access_key_id: str, **changes: Any) -> None:
        """Change what :meth:`add_account` set.

        :raises KeyError: there is no such account.
        :raises TypeError: there is no such field.
        """
        self._accounts[access_key_id] = replace(self._accounts[access_key_id], **changes)

    def add_bearer_token(self, token: str) -> None:
        """Accept a bearer token, on behalf of the first account."""
        self._bearer_tokens[token] = next(iter(self._accounts))

    def deny(
        self, code: str, *, action: str | None = None, mail_id: str | None = None, message: str | None = None
    ) -> None:
        """Refuse calls from now on.

        :param code: the ``Code``, such as ``"Access.Forbidden"`` or ``"Forbidden.RAM"``.
        :param action: the operation; default every one.
        :param mail_id: only for this mail task; default every one.
        :param message: the ``Message``; default the usual one.
        """
        self._denials.append((action, mail_id, code, message))

    def allow(self, action: str | None = None) -> None:
        """Remove denials: those of an operation, or all."""
        self._denials = [denial for denial in self._denials if action not in (None, denial[0])]

    def check_denials(self, action: str, mail_id: str | None) -> None:
        """Refuse a call with the code of the first denial that concerns it."""
        for denied_action, denied_mail_id, code, message in self._denials:
            if denied_action in (None, action) and denied_mail_id in (None, mail_id):
                raise Refusal(code, message)

    def authenticate(self, request: SignedRequest, now: float) -> str:
        """Return the AccessKey id of the caller; ``now`` is the server's time in seconds since 1970.

        :raises Refusal: in the order in which the gateway checks: ``IncompleteSignature``, ``InvalidAccessKeyId.*``,
            ``InvalidTimeStamp.*``, ``SignatureDoesNotMatch``, ``InvalidSecurityToken.*``, ``SignatureNonceUsed``.
        """
        bearer_token = request.headers.get("x-acs-bearer-token")
        if bearer_token is not None and request.named("x-acs-signature-type", "SignatureType") == "BEARERTOKEN":
            if bearer_token not in self._bearer_tokens:
                raise Refusal("InvalidSecurityToken.Malformed", "Specified bearer token is not valid.")
            return self._bearer_tokens[bearer_token]
        caller, signed_headers, signature = read_authorization(request)
        account = self._accounts.get(caller)
        if account is None:
            raise Refusal("InvalidAccessKeyId.NotFound")
        if not account.active:
            raise Refusal("InvalidAccessKeyId.Inactive")
        _check_date(request.headers["x-acs-date"], now)
        check_signature(request, signed_headers, signature, account.access_key_secret)
        _check_security_token(request, caller, account, now)
        self._use_nonce(caller, request.headers["x-acs-signature-nonce"], now)
        return caller

    def _use_nonce(self, caller: str, nonce: str, now: float) -> None:
        while self._nonces and (len(self._nonces) > _NONCES_KEPT or next(iter(self._nonces.values())) <= now):
            self._nonces.popitem(last=False)
        if (caller, nonce) in self._nonces:
            raise Refusal("SignatureNonceUsed")
        self._nonces[caller, nonce] = now + DATE_TOLERANCE


def _check_date(value: str, now: float) -> None:
    try:
        signed_at = datetime.fromisoformat(value).timestamp() if _DATE.fullmatch(value) else None
    except ValueError:
        signed_at = None
    if signed_at is None:
        raise Refusal("InvalidTimeStamp.Format")
    if abs(now - signed_at) > DATE_TOLERANCE:
        raise Refusal("InvalidTimeStamp.Expired")


def _check_security_token(request: SignedRequest, caller: str, account: _Account, now: float) -> None:
    token = request.headers.get("x-acs-security-token")
    if account.security_token is not None and not token:
        raise Refusal("InvalidSecurityToken.Malformed", "The x-acs-security-token of a temporary AccessKey is missing.")
    if token != account.security_token or request.headers.get("x-acs-accesskey-id", caller) != caller:
        raise Refusal("InvalidSecurityToken.MismatchWithAccessKey")
    expires_at = account.security_token_expires_at
    if expires_at is not None and now >= to_timestamp(expires_at, UTC):
        raise Refusal("InvalidSecurityToken.Expired")
