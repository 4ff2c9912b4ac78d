"""Runs one case of the oracle's through a rule as production runs it: `run(spec, ops) -> panes`.

One key. An op of records is a place of a page, judged once; an op of a watermark is a mark. What a
pane holds is told by its figures: one count for each time that occurs in the case, with a filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from processor.core.figures import Readings
from processor.core.plan import compile
from processor.core.rules import Firing, Records, Rule
from processor.core.versions import filter_id
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    EventSpec,
    Ints,
    PanesSpec,
    Pipeline,
    RuleSpec,
    Shard,
    SinkSpec,
    SourceSpec,
    StateSpec,
    WindowSpec,
)

SECOND_MS = 1_000
BEFORE_ALL_MS = -(2**62)
Pane = list[Any]  # start, end, sorted event times, timing, index


def run(spec: Mapping[str, Any], ops: Sequence[Mapping[str, Any]]) -> list[list[Pane]]:
    """For each op the panes that it makes a rule tell, sorted; all times in seconds."""
    times = sorted({time for op in ops for time in op.get("in", ())})
    rule = _rule(spec, times)
    watermark_ms = BEFORE_ALL_MS
    told: Counter[tuple[int, int]] = Counter()
    out = []
    for op in ops:
        if "in" in op:
            held = np.array(op["in"], dtype=np.int64) * SECOND_MS
            held = held[~rule.late(held, np.full(len(held), watermark_ms))]
            records = _records(held, times, watermark_ms)
            firings = rule.take(records, np.array([watermark_ms]), watermark_ms)
        else:
            watermark_ms = max(watermark_ms, op["wm"] * SECOND_MS)
            firings = rule.take(None, np.zeros(0, dtype=np.int64), watermark_ms)
        panes = []
        for start, end, held, timing in _told(firings, times):
            panes.append([start, end, held, timing, told[start, end]])
            told[start, end] += 1
        out.append(sorted(panes))
    return out


def _told(firings: Iterator[Firing], times: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """(start, end, event times, timing) of what is told, but for the last word, which is ours."""
    for firing in firings:
        for output in firing.outputs:
            detail = orjson.loads(output.event.detail)  # type: ignore[union-attr]
            timing = detail["pane"].split(":")[0]
            if timing != "final":
                window, values = detail["window"], detail["values"]
                held = [time for time in times for _ in range(values[f"at{time}"])]
                assert len(held) == detail["count"]
                yield window["start"] // SECOND_MS, window["end"] // SECOND_MS, held, timing


def _rule(spec: Mapping[str, Any], times: Sequence[int]) -> Rule:
    panes = PanesSpec(
        early_count=spec["early_count"],
        late_count=spec["late_count"],
        is_discarding=spec["mode"] == "discarding",
        emit_empty=True,
    )
    rule = RuleSpec(
        name="oracle",
        where={},
        group_by=("key",),
        window=_window(spec["window"]),
        aggregates=tuple(AggregateSpec(f"at{t}", "count", where=_at(t)) for t in times)
        or (AggregateSpec("n", "count"),),
        emit_windows="panes",
        lateness_ms=spec["lateness"] * SECOND_MS,
        panes=panes,
    )
    pipeline = Pipeline(
        "oracle",
        SourceSpec("oracle"),
        EventSpec(time="time", partition_key="key"),
        {"panes": SinkSpec("panes", "stdout", "json")},
        (rule,),
        StateSpec("oracle"),
        DeadLetterSpec("oracle"),
    )
    return Rule(compile(pipeline).rules[0], "oracle", "", Shard("shard"))


def _window(window: Mapping[str, Any]) -> WindowSpec:
    of = {name: value * SECOND_MS for name, value in window.items() if name != "kind"}
    match window["kind"]:
        case "tumbling":
            return WindowSpec(of["size"], of.get("offset", 0))
        case "hopping":
            return WindowSpec(of["size"], of.get("offset", 0), "hopping", every_ms=of["slide"])
        case "session":
            return WindowSpec(kind="session", gap_ms=of["gap"])
        case kind:
            raise ValueError(f"a window of kind {kind}: expected tumbling, hopping or session")


def _at(time: int) -> dict[str, Any]:
    return {"time": [time]}


def _records(held: Ints, times: Sequence[int], watermark_ms: int) -> Records | None:
    n = len(held)
    if not n:
        return None
    masks = {filter_id(_at(time)): held == time * SECOND_MS for time in times}
    return Records(
        keys=[["k"] * n],
        partition_keys=["k"] * n,
        times=held,
        readings=Readings(held, masks=masks),
        at=np.zeros(n, dtype=np.intp),
        judged=np.full(n, watermark_ms),
        sample_of=None,
    )
