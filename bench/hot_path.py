"""`hot-path`: the engine alone, from payload bytes to closed windows, beside orjson and a dict.

Both sides work in this process, on the same pages, in turn; CPU time is measured, once the tables
know all keys. `ratio` is for the same work on both sides (count, sum, max, mean in windows of ten
seconds by store and type) at pages of 1,000. What the engine does beyond that is measured beside
it, and so is each stage. A worker lets small pages wait for each other, and so does this.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from bench import data, ours, plain, results
from bench.harness import Measure, Options, Report, Table, figure, interleaved, ratios
from bench.stages import REST, STAGES, stopwatch
from processor.core.plan import Plan
from processor.model import Page

NAME = "hot-path"
US = "µs/record"
PLAIN = "orjson + dict"
SAME = "windows"  # as much as the plain way does
WHOLE = "+ novelty"
RECORDS = 60_000
# A record costs ten times as much at pages of 10, and the first 30,000 already close a window.
RECORDS_BY_PAGE = {10: RECORDS // 2, 100: RECORDS, 1_000: RECORDS, 10_000: RECORDS}
RATIO_AT, SMALL = 1_000, 100
QUICK = {SMALL: RECORDS // 2, RATIO_AT: RECORDS // 2}
WARM_UP_PAGE = 10_000
REPEATS = 5

Peer = Callable[[int, int, plain.Results], plain.Loop]
Run = Callable[[], Mapping[str, float]]


class Track(Struct, frozen=True):
    """What a run is fed: pages before the clock starts, and those that count."""

    warm_up: Sequence[Page]
    timed: Sequence[Page]

    @property
    def records(self) -> int:
        return sum(map(len, self.timed))


class Truth(Struct, frozen=True):
    """What the plain way found, warm-up included."""

    closed: plain.Results
    late: int


def run(options: Options, peer: Peer = plain.windows) -> Report:
    """Raises ResultsDiffer unless every timed run of ours yields what the peer yields."""
    by_page = QUICK if options.is_quick else RECORDS_BY_PAGE
    repeats = 1 if options.is_quick else REPEATS
    workload = data.Workload(records=max(by_page.values()), seed=options.seed)
    tracks = _tracks(workload, by_page)
    gc.freeze()  # the collector need not look through the benchmark's own data again and again
    try:
        measures = _measures(interleaved(_runs(tracks, peer), repeats))
    finally:
        gc.unfreeze()
    return Report(
        benchmark=NAME,
        ratio=_ratio(measures, RATIO_AT),
        parameters={"workload": workload, "records_by_page": by_page, "repeats": repeats},
        measures=measures,
        figures={"ratio_at_100": _ratio(measures, SMALL).median},
        tables=[_page_table(measures, tracks), _variant_table(measures)],
    )


def _ratio(measures: Mapping[str, Measure], size: int) -> Measure:
    """Of the same work at the same pages."""
    plain_way, same = measures[_name(PLAIN, size)], measures[_name(SAME, size)]
    return ratios(plain_way.samples, same.samples)


def _tracks(workload: data.Workload, by_page: Mapping[int, int]) -> dict[int, Track]:
    events = data.events(workload)
    warm_up = ours.pages(events[: workload.warm_up], WARM_UP_PAGE)
    timed = events[workload.warm_up :]
    return {
        size: Track(warm_up, ours.pages(timed[:records], size)) for size, records in by_page.items()
    }


def _runs(tracks: Mapping[int, Track], peer: Peer) -> dict[str, Run]:
    """Both sides, the whole and its stages at every size of page; the other variants at one."""
    plans = {name: ours.plan_of(pipeline) for name, pipeline in ours.variants().items()}
    truths = {size: _run_plain(track, peer)[1] for size, track in tracks.items()}
    runs: dict[str, Run] = {}
    for size, track in tracks.items():
        runs[_name(PLAIN, size)] = _plain_run(track, peer)
        for variant, plan in plans.items():
            if size == RATIO_AT or variant in (SAME, WHOLE):
                runs[_name(variant, size)] = _our_run(plan, track, truths[size])
        runs[_name("stages", size)] = _stage_run(plans[WHOLE], track)
    return runs


def _plain_run(track: Track, peer: Peer) -> Run:
    return lambda: {"": _run_plain(track, peer)[0]}


def _run_plain(track: Track, peer: Peer) -> tuple[float, Truth]:
    """What it cost and what it found."""
    closed: plain.Results = {}
    loop = peer(data.WINDOW_MS, data.OUT_OF_ORDERNESS_MS, closed)
    late = next(loop)
    for page in track.warm_up:
        loop.send(page.payloads)
    began_at = time.process_time()
    for page in track.timed:
        late = loop.send(page.payloads)
    return _us_per_record(time.process_time() - began_at, track), Truth(closed, late)


def _our_run(plan: Plan, track: Track, truth: Truth) -> Run:
    def run() -> Mapping[str, float]:
        pipeline = ours.fresh(plan)
        tap = results.Tap(pipeline)
        ours.take(pipeline, track.warm_up)
        began_at = time.process_time()
        ours.take(pipeline, track.timed)
        cost = _us_per_record(time.process_time() - began_at, track)
        results.check(tap.results(), truth.closed, late=(pipeline.totals.late, truth.late))
        return {"": cost}

    return run


def _stage_run(plan: Plan, track: Track) -> Run:
    def run() -> Mapping[str, float]:
        pipeline = ours.fresh(plan)
        ours.take(pipeline, track.warm_up)
        with stopwatch() as watch:
            watch.watching(REST, ours.take)(pipeline, track.timed)
        return {f": {stage}": _us_per_record(took, track) for stage, took in watch.seconds.items()}

    return run


def _us_per_record(seconds: float, track: Track) -> float:
    return seconds * 1e6 / track.records


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
        [
            row(PLAIN, PLAIN),
            row("ours, the same work", SAME),
            row("in all", WHOLE),
            *map(stage_row, STAGES),
        ],
    )


def _variant_table(measures: Mapping[str, Measure]) -> Table:
    names = {variant: _name(variant, RATIO_AT) for variant in (*ours.variants(), PLAIN)}
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
