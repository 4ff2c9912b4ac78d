"""From payloads to columns: decode a page, read times, ids and figures, and say what is wrong.

A record is good or it is rejected, whole, before any rule sees it; which of the two depends on the
record and its arrival time only, never on its page.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import xxhash

from processor.codecs.base import Codec, Decoded, Fault
from processor.codecs.json import ABSENT, Fields
from processor.core.patterns import Pattern
from processor.model import Bools, EventSpec, Floats, Hashes, Ints, Page, Reject, Rows, Unit

NUMBER = float
KEY = str | int
TIMES: Mapping[Unit, Any] = {
    "s": int | float,
    "ms": int | float,
    "us": int | float,
    "ns": int | float,
    "iso8601": datetime.datetime,
}

FUTURE_MAX_MS = 3_600_000  # further ahead of arrival: a broken clock, not an event
TIME_MAX_MS = 253_402_300_800_000  # the year 10000
NUMBER_MAX = 2.0**53  # beyond, a float64 no longer tells two integers apart
KEY_CHARS_MAX = 512  # keys are kept: an unbounded one could fill the process
TEXT_CHARS_MAX = 256  # correlation ids go into derived events
_INT64 = range(-(2**63), 2**63)
_PER_MS = {"us": 1_000, "ns": 1_000_000}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)
_BAD_TIME = -1
_NO_FAULTS: Mapping[int, Fault] = {}


class Batch:
    """The decodable records of a page, in columns; `reject` takes out what turns out bad."""

    def __init__(self, page: Page, fields: Fields, decoded: Decoded):
        rows, faults = decoded
        good = np.ones(len(rows), dtype=np.bool_)
        good[list(faults)] = False
        self.page = page
        self.index: Rows = np.flatnonzero(good)
        self.arrivals_ms: Ints = page.arrivals_ms[self.index]
        self.partition_keys = where(page.partition_keys, good)
        self.valid: Bools = np.ones(len(self.index), dtype=np.bool_)
        self.rejects = {i: Reject(i, fault.reason, fault.detail) for i, fault in faults.items()}
        self._payload_max = max(map(len, page.payloads), default=0)
        self._fields = fields
        self._rows = where(rows, good)
        self._values: dict[str, list[Any]] = {}
        self._numbers: dict[str, Floats] = {}
        self._matches: dict[str, Bools] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, path: str) -> list[Any]:
        """A field's values, as decoded."""
        if path not in self._values:
            self._values[path] = self._fields.column(self._rows, path)
        return self._values[path]

    def numbers(self, path: str) -> Floats:
        """A field's values as float64[n], NaN where absent."""
        if path not in self._numbers:
            values = self.column(path)
            try:
                self._numbers[path] = np.array(values, dtype=np.float64)
            except (TypeError, OverflowError):
                self._numbers[path] = np.array([_number(value) for value in values])
        return self._numbers[path]

    def matches(self, name: str, pattern: Pattern) -> Bools:
        """Which records match the pattern of that name, bool[n]; asked once a name."""
        if name not in self._matches:
            columns = {path: self.column(path) for path in pattern.fields}
            self._matches[name] = pattern.mask(columns, len(self))
        return self._matches[name]

    def reject(self, i: int, reason: str, detail: str) -> None:
        """Record i of the batch is bad; the first reason stays."""
        if self.valid[i]:
            self.valid[i] = False
            at = int(self.index[i])
            self.rejects[at] = Reject(at, reason, detail)

    def need_numbers(self, path: str, wanted: Bools) -> None:
        """Reject wanted records without a usable number at `path`."""
        with np.errstate(invalid="ignore"):
            bad = wanted & ~(np.abs(self.numbers(path)) <= NUMBER_MAX)
        for i in np.flatnonzero(bad).tolist():
            value = self.column(path)[i]
            if is_absent(value):
                self.reject(i, "missing_field", f"{path}: absent, expected a number")
            else:
                self.reject(i, "out_of_range", f"{path}: {value!s:.40}, expected at most 2^53")

    def need_keys(self, path: str, wanted: Bools) -> None:
        """Reject wanted records without a usable key at `path`."""
        values = self.column(path)
        if set(map(type, values)) <= {str} and self._are_short(values):
            return
        for i in np.flatnonzero(wanted).tolist():
            fault = key_fault(values[i])
            if fault:
                self.reject(i, fault.reason, f"{path}: {fault.detail}")

    def _are_short(self, texts: Sequence[str]) -> bool:
        """None is longer than a key may be; of a page of small payloads, none can be."""
        return (
            self._payload_max <= KEY_CHARS_MAX or max(map(len, texts), default=0) <= KEY_CHARS_MAX
        )

    def text(self, path: str | None, i: int) -> str | None:
        """Record i's short text or integer at `path`, as text; None where there is none."""
        return None if path is None else _text(self.column(path)[i])


def where(values: list[Any], mask: Bools) -> list[Any]:
    """The values at which the mask is true; the list itself where it is true for all."""
    return values if mask.all() else list(compress(values, mask.tolist()))


def decode(page: Page, codec: Codec, faults: Mapping[int, Fault] = _NO_FAULTS) -> Decoded:
    """`faults` are known before."""
    rows, found = codec.decode(page.payloads)
    return Decoded(rows, {**found, **faults})


