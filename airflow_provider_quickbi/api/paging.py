"""Reading all pages of a list that may change while it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.models import MailTask
    from airflow_provider_quickbi.api.operations import MailTaskPage

#: Mail tasks that a page has if nothing else is asked for.
DEFAULT_PAGE_SIZE = 25
#: Walks through the list at the most; a list that changes during each of them is given as far as it was seen.
MAX_WALKS = 5
#: Pages of one walk at the most, against a service that never comes to an end.
MAX_PAGES = 100_000


class MailTaskPager:
    """Decides which page to read next, and which of its mail tasks are new.

    Pages are numbered, so a mail task that is deleted while the list is read moves the next ones forward past the
    reader. A list of several pages is therefore walked again until a walk shows nothing new; only mail tasks that were
    not given before are given. ``Pre``, ``Next`` and ``TotalPages`` are not relied on: a walk ends with a page that
    has no mail task that this walk has not seen, or that completes the number of mail tasks that the service names.
    """

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._walk: set[str] = set()
        self._walks = 0
        self._total: int | None = None
        self._steady = True
        self._found_new = False
        self.page_num: int | None = 1

    def feed(self, page: MailTaskPage) -> list[MailTask]:
        """Take a page that was read and choose the next one.

        :returns: those of its mail tasks that were not given before.
        """
        number = self.page_num or 1
        seen_before = len(self._walk)
        new: list[MailTask] = []
        for mail_task in page.mail_tasks:
            self._walk.add(mail_task.mail_id)
            if mail_task.mail_id not in self._given:
                self._given.add(mail_task.mail_id)
                new.append(mail_task)
        self._found_new = self._found_new or bool(new)
        if number > 1 and page.total_num != self._total:
            self._steady = False
        self._total = page.total_num
        progress = len(self._walk) > seen_before
        complete = page.total_num is not None and len(self._walk) >= page.total_num
        if progress and not complete and number < MAX_PAGES:
            self.page_num = number + 1
        else:
            self._end_walk(number)
        return new

    def _end_walk(self, pages: int) -> None:
        self._walks += 1
        enough = pages == 1 or (self._walks > 1 and self._steady and not self._found_new)
        self.page_num = None if enough or self._walks >= MAX_WALKS else 1
        self._walk = set()
        self._steady = True
        self._found_new = False
