"""Who read what and when, as the local Kinesis saw it: a JSON line for each page that it gave.

So a takeover or a hand-off can be measured without asking those who take part in it. Callers are
told apart by their access keys; times are the machine's monotonic clock, which all its processes
share.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from pathlib import Path
from typing import TextIO

import msgspec

from processor.local.kinesis_model import Page

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")


class Read(msgspec.Struct, frozen=True):
    """One page: how much it held, and whether it was the shard's last."""

    at_s: float
    caller: str
    shard_id: str
    records: int
    first: str  # sequence numbers of the first and the last record; empty without records
    last: str
    is_end: bool


class Journal:
    """Writes lines as they come; as long as the file, so keep it for runs that end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def note(self, authorization: str, page: Page) -> None:
        """A page is on its way to whoever signed so."""
        found = _CREDENTIAL.search(authorization)
        caller = found.group(1) if found else ""
        n, shard = len(page.fragments), page.shard
        first, last = (
            (str(shard.sequence_number(i)) for i in (page.next_index - n, page.next_index - 1))
            if n
            else ("", "")
        )
        is_end = page.next_iterator is None
        read = Read(time.monotonic(), caller, shard.shard_id, n, first, last, is_end)
        self._file.write(msgspec.json.encode(read).decode() + "\n")


class Reads:
    """A journal that may still be written to; `all` are the pages so far."""

    def __init__(self, path: Path) -> None:
        self.all: list[Read] = []
        self._path, self._offset = path, 0

    def update(self) -> list[Read]:
        """Read on to the end of the last whole line; all pages."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.all += map(_reads.decode, whole.splitlines())
        return self.all

    def since(self, at_s: float) -> list[Read]:
        """Those of the pages so far that were given from then on."""
        return self.all[bisect_left(self.all, at_s, key=lambda read: read.at_s) :]


_reads = msgspec.json.Decoder(Read)
