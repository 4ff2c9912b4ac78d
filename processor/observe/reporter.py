"""What adapters and loops report, turned into metrics, totals and log lines."""

from __future__ import annotations

from msgspec import Struct


class Totals(Struct):
    """What this process did since it began, for `/status`."""

    records: int = 0
    payload_bytes: int = 0
    counted: int = 0
    duplicates: int = 0
    late: int = 0
    unmatched: int = 0
    rejects: int = 0
    events_published: int = 0
    dead_letters: int = 0
