"""Which slots of the wall clock a process takes while it knows nothing of the others, learnt from throttling; pure.

Slots have numbers that all processes count alike, and :data:`FRAME` of them are a frame. A process takes every slot at
first. Throttled, it keeps a third of them: those in which it has just succeeded, else others than those in which it
was throttled. Throttled there as well, it moves to another third, and after all have been tried twice, to a sixth, then
to a twelfth. So two or three processes find a third each after a few throttled calls. What is left over is claimed a
sixth at a time by a process that has not been throttled for long enough; who has less and was throttled less comes
first. A claim is given up when it is throttled. Equal parts matter more than using every slot: the last report is seen
by the process that has the fewest slots for its waits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: Slots of a frame; it can be divided into equal parts for two, three, four, six or twelve processes.
FRAME = 12
#: Of how many slots a process takes one after the first throttled call, and after moving has not helped.
PERIODS = (3, 6, 12)
#: How often all thirds are tried before sixths are.
ROUNDS = 2
#: Slots without throttling after which a process that has a third and had to move once claims more.
PATIENCE = 20.0
#: How many times as long it takes after a claim that was throttled; and the most slots.
PATIENCE_FACTOR, MAX_PATIENCE = 3.0, 256.0
#: After so many calm slots, being throttled once costs nothing: it was somebody's attempt.
ESTABLISHED_SLOTS = 12.0
#: Slots for which the last call without throttling says which third is free.
RECENT_SLOTS = 4


class Cell(NamedTuple):
    """One slot in every so many.

    :param period: a divisor of :data:`FRAME`.
    :param offset: the number of its first slot.
    """

    period: int
    offset: int

    def __contains__(self, slot: object) -> bool:
        return isinstance(slot, int) and slot % self.period == self.offset

    def overlaps(self, other: Cell) -> bool:
        """Whether some slot is in both; of two cells one period divides the other."""
        return self.offset % min(self.period, other.period) == other.offset % min(self.period, other.period)


EVERY_SLOT = Cell(1, 0)


class SlotShare:
    """The slots of one process.

    :param choice: returns one of some values at random.
    """

    def __init__(self, choice: Callable[[list[Cell]], Cell]) -> None:
        self._choice = choice
        #: What it takes; no two overlap.
        self.cells: list[Cell] = [EVERY_SLOT]
        self._taken: set[Cell] = set()
        #: Whether no call since the last move has shown that the slots are free.
        self.moved = False
        self._claim: Cell | None = None
        self._calm = 0.0
        self._round = 0
        self._moves = 0
        self._patience = PATIENCE
        self._succeeded_slots: deque[int] = deque(maxlen=PERIODS[0] - 1)

    @property
    def fraction(self) -> float:
        """The share of all slots."""
        return sum(1 / cell.period for cell in self.cells)

    @property
    def is_whole(self) -> bool:
        """Whether it takes every slot."""
        return self.cells[0] is EVERY_SLOT

    def next_slot(self, slot: int) -> int:
        """Return the first slot at or after one that is this process's."""
        return min(slot + (cell.offset - slot) % cell.period for cell in self.cells)

    def is_claimed(self, slot: int) -> bool:
        """Whether a slot may be somebody else's: it was claimed and no call has shown yet that it is free."""
        return self._claim is not None and slot in self._claim

    def succeeded(self, slot: int, calm: float) -> None:
        """Learn that a call was not throttled.

        :param slot: in which it was made.
        :param calm: slots since the last response.
        """
        self._succeeded_slots.append(slot)
        self.moved = False
        self._calm += calm
        if self.is_claimed(slot):
            self._claim = None
            self._patience = max(PATIENCE, self._patience / PATIENCE_FACTOR)
            self._moves = 0
        if not self.is_whole and self._claim is None and self._calm >= self._slots_until_claim():
            self._calm = 0.0
            self._claim_more()

    def throttled(self, slot: int) -> None:
        """Learn that a call was throttled.

        :param slot: in which it was made.
        """
        calm, self._calm = self._calm, 0.0
        if self._claim is not None:
            if slot in self._claim:
                self._taken.add(self._claim)
            self.cells.remove(self._claim)
            self._claim = None
            self._patience = min(MAX_PATIENCE, PATIENCE_FACTOR * self._patience)
        elif calm < ESTABLISHED_SLOTS:
            self._yield(next((cell for cell in self.cells if slot in cell), self.cells[-1]), slot)

    def _yield(self, cell: Cell, slot: int) -> None:
        self.moved = True
        self._moves += 1
        self._patience = min(MAX_PATIENCE, max(self._patience, PATIENCE * self._moves**2))
        if cell is EVERY_SLOT:
            self._taken = {Cell(PERIODS[0], slot % PERIODS[0])}
            self.cells = []
            # The oldest: those who were throttled in it keep off it, and know nothing of the others.
            thirds = [
                Cell(PERIODS[0], recent % PERIODS[0])
                for recent in self._succeeded_slots
                if slot - recent <= RECENT_SLOTS and (recent - slot) % PERIODS[0]
            ]
            self.cells = [thirds[0] if thirds else self._choice(self._free(PERIODS[0]))]
            return
        self._taken.add(cell)
        self.cells.remove(cell)
        if self.cells:
            return
        period = cell.period
        if not self._free(period):
            # Perhaps the others have moved as well: all once more, before it is less.
            self._round += 1
            self._taken = {cell}
            if self._round >= ROUNDS or period > PERIODS[0]:
                self._round, period = 0, PERIODS[min(len(PERIODS) - 1, PERIODS.index(period) + 1)]
        self.cells = [self._choice(self._free(period))]

    def _slots_until_claim(self) -> float:
        """Return for how many slots it must have been calm; for longer, the more slots this process has."""
        longer = max(0.5, (self.fraction * PERIODS[0]) ** 4)
        return min(self._patience * longer, max(self._patience, MAX_PATIENCE / PATIENCE_FACTOR))

    def _claim_more(self) -> None:
        periods = PERIODS[1:] if self.fraction > 1 / PERIODS[-1] else PERIODS[-1:]
        if not (free := next(filter(None, map(self._free, periods)), [])):
            self._taken = set()
            free = next(filter(None, map(self._free, periods)))
        # Of the two processes that may claim a third which nobody has, each prefers another half.
        third, own = PERIODS[0], self.cells[0].offset
        preferred = [cell for cell in free if (cell.offset - own) % third == 1 + cell.offset // third]
        self._claim = self._choice(preferred or free)
        self.cells.append(self._claim)
        if self.fraction > 1 - 0.5 / FRAME:  # whose last claim can no longer be distinguished from the rest
            self.cells, self._claim = [EVERY_SLOT], None

    def _free(self, period: int) -> list[Cell]:
        """Return the cells of a period that are neither this process's nor known to be somebody else's."""
        cells = [Cell(period, offset) for offset in range(period)]
        return [cell for cell in cells if not any(cell.overlaps(other) for other in (*self._taken, *self.cells))]
