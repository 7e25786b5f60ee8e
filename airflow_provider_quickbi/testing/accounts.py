"""Who may call the simulator, and what each caller may see and do."""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict, Unpack

from airflow_provider_quickbi.testing.clock import to_timestamp
from airflow_provider_quickbi.testing.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class Denial:
    """An operation that is refused on purpose.

    :param code: the ``Code`` of the refusal, such as ``"Access.Forbidden"`` or ``"Forbidden.RAM"``.
    :param action: the operation; None for every one.
    :param mail_id: only for this mail; None for every one.
    :param access_key_id: only for this caller; None for every one.
    :param message: the ``Message``; None for the usual one.
    :param access_denied_detail: the ``AccessDeniedDetail`` that RAM adds; None for none.
    """

    code: str
    action: str | None = None
    mail_id: str | None = None
    access_key_id: str | None = None
    message: str | None = None
    access_denied_detail: Mapping[str, object] | None = None

    def concerns(self, action: str, access_key_id: str, mail_id: str | None) -> bool:
        """Tell whether a call is refused by this denial."""
        return (
            self.action in (None, action)
            and self.mail_id in (None, mail_id)
            and self.access_key_id in (None, access_key_id)
        )


@dataclass(slots=True)
class Account:
    """A caller.

    :param access_key_id: the AccessKey id.
    :param access_key_secret: the AccessKey secret.
    :param security_token: the STS token that has to come along; None for a permanent key.
    :param security_token_expires_at: when that token ends, in seconds since 1970 of the server's wall clock; None for
        never.
    :param active: whether the AccessKey is enabled.
    :param visible_mail_ids: the mails that this caller may see; None for all of them.
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    security_token_expires_at: float | None = None
    active: bool = True
    visible_mail_ids: frozenset[str] | None = None

    def sees(self, mail_id: str) -> bool:
        """Tell whether the account may see a mail."""
        return self.visible_mail_ids is None or mail_id in self.visible_mail_ids


class AccountSettings(TypedDict, total=False):
    """What can be set of a new account; the fields are those of :class:`Account`."""

    security_token: str | None
    security_token_expires_at: datetime | str | float | None
    active: bool
    visible_mail_ids: Collection[str] | None


class AccountChanges(AccountSettings, total=False):
    """What can be changed of an account; the fields are those of :class:`Account`."""

    access_key_secret: str


class AccountBook:
    """The accounts, bearer tokens and denials of a simulator. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._accounts: dict[str, Account] = {}
        self._bearer_tokens: dict[str, tuple[str, float | None]] = {}
        self._denials: list[Denial] = []

    def add(self, access_key_id: str, access_key_secret: str, **settings: Unpack[AccountSettings]) -> Account:
        """Add an account, or replace the one with the same id.

        :param access_key_id: the AccessKey id.
        :param access_key_secret: the AccessKey secret.
        :param settings: further fields of :class:`Account`.
        :raises ValueError: the id or the secret is empty.
        """
        if not access_key_id or not access_key_secret:
            raise ValueError("An account needs an access_key_id and an access_key_secret that are not empty.")
        account = Account(access_key_id, access_key_secret)
        with self._lock:
            self._accounts[access_key_id] = account
            return self.change(access_key_id, **settings)

    def change(self, access_key_id: str, **settings: Unpack[AccountChanges]) -> Account:
        """Change fields of an account.

        :param access_key_id: whose.
        :param settings: the fields of :class:`Account` to change.
        :raises KeyError: there is no such account.
        :raises TypeError: there is no such field.
        """
        unknown = set(settings) - AccountChanges.__optional_keys__
        if unknown:
            raise TypeError(f"An account has no field {', '.join(sorted(unknown))}.")
        changes: dict[str, object] = dict(settings)
        if settings.get("visible_mail_ids") is not None:
            changes["visible_mail_ids"] = frozenset(settings["visible_mail_ids"] or ())
        if settings.get("security_token_expires_at") is not None:
            changes["security_token_expires_at"] = to_timestamp(settings["security_token_expires_at"] or 0, UTC)
        with self._lock:
            account = self._accounts.get(access_key_id)
            if account is None:
                raise KeyError(f"There is no account {access_key_id}.")
            for name, value in changes.items():
                setattr(account, name, value)
            return account

    def find(self, access_key_id: str) -> Account | None:
        """Return the account of an AccessKey id, or None."""
        return self._accounts.get(access_key_id)

    def all(self) -> list[Account]:
        """Return every account."""
        with self._lock:
            return list(self._accounts.values())

    def add_bearer_token(
        self, token: str, access_key_id: str, expires_at: datetime | str | float | None = None
    ) -> None:
        """Accept a bearer token.

        :param token: the token.
        :param access_key_id: the account on whose behalf it calls.
        :param expires_at: when it ends by the server's wall clock: a datetime, an ISO 8601 string (UTC unless it has an
            offset) or seconds since 1970; None for never.
        """
        end = None if expires_at is None else to_timestamp(expires_at, UTC)
        with self._lock:
            self._bearer_tokens[token] = (access_key_id, end)

    def verify_bearer_token(self, token: str, now: float) -> str:
        """Return the AccessKey id on whose behalf a bearer token calls.

        :param token: the token that was sent.
        :param now: the server's wall time in seconds since 1970.
        :raises Refusal: ``InvalidSecurityToken.Malformed`` or ``.Expired``.
        """
        with self._lock:
            for known, (access_key_id, expires_at) in self._bearer_tokens.items():
                if hmac.compare_digest(known.encode(), token.encode()):
                    if expires_at is not None and now >= expires_at:
                        raise Refusal("InvalidSecurityToken.Expired", "Specified bearer token is expired.")
                    return access_key_id
        raise Refusal("InvalidSecurityToken.Malformed", "Specified bearer token is not valid.")

    def deny(self, denial: Denial) -> None:
        """Refuse calls from now on."""
        with self._lock:
            self._denials.append(denial)

    def allow(self, action: str | None = None, access_key_id: str | None = None) -> None:
        """Take denials back.

        :param action: those of this operation; default all.
        :param access_key_id: those of this caller; default all.
        """
        with self._lock:
            self._denials = [
                denial
                for denial in self._denials
                if (action is not None and denial.action != action)
                or (access_key_id is not None and denial.access_key_id != access_key_id)
            ]

    def check(self, action: str, access_key_id: str, mail_id: str | None) -> None:
        """Refuse a call that is denied.

        :raises Refusal: with the code of the first denial that concerns the call.
        """
        if not self._denials:
            return
        with self._lock:
            for denial in self._denials:
                if denial.concerns(action, access_key_id, mail_id):
                    raise Refusal(denial.code, denial.message, access_denied_detail=denial.access_denied_detail)

    def clear(self) -> None:
        """Forget every account, bearer token and denial."""
        with self._lock:
            self._accounts.clear()
            self._bearer_tokens.clear()
            self._denials.clear()
