"""`last`: the field's value in the latest record by event time; of equal times the last."""

from __future__ import annotations

from typing import ClassVar

from processor.aggregators._at_time import AtTime


class Last(AtTime):
    kind: ClassVar[str] = "last"
    sign: ClassVar[int] = -1
