"""One shard of our Kinesis: its hash range, its lineage, and its records as ready-made JSON.

A record is rendered once, when it is put, so a page of GetRecords is a join of a slice. A position
is an index: how many records the shard had taken before. Sequence numbers are arithmetic on it:

    2 | order, 36 bits | index, 64 bits | 48 zero bits | shard number, 32 bits | 2    = 56 digits

`order` is the second in which the shard was opened, at least one above its parents', so a child's
numbers lie above those of its parents; the layout follows what is known of the service's.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from processor.local.kinesis_limits import Bucket, Limits

HASH_KEY_MAX = 2**128 - 1
_STEP = 1 << 84


@dataclass(frozen=True, slots=True)
class HashRange:
    """Hash keys from `first` to `last`, both included."""

    first: int
    last: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record on its way in; `key_member` is its partition key as a member of a JSON object."""

    data_base64: bytes
    key_member: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of rendered records, and the index that follows it."""

    fragments: list[bytes]
    next_index: int
    size_bytes: int


def shard_name(number: int) -> str:
    return f"shardId-{number:012d}"


def even_ranges(count: int) -> list[HashRange]:
    """`count` ranges that cover every hash key, as even as whole numbers allow."""
    width = (HASH_KEY_MAX + 1) // count
    starts = [width * i for i in range(count)]
    lasts = [start - 1 for start in starts[1:]] + [HASH_KEY_MAX]
    return [HashRange(first, last) for first, last in zip(starts, lasts, strict=True)]


class Shard:
    """A shard's identity and its log. Only `append`, `close` and `trim` change it."""

    def __init__(
        self,
        number: int,
        hash_range: HashRange,
        parents: tuple["Shard", ...],
        limits: Limits,
        now_ms: int,
    ) -> None:
        self.number = number
        self.shard_id = shard_name(number)
        self.hash_range = hash_range
        self.parent_ids = tuple(parent.shard_id for parent in parents)
        self.opened_at_ms = now_ms
        self.closed_at_ms: int | None = None
        self.reads = Bucket(limits.reads_per_s, now_ms)
        self.read_bytes = Bucket(limits.read_bytes_per_s, now_ms)
        self.write_bytes = Bucket(limits.write_bytes_per_s, now_ms)
        self.write_records = Bucket(limits.write_records_per_s, now_ms)
        self._order: int = max([now_ms // 1000, *(parent._order + 1 for parent in parents)])
        self._base = (2 << 184) + (self._order << 148) + (number << 4) + 2
        self._fragments: list[bytes] = []
        self._arrivals_ms = array("q")
        self._ends_bytes = array("Q")  # running total of sizes, for cutting pages
        self._offset = 0  # index of the first entry of the three columns
        self._head = 0  # entries of the columns that are trimmed but not yet dropped

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<{self.shard_id} {state} records {self.first_index}..{self.next_index}>"

    @property
    def is_open(self) -> bool:
        return self.closed_at_ms is None

    @property
    def first_index(self) -> int:
        """Index of the oldest record that is still held: the trim horizon."""
        return self._offset + self._head

    @property
    def next_index(self) -> int:
        """Index that the next record will get: the tip."""
        return self._offset + len(self._fragments)

    # Sequence numbers

    @property
    def first_number(self) -> int:
        """The StartingSequenceNumber, below that of the first record."""
        return self._base

    def sequence_number(self, index: int) -> int:
        return self._base + (index + 1) * _STEP

    def index_at(self, sequence_number: int) -> int:
        """Index of the first record at or above `sequence_number`."""
        return max(0, -((self._base - sequence_number) // _STEP) - 1)

    def index_after(self, sequence_number: int) -> int:
        """Index of the first record above `sequence_number`."""
        return (sequence_number - self._base) // _STEP

    def has_issued(self, sequence_number: int) -> bool:
        """Whether the number lies from the shard's first to the one that is next (or ended it)."""
        return self._base <= sequence_number <= self.sequence_number(self.next_index)

    # Reading

    def index_at_time(self, at_ms: int) -> int:
        """Index of the first record that arrived at `at_ms` or later."""
        return self._offset + bisect_left(self._arrivals_ms, at_ms, self._head)

    def arrived_at_ms(self, index: int) -> int:
        return self._arrivals_ms[index - self._offset]

    def read(self, index: int, records_max: int, bytes_max: int) -> Slice:
        """Records from `index` or the trim horizon, the later; one at least, if there is any."""
        start = max(index - self._offset, self._head)
        stop = min(start + records_max, len(self._fragments))
        if stop <= start:
            return Slice([], self._offset + start, 0)
        before = self._ends_bytes[start - 1] if start else 0
        if self._ends_bytes[stop - 1] - before > bytes_max:
            fit = bisect_right(self._ends_bytes, before + bytes_max, start, stop)
            stop = max(fit, start + 1)
        size = self._ends_bytes[stop - 1] - before
        return Slice(self._fragments[start:stop], self._offset + stop, size)

    # Changing

    def append(self, entries: Sequence[Entry], now_ms: int) -> list[str]:
        """Render and keep `entries`; their sequence numbers. Arrival times never go back."""
        assert self.is_open, "routing gives open shards only"
        arrived_ms = max(now_ms, self._arrivals_ms[-1]) if self._arrivals_ms else now_ms
        first = self.sequence_number(self.next_index)
        numbers = [str(first + i * _STEP) for i in range(len(entries))]
        self._fragments.extend(_render(entries, numbers, arrived_ms))
        self._arrivals_ms.extend([arrived_ms] * len(entries))
        end = self._ends_bytes[-1] if self._ends_bytes else 0
        for entry in entries:
            end += entry.size_bytes
            self._ends_bytes.append(end)
        return numbers

    def close(self, now_ms: int) -> None:
        self.closed_at_ms = now_ms

    def trim(self, horizon_ms: int) -> None:
        """Forget what arrived before `horizon_ms`; memory is given back by halves."""
        self._head = bisect_left(self._arrivals_ms, horizon_ms, self._head)
        if self._head * 2 > len(self._fragments):
            self._drop_head()

    def _drop_head(self) -> None:
        del self._fragments[: self._head]
        del self._arrivals_ms[: self._head]
        dropped = self._ends_bytes[self._head - 1]
        self._ends_bytes = array("Q", [end - dropped for end in self._ends_bytes[self._head :]])
        self._offset += self._head
        self._head = 0


def _render(entries: Sequence[Entry], numbers: Sequence[str], arrived_ms: int) -> list[bytes]:
    """Each record as GetRecords shows it; the arrival time is seconds with three decimals."""
    tail = b'","ApproximateArrivalTimestamp":%d.%03d}' % divmod(arrived_ms, 1000)
    return [
        b'{"Data":"%b",%b"SequenceNumber":"%b%b'
        % (entry.data_base64, entry.key_member, number.encode(), tail)
        for entry, number in zip(entries, numbers, strict=True)
    ]
