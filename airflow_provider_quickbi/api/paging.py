"""Pages of a list, and reading all of them although the list may change meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_provider_quickbi.api.models import MailTask

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Mail tasks per page by default.
DEFAULT_PAGE_SIZE = 25
#: At most so many passes through the list; if it changes during each of them, what was seen is what is returned.
MAX_PASSES = 5
#: At most so many pages per pass, in case the service never ends the list.
MAX_PAGES = 100_000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    :param items: of this page, in the service's order.
    :param page_num: number of this page, from 1, as returned by the service, else as requested.
    :param page_size: items per page, as returned by the service, else as requested.
    :param total_num: items in total; ``None`` if the service did not say.
    """

    items: tuple[T, ...]
    page_num: int
    page_size: int
    total_num: int | None


class MailTaskPage(Page[MailTask]):
    """One page of mail tasks."""

    __slots__ = ()

    @property
    def mail_tasks(self) -> tuple[MailTask, ...]:
        """The mail tasks of this page, in the service's order."""
        return self.items


class Pager(Generic[T]):
    """Decides which page to read next, and which of its items are new.

    Pages are numbered, so if an item is deleted while the list is read, the following ones move to an earlier page and
    would be missed. A list of several pages is therefore read again until a pass finds nothing new; each item is
    returned once. ``Pre``, ``Next`` and ``TotalPages`` are not used: a pass ends with a page that has nothing this
    pass has not seen, or that completes the total reported by the service.

    :param id_of: returns the id of an item.
    """

    def __init__(self, id_of: Callable[[T], str]) -> None:
        self._id_of = id_of
        self._returned: set[str] = set()
        self._seen_in_pass: set[str] = set()
        self._passes = 0
        self._total: int | None = None
        self._steady = True
        self._found_new = False
        self.page_num: int | None = 1

    def feed(self, page: Page[T]) -> list[T]:
        """Process a page and choose the next one.

        :param page: the page that :attr:`page_num` named.
        :returns: those of its items that were not returned before.
        """
        number = self.page_num or 1
        seen_before = len(self._seen_in_pass)
        new: list[T] = []
        for item in page.items:
            item_id = self._id_of(item)
            self._seen_in_pass.add(item_id)
            if item_id not in self._returned:
                self._returned.add(item_id)
                new.append(item)
        self._found_new = self._found_new or bool(new)
        if number > 1 and page.total_num != self._total:
            self._steady = False
        self._total = page.total_num
        progress = len(self._seen_in_pass) > seen_before
        complete = page.total_num is not None and len(self._seen_in_pass) >= page.total_num
        if progress and not complete and number < MAX_PAGES:
            self.page_num = number + 1
        else:
            self._end_pass(number)
        return new

    def _end_pass(self, pages: int) -> None:
        self._passes += 1
        enough = pages == 1 or (self._passes > 1 and self._steady and not self._found_new)
        self.page_num = None if enough or self._passes >= MAX_PASSES else 1
        self._seen_in_pass = set()
        self._steady = True
        self._found_new = False
