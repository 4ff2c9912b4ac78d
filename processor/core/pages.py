"""Cutting a page where a mark lies: records up to its position come before it, the others after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from msgspec.structs import replace

from processor.model import Mark, Page, Position


def is_behind(position: Position, other: Position) -> bool:
    """Whether `position` comes before `other`, both of one shard; sequence numbers are integers."""
    return place(position) < place(other)


def place(position: Position) -> tuple[int, int, float]:
    """Orders a shard's positions: starts of either kind, sequence numbers as integers, `END`."""
    match position.kind:
        case "after":
            return 1, int(position.value), inf
        case "at":
            return 1, int(position.value), position.skip
        case "end":
            return 2, 0, 0
    return 0, 0, 0


def pending(marks: Sequence[Mark], position: Position) -> list[Mark]:
    """The marks that a replay from `position` meets, in order."""
    return [mark for mark in marks if not is_behind(mark.position, position)]


def cut(page: Page, marks: list[Mark]) -> Iterator[Page | Mark]:
    """The page and the marks that fall into it, in order of position; takes those from `marks`.

    A mark after the page's last record comes when that record has been taken, at once.
    """
    at = 0
    while marks and len(page):
        stop = _count_until(page, marks[0].position)
        if stop is None:
            break
        if stop > at:
            yield part(page, at, stop)
            at = stop
        yield marks.pop(0)
    if at < len(page) or not len(page):
        yield part(page, at, len(page))


def _count_until(page: Page, position: Position) -> int | None:
    """How many records lie at or before the position; None if it is past the page."""
    if position.kind != "after":
        return 0
    target = int(position.value)
    if int(page.sequence_numbers[-1]) < target:
        return None
    return sum(int(number) <= target for number in page.sequence_numbers)


def part(page: Page, start: int, stop: int) -> Page:
    """The page's records from `start` up to `stop`, or to its end."""
    if start == 0 and stop >= len(page):
        return page
    return replace(
        page,
        payloads=page.payloads[start:stop],
        sequence_numbers=page.sequence_numbers[start:stop],
        partition_keys=page.partition_keys[start:stop],
        arrivals_ms=page.arrivals_ms[start:stop],
    )
