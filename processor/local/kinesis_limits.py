"""The service's limits as one frozen value, and the bucket that enforces a rate.

Rates are per shard and any of them can be switched off with None; the figures are those of the
service's quotas page (provisioned streams, polling consumers).
"""

from dataclasses import dataclass
from typing import Self

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shard and a request may carry. Sizes are bytes of data plus UTF-8 partition key."""

    reads_per_s: int | None = 5
    read_bytes_per_s: int | None = 2 * MEBIBYTE
    write_bytes_per_s: int | None = MEBIBYTE
    write_records_per_s: int | None = 1_000
    record_bytes_max: int = 10 * MEBIBYTE
    request_bytes_max: int = 10 * MEBIBYTE
    request_records_max: int = 500
    page_bytes_max: int = 10 * MEBIBYTE
    page_records_max: int = 10_000
    iterator_ms: int = 300_000  # five minutes, for iterators and for ListShards' tokens

    @classmethod
    def without_rates(cls) -> Self:
        """Sizes as in the service, no rates: for load tests, where the shard is not the subject."""
        return cls(
            reads_per_s=None,
            read_bytes_per_s=None,
            write_bytes_per_s=None,
            write_records_per_s=None,
        )


class Bucket:
    """A token bucket of one second's worth, in whole thousandths so that nothing is rounded."""

    __slots__ = ("_filled_at_ms", "_per_s", "_thousandths")

    def __init__(self, per_s: int | None, now_ms: int) -> None:
        self._per_s = per_s
        self._thousandths = (per_s or 0) * 1000
        self._filled_at_ms = now_ms

    def has(self, amount: int, now_ms: int) -> bool:
        """Whether `amount` is there; 0 asks whether earlier debt is paid."""
        if self._per_s is None:
            return True
        self._fill(self._per_s, now_ms)
        return self._thousandths >= amount * 1000

    def take(self, amount: int) -> None:
        """Take `amount`, into debt if need be.

        What is worth more than a second isn't helped by what was saved up: the service blocks a
        shard for the whole 5 s after an answer of 10 MiB.
        """
        if self._per_s is None:
            return
        saved = self._thousandths if amount <= self._per_s else min(0, self._thousandths)
        self._thousandths = saved - amount * 1000

    def _fill(self, per_s: int, now_ms: int) -> None:
        elapsed_ms = max(0, now_ms - self._filled_at_ms)
        self._thousandths = min(per_s * 1000, self._thousandths + elapsed_ms * per_s)
        self._filled_at_ms = max(now_ms, self._filled_at_ms)
