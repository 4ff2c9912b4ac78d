"""Severity by score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from processor.detectors.base import SEVERITIES, Params
from processor.model import Floats

Levels = npt.NDArray[np.uint8]


def levels(params: Params, scores: Floats) -> Levels:
    """Places in `SEVERITIES`: the highest whose limit the score reaches.

    Below all limits, and where there is no score, it is the one below the lowest that is named.
    """
    if not isinstance(params.severity, dict):
        return np.full(len(scores), SEVERITIES.index(params.severity), dtype=np.uint8)
    limits = params.severity
    named = [(place, limits[name]) for place, name in enumerate(SEVERITIES) if name in limits]
    found = np.full(len(scores), max(named[0][0] - 1, 0), dtype=np.uint8)
    for place, limit in named:
        found[scores >= limit] = place
    return found
