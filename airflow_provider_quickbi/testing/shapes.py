"""Where the documentation leaves the shape of a response open."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal, TypeVar

StatusList = Literal["latest"] | int

T = TypeVar("T")


@dataclass(slots=True)
class Shapes:
    """How the simulator shapes its responses.

    :param status_list: how many recent runs GetMailTaskStatus returns without a TaskId: ``"latest"`` or a number.
    :param shuffle: whether those runs come in a random order.
    :param task_id_as_string: whether ``taskId`` is a JSON string; default a JSON integer.
    :param no_such_page: ``Pre`` and ``Next`` where there is no such page: ``None`` or 0.
    :param max_page_size: larger page sizes are silently cut to this one.
    :param seed: of the random order.
    """

    status_list: StatusList = "latest"
    shuffle: bool = False
    task_id_as_string: bool = False
    no_such_page: Literal[0] | None = None
    max_page_size: int = 100
    seed: int = 0
    page_size: int = field(default=25, init=False)
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.status_list != "latest" and (not isinstance(self.status_list, int) or self.status_list < 1):
            raise ValueError(f"status_list must be 'latest' or a number from 1, got {self.status_list!r}.")
        self._random = random.Random(self.seed)  # noqa: S311 - repeats a test, guards nothing

    def order(self, runs: list[T]) -> list[T]:
        """Return runs in the order in which they are sent."""
        if self.shuffle:
            self._random.shuffle(runs)
        return runs
