"""The demo's live view in a terminal; the only module that needs `rich`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from processor.local.view import ALARMS_SHOWN, REFRESH_PER_S, Progress, changes_of, when


class LiveView:
    """One table that is drawn anew; what is said scrolls by above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True), refresh_per_second=REFRESH_PER_S)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        self._live.update(Group(*_parts(progress)))

    def say(self, text: str) -> None:
        self._live.console.print(Text(text))


def _parts(progress: Progress) -> Iterator[RenderableType]:
    yield _figures(progress)
    yield _shards(progress)
    if progress.overall:
        yield Text(f"over all shards, in the last ten minutes: {progress.overall}")
    yield _alarms(progress)


def _figures(progress: Progress) -> Table:
    table = Table(title=f"{when(progress.now_ms)} UTC · {progress.elapsed_s:.0f} s", expand=True)
    figures = {
        "sent": f"{progress.sent:,} of {progress.total:,}",
        "throttled": f"{progress.throttled:,}",
        "processed": f"{progress.processed:,}",
        "events received": f"{progress.received:,}",
        "dead letters": f"{progress.letters:,}",
        **{name: str(n) for name, n in changes_of(progress).items()},
    }
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*figures.values())
    return table


def _shards(progress: Progress) -> Table:
    table = Table(expand=True)
    for name in ("shard", "owner", "epoch", "records"):
        table.add_column(name, justify="left" if name in ("shard", "owner") else "right")
    for line in progress.shards:
        table.add_row(line.shard_id, line.worker, str(line.epoch), f"{line.records:,}")
    return table


def _alarms(progress: Progress) -> Text:
    shown = progress.alarms[-ALARMS_SHOWN:]
    return Text("\n".join(shown) if shown else "no alarm yet: the detectors are learning")
