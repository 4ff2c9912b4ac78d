"""Where the time of a page goes: CPU seconds of each stage of the engine, without what it calls.

The stages are the ring's own functions, wrapped while a `Stopwatch` is open. A call that is watched
costs about 1 µs more: nothing at pages of 1,000, a tenth at pages of 10.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from processor.aggregators.count import Count
from processor.aggregators.max import Max
from processor.aggregators.mean import Mean
from processor.aggregators.sum import Sum
from processor.codecs.json import Json
from processor.core import intake
from processor.core.alarms.scorer import Scorer
from processor.core.dedupe import Dedupe
from processor.core.keys import KeyTable
from processor.core.patterns import Pattern
from processor.core.rules import Rule
from processor.core.windows import Plain, WindowTable

REST = "the rest"  # of what is called through `watching(REST, …)`
# In the order of the way; what a function spends in another of the list counts there only.
STAGES: Mapping[str, tuple[tuple[Any, str], ...]] = {
    "decode JSON": ((Json, "decode"),),
    "columns, checks": (
        (intake, "read"),
        (intake.Batch, "column"),
        (intake.Batch, "numbers"),
        (intake.Batch, "need_keys"),
        (intake.Batch, "need_numbers"),
        (intake, "times_ms"),
    ),
    "hash ids": ((intake, "id_hashes"),),
    "duplicates": ((Dedupe, "duplicates"), (Dedupe, "sweep")),
    "match": ((Pattern, "mask"),),
    "late or not": ((Rule, "late"),),
    "key → index": ((KeyTable, "indices"),),
    "first window of keys": ((Rule, "_admit"),),
    "(key, window) → slot": ((WindowTable, "add"), (Plain, "_add")),
    "count": ((Count, "update"),),
    "sum": ((Sum, "update"),),
    "max": ((Max, "update"),),
    "mean": ((Mean, "update"),),
    "close windows": ((Plain, "close"), (Plain, "due_ends"), (Rule, "_firing")),
    "detectors": ((Scorer, "judge"),),
    REST: (),
}


class Stopwatch:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._inner = [0.0]  # for each call under way: what its watched callees took

    def watching(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        seconds, inner, now = self.seconds, self._inner, time.thread_time

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            began_at = now()
            try:
                return function(*args, **kwargs)
            finally:
                took = now() - began_at
                seconds[stage] += took - inner.pop()
                inner[-1] += took

        return watched


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Watches every stage inside the block."""
    watch, restore = Stopwatch(), []
    try:
        for stage, places in STAGES.items():
            for owner, name in places:
                function = getattr(owner, name)
                restore.append((owner, name, function))
                setattr(owner, name, watch.watching(stage, function))
        yield watch
    finally:
        for owner, name, function in restore:
            setattr(owner, name, function)
