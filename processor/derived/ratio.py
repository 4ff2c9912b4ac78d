"""`ratio`: one figure over another; not defined where the other is 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from processor.aggregators.base import Params
from processor.model import Floats, Ints


class Ratio:
    kind: ClassVar[str] = "ratio"
    params: ClassVar[type[Params]] = Params
    of: ClassVar[tuple[str, ...]] = ("numerator", "denominator")

    def result(self, params: Any, figures: Sequence[Floats], lengths_ms: Ints) -> Floats:
        numerator, denominator = figures
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = numerator / denominator
        return np.where(np.isfinite(found), found, np.nan)
