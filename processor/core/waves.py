"""Windows that detectors judge: each one from a rule's first on, also where nothing came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from processor.core.windows import Grid

# Empty windows that are run past the detectors after the last one with records. Enough for absence
# on a key that has something in one window of ten; more would stall the shard after a long gap.
ABSENCE_HORIZON = 100

Wave = tuple[int | None, int]  # end of the last window judged, and the empty ones in a row


class Waves:
    """How far a rule's detectors are; without any they are nowhere."""

    def __init__(self, grid: Grid | None):
        self._grid = grid
        self.last: Wave = (None, 0)

    def on_judged(self, end_ms: int, *, is_empty: bool) -> None:
        """A window was run past the detectors."""
        self.last = (end_ms, self.last[1] + 1 if is_empty else 0)

    def on_passed(self, end_ms: int, *, is_empty: bool) -> None:
        """A window was kept from the detectors: an empty one is no more silence than before, but
        one with records ends it."""
        self.last = (end_ms, self.last[1] if is_empty else 0)

    def empty_until(self, stop_ms: int) -> Iterator[int]:
        """Ends before that of windows without records that are to be judged, ascending.

        Each is to be judged before the next is asked for, unless it is partial for all: then it
        leaves no trace, and the horizon is counted from where it stood.
        """
        end_ms, passed = self.next_ms, 0
        while end_ms is not None and end_ms < stop_ms:
            before = self.last
            yield end_ms
            if self.last != before:
                end_ms, passed = self.next_ms, 0
                continue
            passed += 1
            assert self._grid is not None, "windows without a grid are never judged"
            more = passed < ABSENCE_HORIZON - self.last[1]
            end_ms = self._grid.next_end(end_ms) if more else None

    @property
    def next_ms(self) -> int | None:
        """The end of the next window, if it is to be judged even if nothing comes."""
        last_ms, empty = self.last
        if last_ms is None or empty >= ABSENCE_HORIZON:
            return None
        assert self._grid is not None, "windows without a grid are never judged"
        return self._grid.next_end(last_ms)

    def join(self, waves: Sequence[Wave]) -> None:
        """Go on with the parent that is least far, so that none of its keys misses a window; but
        don't go back for one whose empty windows are used up. Those of the others, whose keys are
        judged later on, are not used up by its own."""
        begun = [(last_ms, empty) for last_ms, empty in waves if last_ms is not None]
        running = [wave for wave in begun if wave[1] < ABSENCE_HORIZON]
        if running:
            assert self._grid is not None, "windows without a grid are never judged"
            first_ms, _ = min(running)
            left = (empty - self._grid.between(first_ms, last) for last, empty in running)
            self.last = (first_ms, max(0, min(left)))
        elif begun:
            self.last = max(begun)
