"""What a detector gets to see of a window: missing ones filled, values clamped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from processor.detectors.base import Params, Wave
from processor.model import Bools, DetectSpec, Floats

# What `missing` makes of a window without records; None: what the aggregate says of nothing.
_FILL = {"default": None, "zero": 0.0, "skip": np.nan, "breach": np.nan}


def prepared(
    params: Params,
    spec: DetectSpec,
    empties: Mapping[str, float],
    wave: Wave,
    values: Mapping[str, Floats],
) -> Wave:
    """The wave with its figures as the options want them; `empties`: by aggregate, the value of a
    window without records, NaN for none."""
    is_missing = wave.counts == 0
    columns = []
    for name in (spec.aggregate, *spec.others):
        fill = _FILL[params.missing]
        filled = np.where(is_missing, empties[name] if fill is None else fill, values[name])
        columns.append(filled)
    first, *others = columns
    if params.clamp_min is not None or params.clamp_max is not None:
        first = np.clip(first, params.clamp_min, params.clamp_max)
    return Wave(
        wave.start_ms, wave.end_ms, wave.local_ms, first, wave.counts, tuple(others), spec.others
    )


def breaches(params: Params, wave: Wave) -> Bools:
    """bool[n]: which windows count as beyond because nothing came."""
    if params.missing != "breach":
        return np.zeros(len(wave.counts), dtype=np.bool_)
    missing: Bools = wave.counts == 0
    return missing
