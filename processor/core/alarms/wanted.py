"""Which differences are asked for: direction, least difference, and values that never count."""

from __future__ import annotations

import numpy as np

from processor.detectors.base import Params, Verdict
from processor.model import Bools, Floats, Rows


def wanted(params: Params, verdict: Verdict, values: Floats, at: Rows) -> Bools:
    """bool[len(at)]: of these places of a wave, whose windows the options want to hear of."""
    value = values[at]
    away = difference(verdict, values, at)
    counts = np.ones(len(at), dtype=np.bool_)
    if params.direction == "above":
        counts &= away > 0
    if params.direction == "below":
        counts &= away < 0
    if params.min_delta:
        counts &= np.abs(away) >= params.min_delta
    if params.min_delta_relative:
        counts &= np.abs(away) >= params.min_delta_relative * np.abs(value - away)
    if params.only_above is not None or params.only_below is not None:
        above = np.inf if params.only_above is None else params.only_above
        below = -np.inf if params.only_below is None else params.only_below
        counts &= (value > above) | (value < below)
    return counts


def difference(verdict: Verdict, values: Floats, at: Rows) -> Floats:
    """Signed, from the expected value; where there is none, from the bound that the value is
    beyond. NaN where there is neither."""
    value, expected = values[at], verdict.expected[at]
    lower, upper = verdict.lower[at], verdict.upper[at]
    bound = np.where(value > upper, upper, lower)
    away: Floats = value - np.where(np.isnan(expected), bound, expected)
    return away
