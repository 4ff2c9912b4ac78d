"""`rate`: a figure per time, over the length of its window; a calendar day may have 23 hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from processor.aggregators.base import Params
from processor.model import Floats, Ints


class RateParams(Params, frozen=True, kw_only=True):
    per_ms: Annotated[int, Meta(ge=1, description="The time that it is told for.")] = 1_000


class Rate:
    kind: ClassVar[str] = "rate"
    params: ClassVar[type[Params]] = RateParams
    of: ClassVar[tuple[str, ...]] = ("figure",)

    def result(self, params: RateParams, figures: Sequence[Floats], lengths_ms: Ints) -> Floats:
        has_length = lengths_ms > 0
        found = figures[0] * params.per_ms / np.where(has_length, lengths_ms, 1)
        return np.where(has_length & np.isfinite(found), found, np.nan)
