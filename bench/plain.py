"""The plain way, to be compared with: orjson and dicts, and aiobotocore in front of them.

It does less than ours does: no duplicates, no detectors, no state that survives, no bad records.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import orjson

# (store, type, start of the window) → count, sum, max, mean
Results = dict[tuple[str, str, int], tuple[int, float, float, float]]
Loop = Generator[int, Sequence[bytes], None]


def windows(size_ms: int, out_of_orderness_ms: int, closed: Results) -> Loop:
    """Takes pages by `send`, puts what closes into `closed`; yields how many records were late."""
    open_: dict[int, dict[tuple[str, str], list[Any]]] = {}
    watermark, first_end, late = 0, 2**62, 0
    while True:
        for payload in (yield late):
            event = orjson.loads(payload)
            at = event["at"]
            start = at - at % size_ms
            if start + size_ms <= watermark:
                late += 1
            else:
                window = open_.get(start)
                if window is None:
                    window = open_[start] = {}
                    if start + size_ms < first_end:
                        first_end = start + size_ms
                key = (event["store"], event["type"])
                amount = event["amount"]
                row = window.get(key)
                if row is None:
                    window[key] = [1, amount, amount]
                else:
                    row[0] += 1
                    row[1] += amount
                    if amount > row[2]:
                        row[2] = amount
            if at - out_of_orderness_ms > watermark:
                watermark = at - out_of_orderness_ms
                if watermark >= first_end:
                    for start in [start for start in open_ if start + size_ms <= watermark]:
                        for (store, type_), (n, total, highest) in open_.pop(start).items():
                            closed[store, type_, start] = (n, total, highest, total / n)
                    first_end = 2**62
                    for start in open_:
                        if start + size_ms < first_end:
                            first_end = start + size_ms
