"""All lines of all files of a recording, lazily and in the order given.

A bad line is counted, told with its file and line, and left out; so is the rest of a damaged file,
from the megabyte on that the damage is in.
Memory holds a few megabytes, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from msgspec import Struct

from processor.codecs.base import Fault
from processor.history import sources
from processor.history.lines import Reader, Recorded
from processor.history.sources import DAMAGED, Piece
from processor.model import EventSpec

BAD_MAX = 20  # bad lines that are kept to be shown; all are counted


class Bad(Struct, frozen=True):
    """What could not be read; `line` counts from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class Recording:
    """Records of files; each iteration reads them anew, and counts from nothing.

    `records`, `bad_lines` and `read_bytes` (of the files behind us, as they are stored) are those
    of the present iteration; `bad`: the first `BAD_MAX` of the lines that could not be read.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        event: EventSpec,
        *,
        now_ms: int | None = None,
        on_bad: Callable[[Bad], None] | None = None,
    ) -> None:
        self.pieces = pieces
        self._event, self._now_ms, self._on_bad = event, now_ms, on_bad
        self._begin()

    def __repr__(self) -> str:
        return f"<Recording of {len(self.pieces)} files, {self.records} records so far>"

    def _begin(self) -> None:
        self.records = self.bad_lines = self.read_bytes = 0
        self.bad: list[Bad] = []

    def __iter__(self) -> Iterator[Recorded]:
        self._begin()
        reader = Reader(self._event, self._now_ms)
        with ExitStack() as stack:
            for piece in self.pieces:
                yield from self._read(piece, reader, stack)
                self.read_bytes += piece.size

    def _read(self, piece: Piece, reader: Reader, stack: ExitStack) -> Iterator[Recorded]:
        number = 0
        try:
            for number, line in enumerate(sources.lines(piece, stack), 1):
                found = _TOO_LONG if line is None else reader.read(line) if line.strip() else None
                if isinstance(found, Recorded):
                    self.records += 1
                    yield found
                elif found is not None:
                    self._note(Bad(piece.name, number, found.detail))
        except DAMAGED as error:
            what = f"the rest can't be read ({error or type(error).__name__})"
            self._note(Bad(piece.name, number + 1, what))

    def _note(self, bad: Bad) -> None:
        self.bad_lines += 1
        if len(self.bad) < BAD_MAX:
            self.bad.append(bad)
        if self._on_bad is not None:
            self._on_bad(bad)


_TOO_LONG = Fault("too_long", f"longer than {sources.LINE_BYTES_MAX} bytes")


def read(
    paths: Sequence[str],
    event: EventSpec,
    *,
    region: str | None = None,
    now_ms: int | None = None,
    on_bad: Callable[[Bad], None] | None = None,
) -> Recording:
    """The recording that files, globs, folders and `s3://bucket/prefix` make, in this order.

    `event`: how to find a record's partition key and time (the pipeline's own). `region`: of the
    buckets; None for the environment's. `now_ms`: no record arrived later, whatever its event
    says. Raises UsageError where a path leads nowhere, and Unavailable as S3 does. Objects are
    fetched by an event loop of their own: not to be iterated on one.
    """
    pieces: list[Piece] = []
    for path in paths:
        if path.startswith("s3://"):
            from processor.history import s3

            pieces += s3.objects(path, region)
        else:
            pieces += sources.local(path)
    return Recording(pieces, event, now_ms=now_ms, on_bad=on_bad)
