"""The responses of an account without its ids, names, times and secrets: what ``--record`` writes.

Everything is replaced unless it is known to be harmless; equal values become equal values, and the distance between two
times stays. The format is documented in ``docs/command-line.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi import __version__
from airflow_provider_quickbi._check.behaviour import Behaviour
from airflow_provider_quickbi._check.refreshes import ACTIONS
from airflow_provider_quickbi._check.unknowns import data_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_quickbi._check.exchange import Exchange
    from airflow_provider_quickbi._check.report import Report

FORMAT = "airflow-provider-quickbi recording"
VERSION = 1

#: When a recording pretends that its first request was sent.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
#: Keys whose whole numbers only say how a list is paged.
_COUNTS = frozenset({"pagenum", "pagesize", "totalnum", "totalpages", "pre", "next"})
_KEY = re.compile(r"[A-Za-z_]{1,40}")
_STATUS = re.compile(r"\s*[A-Za-z][A-Za-z_]{0,30}\s*")
_CODE = re.compile(r"[A-Za-z][A-Za-z.]{0,100}")
_MINUTES = re.compile(r"(\d{1,6})\s*(?:minute|分钟)", re.IGNORECASE)
_TIME = re.compile(r"(\d{4})([-/])(\d{2})\2(\d{2})([ T])(\d{2}:\d{2}:\d{2})(.*)", re.DOTALL)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"(?=.*[0-9])[0-9a-f]{12,64}", re.IGNORECASE)


class RecordingError(ValueError):
    """A file is not a recording; the message says why."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as it is read.

    :param behaviour: what is known of the account.
    :param mail_tasks: for each visible mail task whether it is ``paused`` and whether it ``ran``.
    :param exchanges: the requests and responses, as they were written.
    """

    behaviour: Behaviour
    mail_tasks: tuple[dict[str, Any], ...] = ()
    exchanges: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Anonymiser:
    """Replaces what could identify the account, equal values by equal values.

    :param first: the time of the first request, seconds since the epoch.
    """

    first: float
    _known: dict[str, str] = field(default_factory=dict)

    @property
    def _shift(self) -> timedelta:
        return _EPOCH - datetime.fromtimestamp(int(self.first), UTC)

    def value(self, value: Any, key: str = "") -> Any:
        """Return the same JSON without what could identify the account.

        :param key: under which it stands.
        """
        folded = key.lower()
        match value:
            case None | bool():
                return value
            case Mapping():
                return {self.key(str(name)): self.value(item, str(name)) for name, item in value.items()}
            case list():
                return [self.value(item, key) for item in value]
            case int() if folded in _COUNTS:
                return value
            case int():
                return int(self.text(str(abs(value)))) * (-1 if value < 0 else 1)
            case float():
                return float(self.text(str(int(abs(value)))))
            case str() if folded.endswith("status") and _STATUS.fullmatch(value):
                return value
            case str() if folded == "code" and _CODE.fullmatch(value):
                return value
            case str() if folded == "message":
                return self.message(value)
        return self.text(str(value))

    def key(self, key: str) -> str:
        """Return a key; one that is no field name may be an id."""
        return key if _KEY.fullmatch(key) and key.casefold() not in self._known else self.text(key)

    def message(self, text: str) -> str:
        """Return what the provider reads of a message: the minutes, if it names some."""
        found = _MINUTES.search(text)
        return f"Please Try Again In {found.group(1)} Minutes." if found else f"A message of {len(text)} characters."

    def text(self, text: str) -> str:
        """Return a stand-in of the same form; blanks around it stay."""
        core = text.strip()
        if not core:
            return text
        if (moment := _TIME.fullmatch(core)) is not None and (moved := self._moved(moment)) is not None:
            return text.replace(core, moved)
        known = core.casefold()
        if known not in self._known:
            self._known[known] = _stand_in(core, len(self._known) + 1)
        return text.replace(core, self._known[known])

    def date(self, moment: datetime) -> str:
        """Return a header ``Date``, moved like all times."""
        return format_datetime((moment + self._shift).astimezone(UTC), usegmt=True)

    def _moved(self, moment: re.Match[str]) -> str | None:
        year, slash, month, day, between, time, rest = moment.groups()
        try:
            written = datetime.fromisoformat(f"{year}-{month}-{day} {time}") + self._shift
        except (ValueError, OverflowError):
            return None
        kept = rest if re.fullmatch(r"Z?|[+-]\d{2}:?\d{2}", rest) else ""
        return written.strftime(f"%Y{slash}%m{slash}%d{between}%H:%M:%S") + kept


def record(report: Report) -> dict[str, Any]:
    """Return a recording of a check as plain JSON."""
    exchanges = [exchange for exchange in report.exchanges if exchange.action not in ACTIONS]
    anonymiser = Anonymiser(exchanges[0].sent_at if exchanges else 0.0)
    return {
        "format": FORMAT,
        "version": VERSION,
        "provider": __version__,
        "behaviour": report.behaviour.as_dict(),
        "mail_tasks": _mail_tasks(exchanges),
        "exchanges": [_written(exchange, exchanges[0], anonymiser) for exchange in exchanges],
    }


def write(path: Path, report: Report) -> None:
    """Write a recording.

    :raises OSError: if it cannot be written.
    """
    path.write_text(json.dumps(record(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Recording:
    """Read what :func:`write` wrote, or a reading with a ``behaviour`` only.

    :raises RecordingError: if it is something else.
    :raises OSError: if it cannot be read.
    """
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RecordingError(f"{path} is not JSON") from None
    if not isinstance(item, Mapping) or item.get("format") != FORMAT:
        raise RecordingError(f'{path} is not a recording: "format" must be {FORMAT!r}')
    if item.get("version") != VERSION:
        raise RecordingError(f"{path} has version {item.get('version')!r}; this release reads version {VERSION}")
    try:
        behaviour = Behaviour.from_dict(item.get("behaviour", {}))
    except (ValueError, AttributeError) as error:
        raise RecordingError(f"{path}: {error}") from None
    return Recording(behaviour, tuple(item.get("mail_tasks", ())), tuple(item.get("exchanges", ())))


def _written(exchange: Exchange, first: Exchange, anonymiser: Anonymiser) -> dict[str, Any]:
    headers = {}
    if exchange.date is not None:
        headers["date"] = anonymiser.date(exchange.date)
    for name, value in exchange.headers.items():
        if name.lower() == "x-acs-retry-after" and value.strip().isdigit():
            headers["x-acs-retry-after"] = value.strip()
    body = exchange.json()
    return {
        "action": exchange.action,
        "parameters": {name: anonymiser.value(value, name) for name, value in exchange.parameters.items()},
        "at": round(exchange.sent_at - first.sent_at, 3),
        "elapsed": round(exchange.elapsed, 3),
        "status": exchange.status,
        "headers": headers,
        **(
            {"body": anonymiser.value(body)}
            if body is not None
            else {"no_json": {"bytes": len(exchange.body), "html": b"<html" in exchange.body[:1000].lower()}}
        ),
    }


def _mail_tasks(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """Return how many mail tasks there were, which of them paused, and which are known to have run."""
    ran = {
        exchange.parameters.get("MailId")
        for exchange in exchanges
        if exchange.action == "GetMailTaskStatus" and isinstance(exchange.result, list) and exchange.result
    }
    tasks: list[dict[str, Any]] = []
    for exchange in exchanges:
        for item in data_of(exchange) if exchange.action == "GetMailTaskList" else ():
            folded = {str(key).lower(): value for key, value in item.items()}
            paused = folded.get("paused") in (True, "true")
            tasks.append({"paused": paused, "ran": str(folded.get("mailid")) in ran})
    return tasks


def _stand_in(text: str, number: int) -> str:
    """Return a value of the same form as another, a different one for each number."""
    if text.isascii() and text.isdigit():
        return _digits(len(text), number)
    if _UUID.fullmatch(text):
        return f"00000000-0000-4000-8000-{number:012x}"
    if _HEX.fullmatch(text):
        return f"{number:x}".rjust(len(text), "0")
    return f"text-{number}"


def _digits(length: int, number: int) -> str:
    """Return a whole number with the given count of digits; the first is never 0, as JSON requires."""
    return str(9 * 10 ** (length - 1) + number % 10 ** (length - 1)) if length > 1 else str(number % 10)
