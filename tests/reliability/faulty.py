"""A local Quick BI that goes wrong at random, the same way for the same seed, and remembers what it truly knew."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_quickbi.testing import Call, Fault, LocalQuickBI
from tests.datasets import ACTIONS, Datasets

STATUS, START = "GetMailTaskStatus", "ManualRunMailTask"
#: What stands for them with a dataset.
LIKE = {action: mails for mails, action in ACTIONS.items()}

#: A little more than a client reads of a response.
TOO_LARGE = 9 * 1024 * 1024
_DEEP = b'{"Success":true,"Result":' + b"[" * 20_000 + b"]" * 20_000 + b"}"

#: How a query can go wrong for a while: weight, name, and the fault for a random number generator.
TROUBLES: tuple[tuple[int, str, Callable[[random.Random], Fault]], ...] = (
    (6, "throttled", lambda _: Fault.throttled()),
    (3, "throttled with a time", lambda rng: Fault.throttled("Throttling.Api", rng.choice((1, 50, 150)))),
    (4, "internal error", lambda _: Fault.error("Internal.System.Error")),
    (2, "unavailable", lambda _: Fault.error("ServiceUnavailable")),
    (1, "nonce used", lambda _: Fault.error("SignatureNonceUsed")),
    (4, "HTML 503", lambda _: Fault.html_503()),
    (2, "empty 502", lambda _: Fault.empty_502()),
    (1, "429 without JSON", lambda _: Fault.custom(429, b"slow down", {"Content-Type": "text/plain"})),
    (5, "reset", lambda _: Fault.reset()),
    (3, "hang", lambda _: Fault.hang()),
    (4, "half of the body", lambda _: Fault.half_body()),
    (4, "half of the JSON", lambda _: Fault.half_json()),
    (4, "wrong types", lambda _: Fault.wrong_types()),
    (3, "Success: false", lambda _: Fault.unsuccessful()),
    (1, "Success: false, throttled", lambda _: Fault.unsuccessful("Throttling.User", "slower")),
    (1, "empty 200", lambda _: Fault.custom(200, b"")),
    (1, "a list", lambda _: Fault.custom(200, b"[]")),
    (1, "NaN and Infinity", lambda _: Fault.custom(200, b'{"Success":true,"Result":[NaN,-Infinity]}')),
    (1, "nested 20,000 deep", lambda _: Fault.custom(200, _DEEP)),
    (1, "9 MiB", lambda _: Fault.oversized(TOO_LARGE)),
    (3, "late response", lambda rng: Fault.delay(rng.choice((0.02, 0.1)))),
)

#: Those that end without a response that can be read.
WITHOUT_RESPONSE = tuple(trouble for trouble in TROUBLES if trouble[1] != "late response")
#: Those among them that count as an outage.
SILENCES = tuple(trouble for trouble in WITHOUT_RESPONSE if "throttled" not in trouble[1])

#: How a start can go wrong; some of them send the mail, some do not, and the client cannot know.
START_TROUBLES: tuple[tuple[int, str, Callable[[random.Random], Fault]], ...] = (
    (4, "throttled start", lambda _: Fault.throttled()),
    (3, "start sent, response reset", lambda _: Fault.answer_lost("reset")),
    (3, "start sent, response never comes", lambda _: Fault.answer_lost("hang")),
    (3, "start sent, HTML 503", lambda _: Fault.answer_lost("unavailable")),
    (2, "start sent, half of the body", lambda _: Fault.half_body()),
    (2, "start sent, half of the JSON", lambda _: Fault.half_json()),
    (2, "start sent, wrong types", lambda _: Fault.wrong_types()),
    (1, "start not sent, reset", lambda _: Fault.reset()),
    (1, "start not sent, hang", lambda _: Fault.hang()),
    (1, "start not sent, HTML 503", lambda _: Fault.html_503()),
    (1, "start not sent, Success: false", lambda _: Fault.unsuccessful()),
    (2, "schedule limit", lambda _: Fault.error("MailApi.Beyond.ScheduleLimit", "Please Try Again In 0 Minutes.")),
    (1, "late start", lambda _: Fault.delay(0.1, processed=True)),
)


#: How the start of a refresh can: it knows no limit of its own.
REFRESH_TROUBLES = tuple(trouble for trouble in START_TROUBLES if trouble[1] != "schedule limit")


class Seen(NamedTuple):
    """A run as the service truly responded, before anything went wrong with the response."""

    task_id: str
    exec_time: datetime
    status: str


@dataclass(slots=True)
class Profile:
    """How calls for one mail task or dataset go.

    :param trouble: the share of status calls that go wrong.
    :param silent: whether no status call ever gets a response.
    :param refusal: the response to every status call that does not go wrong otherwise.
    :param start_trouble: the share of starts that go wrong.
    :param odd: the share of status responses that are true, but of an odd shape.
    :param listed: how many of the latest runs a status response holds.
    :param notified: every true response to the query for the latest runs.
    """

    trouble: float = 0.35
    silent: bool = False
    refusal: Fault | None = None
    start_trouble: float = 0.0
    odd: float = 0.4
    listed: int = 6
    notified: set[tuple[Seen, ...]] = field(default_factory=set)


class FaultyQuickBI(LocalQuickBI):
    """Goes wrong as the seed says: the n-th call of an operation for a mail task always meets the same fate.

    :param seed: of every decision.
    :param settings: of :class:`LocalQuickBI`.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(calls_kept=200, **settings)
        self.seed = seed
        self.injected: Counter[str] = Counter()
        self.oddities: Counter[str] = Counter()
        self.calm = False
        self._profiles: dict[str, Profile] = defaultdict(Profile)
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._profiles_guard = threading.Lock()
        self.fail(None, self._choose, times=None)
        self.register(STATUS, self._status)
        self.as_mail_tasks = Datasets(self)

    def profile(self, mail_id: str) -> Profile:
        """Return how calls for a mail task go, to be changed before it is polled."""
        with self._profiles_guard:
            return self._profiles[mail_id]

    def forget(self, mail_id: str) -> None:
        """Drop all that is known of a mail task whose story has ended."""
        with self._profiles_guard:
            self._profiles.pop(mail_id, None)
        for action in (STATUS, START, *LIKE, "shape"):
            self._numbers.pop((action, mail_id), None)

    def forget_everything(self) -> None:
        """Drop all that a run has left in the server, so that it is not taken for growth of the client."""
        self.reset()
        self.injected.clear()
        self.oddities.clear()
        self._profiles.clear()
        self._numbers.clear()
        self.calm = False
        self.fail(None, self._choose, times=None)
        self.register(STATUS, self._status)
        self.as_mail_tasks = Datasets(self)

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open."""
        return 0 if self._server is None else len(self._server.connections)

    def _dice(self, action: str, mail_id: str) -> random.Random:
        self._numbers[action, mail_id] += 1
        return random.Random(f"{self.seed}/{action}/{mail_id}/{self._numbers[action, mail_id]}")

    def _choose(self, call: Call) -> Fault | None:
        mail_id = call.mail_id or call.params.get("CubeId", "")
        action = LIKE.get(call.action, call.action)
        profile = self.profile(mail_id)
        dice = self._dice(call.action, mail_id)
        if action == START:
            troubles = START_TROUBLES if call.action == START else REFRESH_TROUBLES
            chosen = None if self.calm or dice.random() >= profile.start_trouble else _draw(dice, troubles)
        elif action == STATUS and profile.silent:
            chosen = _draw(dice, SILENCES)
        elif action == STATUS and not self.calm and dice.random() < profile.trouble:
            chosen = _draw(dice, TROUBLES if profile.refusal is None else WITHOUT_RESPONSE)
        else:
            chosen = None
        if chosen is None:
            return profile.refusal if action == STATUS else None
        name, fault = chosen
        self.injected[name] += 1
        return fault

    def _status(self, params: Mapping[str, str]) -> object:
        mail_id = params.get("MailId", "")
        profile = self.profile(mail_id)
        self.status_list = profile.listed
        runs = self.get_mail_task_status(params)
        if not params.get("TaskId"):
            seen = tuple(
                Seen(
                    str(run["taskId"]),
                    datetime.fromisoformat(str(run["execTime"])).replace(tzinfo=self.clock.zone),
                    str(run["status"]),
                )
                for run in runs
            )
            profile.notified.add(seen)
        dice = self._dice("shape", mail_id)
        if dice.random() >= profile.odd:
            return runs
        if params.get("TaskId") and dice.random() < 0.3:
            self.oddities["other runs than the requested one"] += 1
            runs = runs + self.get_mail_task_status({"MailId": mail_id})
        return self._make_odd(runs, dice)

    def _make_odd(self, runs: list[dict[str, object]], dice: random.Random) -> list[dict[str, object]]:
        """Return the same truth in a shape that the documentation does not rule out."""
        runs = [dict(run) for run in runs]
        for name, change in _ODDITIES:
            if dice.random() < 0.3:
                self.oddities[name] += 1
                runs = change(runs, dice)
        return runs


def _draw(
    dice: random.Random, troubles: tuple[tuple[int, str, Callable[[random.Random], Fault]], ...]
) -> tuple[str, Fault]:
    _, name, make = dice.choices(troubles, [weight for weight, _, _ in troubles])[0]
    return name, make(dice)


def _reordered(runs: list[dict[str, object]], dice: random.Random) -> list[dict[str, object]]:
    return dice.sample(runs, len(runs))


def _duplicated(runs: list[dict[str, object]], _dice: random.Random) -> list[dict[str, object]]:
    return [*runs, *runs]


def _with_a_stranger(runs: list[dict[str, object]], _dice: random.Random) -> list[dict[str, object]]:
    stranger = {"execTime": "2099-01-01 00:00:00", "mailId": "somebody-else", "status": "SENT", "taskId": 9}
    return [stranger, *runs]


def _spelt_differently(runs: list[dict[str, object]], dice: random.Random) -> list[dict[str, object]]:
    spell = dice.choice((str.lower, "{} ".format, " {}".format))
    return [{**run, "status": spell(str(run["status"])), "taskId": str(run["taskId"])} for run in runs]


def _other_keys(runs: list[dict[str, object]], _dice: random.Random) -> list[dict[str, object]]:
    return [
        {**{name[0].upper() + name[1:]: value for name, value in run.items()}, "New": json.loads("1e3")} for run in runs
    ]


def _unknown_status(runs: list[dict[str, object]], _dice: random.Random) -> list[dict[str, object]]:
    return [{**run, "status": "QUEUED" if run["status"] == "PROCESSING" else run["status"]} for run in runs]


def _without_mail_id(runs: list[dict[str, object]], _dice: random.Random) -> list[dict[str, object]]:
    return [{name: value for name, value in run.items() if name != "mailId"} for run in runs]


_ODDITIES: tuple[tuple[str, Callable[[list[dict[str, object]], random.Random], list[dict[str, object]]]], ...] = (
    ("a status nobody knows", _unknown_status),
    ("no mailId in the response", _without_mail_id),
    ("a run of another mail task", _with_a_stranger),
    ("runs given twice", _duplicated),
    ("runs in another order", _reordered),
    ("other spelling of status and TaskId", _spelt_differently),
    ("other keys", _other_keys),
)
