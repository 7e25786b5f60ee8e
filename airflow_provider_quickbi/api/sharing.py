"""One client for one account in an event loop, and one call for equal questions, however many waits there are."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.client import AsyncQuickBIClient
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retries import ONE_ATTEMPT, Retries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_quickbi.api.models import MailTaskRun, Question
    from airflow_provider_quickbi.api.settings import ClientSettings


#: An answer is kept for so many seconds after the last wait that wanted it has left; others may want it a little later.
KEPT_SECONDS = 60.0


class Answer(NamedTuple):
    """What came back.

    :param asked_at: monotonic seconds at which it came.
    :param outcome: the runs, oldest first, or the error.
    """

    asked_at: float
    outcome: tuple[MailTaskRun, ...] | QuickBIError


@dataclass(slots=True)
class _Topic:
    watches: int = 0
    waiting: int = 0
    call: asyncio.Task[Answer] | None = None
    latest: Answer | None = None


class StatusBoard:
    """Asks each question once for all who want to know.

    :param client: asks; all questions of one account share its connections.
    """

    def __init__(self, client: AsyncQuickBIClient) -> None:
        self.client = client
        self._topics: dict[Question, _Topic] = {}
        self._left_at: dict[Question, float] = {}

    def watch(self) -> Watch:
        """Return the view of one wait; close it when the wait ends."""
        return Watch(self)

    def enter(self, question: Question) -> None:
        """Keep what is answered to a question, for one watch more."""
        self._topics.setdefault(question, _Topic()).watches += 1
        self._left_at.pop(question, None)

    def leave(self, question: Question) -> None:
        """Forget what was answered to a question some time after the last watch has left."""
        topic = self._topics[question]
        topic.watches -= 1
        now = time.monotonic()
        if topic.watches == 0:
            self._left_at[question] = now
        for left, left_at in list(islice(self._left_at.items(), 2)):  # the oldest; so there never are many
            if now - left_at >= KEPT_SECONDS:
                del self._topics[left], self._left_at[left]

    async def look(self, question: Question, newer_than: float, retries: Retries) -> Answer:
        """Ask, or join the call that is under way, unless there is an answer that is newer than an instant."""
        topic = self._topics[question]
        if topic.latest is not None and topic.latest.asked_at > newer_than:
            return topic.latest
        if topic.call is None:
            topic.call = asyncio.create_task(self._ask(question, topic, retries))
        call = topic.call
        topic.waiting += 1
        try:
            return await asyncio.shield(call)
        finally:
            topic.waiting -= 1
            if topic.waiting == 0 and not call.done():
                call.cancel()
                topic.call = None

    async def _ask(self, question: Question, topic: _Topic, retries: Retries) -> Answer:
        try:
            outcome = await self.client.get_mail_task_status(question.mail_id, question.task_id, retries=retries)
        except QuickBIError as error:
            return Answer(time.monotonic(), error.with_traceback(None))
        finally:
            if topic.call is asyncio.current_task():
                topic.call = None
        topic.latest = Answer(time.monotonic(), outcome)
        return topic.latest


class Watch:
    """One wait's view of a :class:`StatusBoard`.

    :param board: where it looks.
    """

    __slots__ = ("_board", "_known_at", "_question")

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._question: Question | None = None
        self._known_at = -math.inf

    async def look(self, question: Question, *, max_age: float = 0.0, retries: Retries = ONE_ATTEMPT) -> Answer:
        """Ask, unless others have asked since this wait looked last, or join a call that is under way.

        :param question: what to ask; it may change from look to look.
        :param max_age: seconds; an answer that others got is taken if it is younger. Errors are not kept.
        :param retries: for a call that this look makes.
        """
        if question != self._question:
            self._board.enter(question)
            self.close()
            self._question = question
        answer = await self._board.look(question, max(self._known_at, time.monotonic() - max_age), retries)
        if not isinstance(answer.outcome, QuickBIError):
            self._known_at = answer.asked_at
        return answer

    def close(self) -> None:
        """Let go of what was kept for this wait."""
        if self._question is not None:
            self._board.leave(self._question)
            self._question = None


@dataclass(slots=True)
class _Shared:
    board: StatusBoard
    users: int = 0


_boards: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClientSettings, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_board(
    settings: ClientSettings, on_call: Callable[[str, str], None] | None = None
) -> AsyncIterator[StatusBoard]:
    """Give the running event loop's board for an account; its connections are closed when the last user leaves.

    :param settings: the account; a connection with another secret is another account.
    :param on_call: told the operation and how each call ended; that of the first user counts.
    """
    boards = _boards.setdefault(asyncio.get_running_loop(), {})
    if (shared := boards.get(settings)) is None:
        shared = boards[settings] = _Shared(StatusBoard(AsyncQuickBIClient(settings, on_call=on_call)))
    shared.users += 1
    try:
        yield shared.board
    finally:
        shared.users -= 1
        if shared.users == 0:
            if boards.get(settings) is shared:
                del boards[settings]
            await shared.board.client.close()