def read(
    page: Page, codec: Codec, fields: Fields, faults: Mapping[int, Fault] = _NO_FAULTS
) -> Batch:
    """Decode a page; what can't be decoded is rejected."""
    return Batch(page, fields, decode(page, codec, faults))


def newest_ms(page: Page, decoded: Decoded, fields: Fields, event: EventSpec) -> int:
    """The latest event time of a page without faults; below 0 where there is none."""
    if event.time is None:
        return int(page.arrivals_ms.max())
    return int(_to_ms(fields.column(decoded.rows, event.time), event.unit).max())


def times_ms(batch: Batch, event: EventSpec) -> Ints:
    """Event times as int64[n] milliseconds; rejects records whose time can't be used."""
    if event.time is None:
        return batch.arrivals_ms
    values = batch.column(event.time)
    times = _to_ms(values, event.unit)
    bad = (times < 0) | (times > batch.arrivals_ms + FUTURE_MAX_MS)
    for i in np.flatnonzero(bad).tolist():
        batch.reject(i, *_time_fault(event, values[i], int(times[i])))
    return times


def id_hashes(batch: Batch, event: EventSpec) -> Hashes | None:
    """64-bit hashes of event ids, uint64[n]; None where the stream has no ids."""
    if event.id is None:
        return None
    batch.need_keys(event.id, batch.valid)
    values = batch.column(event.id)
    try:
        hashes = list(map(xxhash.xxh3_64_intdigest, map(str.encode, values)))
    except TypeError:
        hashes = [_id_hash(value) for value in values]
    return np.array(hashes, dtype=np.uint64)


def is_absent(value: Any) -> bool:
    return value is None or value is ABSENT


def key_fault(value: Any) -> Fault | None:
    """Why a value can't be a key or an id, if so."""
    if is_absent(value):
        return Fault("missing_field", "absent, expected a text or an integer")
    if isinstance(value, str):
        if len(value) > KEY_CHARS_MAX:
            return Fault("out_of_range", f"{len(value)} characters, at most {KEY_CHARS_MAX}")
        return None
    if value not in _INT64:
        return Fault("out_of_range", f"an integer of {value.bit_length()} bits, at most 63")
    return None


def _number(value: Any) -> float:
    """A number, NaN where there is none, infinite where float64 has no room."""
    if is_absent(value):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else None
    if type(value) is int and value in _INT64:  # true is no number
        return str(value)
    return None


def _id_hash(value: Any) -> int:
    """Where not all ids are texts: 1 and "1" are two ids, and so is every other text."""
    if isinstance(value, str):
        return xxhash.xxh3_64_intdigest(value.encode())
    return xxhash.xxh3_64_intdigest(repr(value).encode(), seed=1)


# ---- times ----------------------------------------------------------------------------------


def _to_ms(values: Sequence[Any], unit: Unit) -> Ints:
    """int64[n]; _BAD_TIME where there is none. Each value alone decides, not its neighbours."""
    convert = _CONVERT[unit]
    if unit != "iso8601" and unit != "s" and set(map(type, values)) == {int}:
        try:
            times = np.array(values, dtype=np.int64) // _PER_MS.get(unit, 1)
            return np.where((times < 0) | (times > TIME_MAX_MS), _BAD_TIME, times)
        except OverflowError:
            pass  # an integer beyond 64 bits: one by one, to find which
    each = [_BAD_TIME if is_absent(value) else convert(value) for value in values]
    return np.array([t if 0 <= t <= TIME_MAX_MS else _BAD_TIME for t in each], dtype=np.int64)


def _floor_ms(per_ms: int) -> Callable[[int | float], int]:
    return lambda value: int(value // per_ms)


def _seconds(value: int | float) -> int:
    # A thousand times 1e308 is infinite, and infinity is no integer.
    return int(value * 1_000 // 1) if abs(value) <= TIME_MAX_MS else _BAD_TIME


def _iso8601(value: datetime.datetime) -> int:
    """Without an offset it is UTC."""
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    return (value - _EPOCH) // _MS


_CONVERT: Mapping[Unit, Callable[[Any], int]] = {
    "s": _seconds,
    "ms": _floor_ms(1),
    "us": _floor_ms(_PER_MS["us"]),
    "ns": _floor_ms(_PER_MS["ns"]),
    "iso8601": _iso8601,
}


def _time_fault(event: EventSpec, value: Any, time_ms: int) -> tuple[str, str]:
    if is_absent(value):
        return "missing_field", f"{event.time}: absent, expected a time in {event.unit}"
    if time_ms < 0:
        return "out_of_range", f"{event.time}: {value!s:.40}, expected {event.unit} since 1970"
    return "future", f"{event.time}: {value!s:.40} is over an hour ahead of arrival"


def field_type(kinds: set[Any]) -> Any:
    """The one type that serves all uses of a field; patterns take any."""
    found = kinds - {Any}
    if found == {NUMBER, int | float}:
        return int | float  # as float64 a time in ns would lose its last digits
    assert len(found) <= 1, f"one field as {found}: the check of the pipeline file refuses that"
    return found.pop() if found else Any
