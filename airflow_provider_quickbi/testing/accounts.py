"""Who may call the simulator, and what each caller may do."""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_provider_quickbi.testing.clock import When, to_timestamp
from airflow_provider_quickbi.testing.errors import Refusal


class Denial(NamedTuple):
    """A refusal on purpose; ``None`` stands for every operation, mail task or caller."""

    code: str
    action: str | None
    mail_id: str | None
    access_key_id: str | None
    message: str | None


@dataclass(slots=True)
class Account:
    """A caller.

    :param access_key_id: the AccessKey id.
    :param access_key_secret: the AccessKey secret.
    :param security_token: the STS token that has to come along; ``None`` for a permanent key.
    :param security_token_expires_at: when that token ends, by the server's wall clock; ``None`` for never.
    :param active: whether the AccessKey is enabled.
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    security_token_expires_at: float | None = None
    active: bool = True


class AccountBook:
    """The accounts, bearer tokens and denials of a simulator. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._accounts: dict[str, Account] = {}
        self._bearer_tokens: dict[str, tuple[str, float | None]] = {}
        self._denials: list[Denial] = []

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
        :param security_token: the STS token that has to come along; default none: a permanent key.
        :param security_token_expires_at: when that token ends; default never.
        :param active: whether the AccessKey is enabled.
        :raises ValueError: the id or the secret is empty.
        """
        if not access_key_id or not access_key_secret:
            raise ValueError("An account needs an access_key_id and an access_key_secret that are not empty.")
        expires_at = None if security_token_expires_at is None else to_timestamp(security_token_expires_at, UTC)
        with self._lock:
            self._accounts[access_key_id] = Account(
                access_key_id, access_key_secret, security_token, expires_at, active
            )

    def change_account(self, access_key_id: str, **changes: Any) -> None:
        """Change fields of an account, as :meth:`add_account` names them.

        :raises KeyError: there is no such account.
        :raises TypeError: there is no such field.
        """
        unknown = set(changes) - {known.name for known in fields(Account)}
        if unknown:
            raise TypeError(f"An account has no field {', '.join(sorted(unknown))}.")
        with self._lock:
            account = self._accounts.get(access_key_id)
            if account is None:
                raise KeyError(f"There is no account {access_key_id}.")
            for name, value in changes.items():
                ends = name == "security_token_expires_at" and isinstance(value, (str, datetime))
                setattr(account, name, to_timestamp(value, UTC) if ends else value)

    def add_bearer_token(self, token: str, *, access_key_id: str | None = None, expires_at: When | None = None) -> None:
        """Accept a bearer token.

        :param token: the token.
        :param access_key_id: on whose behalf it calls; default the first account.
        :param expires_at: when it ends; default never.
        :raises KeyError: there is no such account.
        """
        with self._lock:
            chosen = next(iter(self._accounts)) if access_key_id is None else access_key_id
            if chosen not in self._accounts:
                raise KeyError(f"There is no account {chosen}.")
            self._bearer_tokens[token] = (chosen, None if expires_at is None else to_timestamp(expires_at, UTC))

    def find_account(self, access_key_id: str) -> Account | None:
        """Return an account, or ``None`` if there is none."""
        with self._lock:
            return self._accounts.get(access_key_id)

    def verify_bearer_token(self, token: str, now: float) -> str:
        """Return the AccessKey id on whose behalf a bearer token calls.

        :raises Refusal: ``InvalidSecurityToken.Malformed`` or ``.Expired``.
        """
        with self._lock:
            for known, (access_key_id, expires_at) in self._bearer_tokens.items():
                if hmac.compare_digest(known.encode(), token.encode()):
                    if expires_at is not None and now >= expires_at:
                        raise Refusal("InvalidSecurityToken.Expired", "Specified bearer token is expired.")
                    return access_key_id
        raise Refusal("InvalidSecurityToken.Malformed", "Specified bearer token is not valid.")

    def deny(
        self,
        code: str,
        *,
        action: str | None = None,
        mail_id: str | None = None,
        access_key_id: str | None = None,
        message: str | None = None,
    ) -> None:
        """Refuse calls from now on.

        :param code: the ``Code``, such as ``"Access.Forbidden"`` or ``"Forbidden.RAM"``.
        :param action: the operation; default every one.
        :param mail_id: only for this mail task; default every one.
        :param access_key_id: only for this caller; default every one.
        :param message: the ``Message``; default the usual one.
        """
        with self._lock:
            self._denials.append(Denial(code, action, mail_id, access_key_id, message))

    def allow(self, action: str | None = None, *, access_key_id: str | None = None) -> None:
        """Take denials back: those of an operation, of a caller, or all."""
        with self._lock:
            self._denials = [
                denial
                for denial in self._denials
                if action not in (None, denial.action) or access_key_id not in (None, denial.access_key_id)
            ]

    def check(self, action: str, access_key_id: str, mail_id: str | None) -> None:
        """Refuse a call that is denied.

        :raises Refusal: with the code of the first denial that concerns the call.
        """
        for denial in self._denials:
            concerned = ((denial.action, action), (denial.mail_id, mail_id), (denial.access_key_id, access_key_id))
            if all(wanted in (None, actual) for wanted, actual in concerned):
                raise Refusal(denial.code, denial.message)

    def clear(self) -> None:
        """Forget every account, bearer token and denial."""
        with self._lock:
            self._accounts.clear()
            self._bearer_tokens.clear()
            self._denials.clear()
