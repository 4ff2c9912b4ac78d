"""`first`: the field's value in the earliest record by event time; of equal times the first."""

from __future__ import annotations

from typing import ClassVar

from processor.aggregators._at_time import AtTime


class First(AtTime):
    kind: ClassVar[str] = "first"
    sign: ClassVar[int] = 1
