"""Which slots a process takes, as far as throttling shows."""

from __future__ import annotations

import random

import pytest

from airflow_provider_quickbi.api.slot_share import EVERY_SLOT, FRAME, MAX_PATIENCE, PATIENCE, Cell, SlotShare


@pytest.fixture
def share() -> SlotShare:
    return SlotShare(random.Random(1).choice)


def overlapping(share: SlotShare) -> bool:
    slots = [slot for slot in range(FRAME) for cell in share.cells if slot in cell]
    return len(slots) != len(set(slots))


def test_a_process_takes_every_slot_until_it_is_throttled(share: SlotShare):
    for slot in range(100):
        assert share.next_slot(slot) == slot
        share.succeeded(slot, 1.0)
    assert share.fraction == 1


def test_throttled_it_keeps_the_third_in_which_it_succeeded_before_the_others_did(share: SlotShare):
    share.succeeded(6, 1.0)
    share.succeeded(7, 1.0)
    share.throttled(8)
    assert share.cells == [Cell(3, 0)]
    assert [share.next_slot(slot) for slot in range(9, 13)] == [9, 12, 12, 12]


def test_it_moves_from_third_to_third_and_then_takes_less(share: SlotShare):
    slot, fractions = 0, []
    for _ in range(60):
        slot = share.next_slot(slot)
        before = share.cells
        share.throttled(slot)
        assert share.cells != before
        assert slot not in share.cells[0]
        fractions.append(share.fraction)
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[0] == pytest.approx(1 / 3)
    assert fractions[-1] == 1 / FRAME


def test_a_process_that_was_calm_is_not_moved_by_one_throttled_call(share: SlotShare):
    share.throttled(0)
    cells = list(share.cells)
    slot = 0
    for _ in range(4):
        slot = share.next_slot(slot + 1)
        share.succeeded(slot, 3.0)
    share.throttled(share.next_slot(slot + 1))
    assert share.cells == cells
    share.throttled(share.next_slot(slot + 4))
    assert share.cells != cells


def test_a_claim_that_is_throttled_is_given_up_and_the_next_one_comes_later(share: SlotShare):
    share.throttled(0)
    cells = list(share.cells)
    gaps, slot, since = [], 0, 0
    for _ in range(3):
        while not share.is_claimed(share.next_slot(slot + 1)):
            before, slot = slot, share.next_slot(slot + 1)
            share.succeeded(slot, slot - before)
        gaps.append(slot - since)
        slot = since = share.next_slot(slot + 1)
        share.throttled(slot)
        assert share.cells == cells
    assert PATIENCE <= gaps[0] < gaps[1] <= gaps[2] <= MAX_PATIENCE + 6


def test_what_nobody_else_takes_is_taken_bit_by_bit(share: SlotShare):
    for slot in range(40):
        share.throttled(share.next_slot(slot))
    assert share.fraction == 1 / FRAME
    slot, fractions = 0, []
    while slot < 1000:
        before, slot = slot, share.next_slot(slot + 1)
        share.succeeded(slot, slot - before)
        assert not overlapping(share)
        fractions.append(share.fraction)
    assert fractions == sorted(fractions)
    assert share.cells == [EVERY_SLOT]


def test_two_processes_that_claim_the_third_that_is_left_choose_other_halves():
    for left in range(3):
        claims = []
        for own in {0, 1, 2} - {left}:
            other = ({0, 1, 2} - {left, own}).pop()
            share = SlotShare(random.Random(1).choice)
            share.succeeded(12 + own, 1.0)
            slot = next(slot for slot in range(13 + own, 16 + own) if slot % 3 == other)
            share.throttled(slot)
            assert share.cells == [Cell(3, own)]
            while len(share.cells) == 1:
                slot = share.next_slot(slot + 1)
                share.succeeded(slot, 3.0)
            claims.append(share.cells[1])
        assert sorted(claims) == [Cell(6, left), Cell(6, left + 3)]
