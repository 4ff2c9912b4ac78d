"""`hot-path`: the engine alone, from payload bytes to closed windows, beside orjson and a dict.

Both sides work in this process, on the same pages, in turn; CPU time is measured. `ratio` is for
the same work on both sides (count, sum, max, mean in windows of ten seconds by store and type) at
pages of 1,000. What the engine does beyond that is measured beside it, and so is each stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from bench import data, ours, plain, results
from bench.harness import Measure, Options, Report, Table, figure, interleaved, ratios
from bench.stages import STAGES, stopwatch
from processor.core.plan import Plan
from processor.model import Page

NAME = "hot-path"
US = "µs/record"
PLAIN = "orjson + dict"
WHOLE = "+ novelty"
RECORDS = 60_000
# At pages of 10 a record costs some ten times as much, so fewer will do: two windows still close.
RECORDS_BY_PAGE = {10: RECORDS // 5, 100: RECORDS, 1_000: RECORDS, 10_000: RECORDS}
QUICK = {1_000: 6_000}
RATIO_AT = 1_000
REPEATS = 5

Peer = Callable[[int, int, plain.Results], plain.Loop]
Run = Callable[[], Mapping[str, float]]


class Truth(Struct, frozen=True):
    """What the plain way found."""

    closed: plain.Results
    late: int


def run(options: Options, peer: Peer = plain.windows) -> Report:
    """Raises ResultsDiffer unless every timed run of ours yields what the peer yields."""
    by_page = QUICK if options.is_quick else RECORDS_BY_PAGE
    repeats = 1 if options.is_quick else REPEATS
    workload = data.Workload(records=max(by_page.values()), seed=options.seed)
    events = data.events(workload)
    pages = {size: ours.pages(events[:records], size) for size, records in by_page.items()}
    found = interleaved(_runs(pages, peer), repeats)
    measures = _measures(found)
    return Report(
        benchmark=NAME,
        ratio=ratios(measures[PLAIN].samples, measures[_name("windows", RATIO_AT)].samples),
        parameters={"workload": workload, "records_by_page": by_page, "repeats": repeats},
        measures=measures,
        tables=[_page_table(measures, pages), _variant_table(measures)],
    )


def _runs(pages: Mapping[int, Sequence[Page]], peer: Peer) -> dict[str, Run]:
    """Stages and the whole at every size of page; the variants and the plain way at one."""
    plans = {name: ours.plan_of(pipeline) for name, pipeline in ours.variants().items()}
    truths = {size: _truth(cut, peer) for size, cut in pages.items()}
    runs: dict[str, Run] = {PLAIN: lambda: {"": _run_plain(pages[RATIO_AT], peer)[0]}}
    for variant, plan in plans.items():
        runs[_name(variant, RATIO_AT)] = _our_run(plan, pages[RATIO_AT], truths[RATIO_AT])
    for size, cut in pages.items():
        runs[_name(WHOLE, size)] = _our_run(plans[WHOLE], cut, truths[size])
        runs[_name("stages", size)] = _stage_run(plans[WHOLE], cut)
    return runs


def _truth(pages: Sequence[Page], peer: Peer) -> Truth:
    _, closed, late = _run_plain(pages, peer)
    return Truth(closed, late)


def _run_plain(pages: Sequence[Page], peer: Peer) -> tuple[float, plain.Results, int]:
    """Its cost, its results, its late records."""
    closed: plain.Results = {}
    began_at = time.process_time()
    loop = peer(data.WINDOW_MS, data.OUT_OF_ORDERNESS_MS, closed)
    late = next(loop)
    for page in pages:
        late = loop.send(page.payloads)
    return _us_per_record(time.process_time() - began_at, pages), closed, late


def _our_run(plan: Plan, pages: Sequence[Page], truth: Truth) -> Run:
    def run() -> Mapping[str, float]:
        pipeline = ours.fresh(plan)
        tap = results.Tap(pipeline)
        began_at = time.process_time()
        for page in pages:
            pipeline.feed(page)
        cost = _us_per_record(time.process_time() - began_at, pages)
        results.check(tap.results(), truth.closed, late=(pipeline.totals.late, truth.late))
        return {"": cost}

    return run


def _stage_run(plan: Plan, pages: Sequence[Page]) -> Run:
    def run() -> Mapping[str, float]:
        with stopwatch() as watch:
            pipeline = ours.fresh(plan)
            for page in pages:
                pipeline.feed(page)
        return {f": {stage}": _us_per_record(took, pages) for stage, took in watch.seconds.items()}

    return run


def _us_per_record(seconds: float, pages: Sequence[Page]) -> float:
    return seconds * 1e6 / sum(map(len, pages))


def _name(variant: str, size: int) -> str:
    return f"{variant}, pages of {size}"


def _measures(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Measure]:
    return {
        f"{name}{part}": Measure(US, tuple(figures[part] for figures in rounds))
        for name, rounds in found.items()
        for part in rounds[0]
    }


# ---- for people ------------------------------------------------------------------------------


def _page_table(measures: Mapping[str, Measure], sizes: Collection[int]) -> Table:
    def row(label: str, stage: str) -> list[str]:
        return [label, *(figure(measures[f"{_name(stage, size)}"].median) for size in sizes)]

    def stage_row(stage: str) -> list[str]:
        names = (f"{_name('stages', size)}: {stage}" for size in sizes)
        return [stage, *(figure(measures[name].median) for name in names)]

    return Table(
        "the whole engine, duplicates and novelty included: µs a record",
        ["pages of", *(f"{size:,}" for size in sizes)],
        [row("in all", WHOLE), *map(stage_row, STAGES)],
    )


def _variant_table(measures: Mapping[str, Measure]) -> Table:
    names = {variant: _name(variant, RATIO_AT) for variant in ours.variants()} | {PLAIN: PLAIN}
    return Table(
        f"at pages of {RATIO_AT:,}",
        ["", "µs/record", "±", "events/s"],
        [
            [
                label,
                figure(measures[name].median),
                f"{measures[name].spread / 2:.0%}",
                figure(1e6 / measures[name].median),
            ]
            for label, name in names.items()
        ],
    )
