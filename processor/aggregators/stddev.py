"""`stddev`: the sample standard deviation (n − 1) of a field: the root of its exact variance."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators.base import State
from processor.aggregators.variance import Variance
from processor.model import Rows


class Stddev(Variance):
    kind: ClassVar[str] = "stddev"

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        roots: npt.NDArray[Any] = np.sqrt(super().result(params, state, slots))
        return roots
