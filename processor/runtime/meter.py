"""What a shard costs its worker, for balance: in points, hundredths of the one core that it has."""

from __future__ import annotations

from math import exp

# Reading costs a core too: taking a page's bytes off TLS and parsing it, about 10 ns a byte; so a
# point for each MB/s. A shard gives 2 MB/s at most.
READ_BYTES_PER_S = 100e6
# Half a minute's mean: what a burst of a few pages costs is nobody's reason to move a shard.
MEMORY_S = 30.0


class Meter:
    """Add what was spent; ask for the rate every few seconds."""

    def __init__(self, now: float) -> None:
        self._spent_s = 0.0
        self._sampled_at = now
        self._share = 0.0

    def __repr__(self) -> str:
        return f"<Meter {100 * self._share:.1f} points>"

    def add(self, seconds: float, payload_bytes: int = 0) -> None:
        """Seconds in which nobody else could work, and bytes that were read."""
        self._spent_s += seconds + payload_bytes / READ_BYTES_PER_S

    def sample(self, now: float) -> int:
        """Points, averaged over the last half minute or so."""
        passed_s = now - self._sampled_at
        if passed_s > 0:
            share = self._spent_s / passed_s
            self._share += (share - self._share) * (1 - exp(-passed_s / MEMORY_S))
            self._spent_s, self._sampled_at = 0.0, now
        return round(100 * self._share)
