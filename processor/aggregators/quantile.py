"""`quantile`: the value that a share `q` of the field's values do not exceed, within 1 %.

A count for each of 36 buckets a doubling, so that the middle of a bucket is within 0.97 % of all in
it; negative values have buckets of their own, and so has zero (with all below 1e-307). The rank is
exact: it is that of SQL's percentile_disc. A bucket is found by comparing a float's exponent and
fraction with fixed numbers, without a logarithm whose last bit is the processor's business.

After Masson, Rim and Lee, "DDSketch" (VLDB 2019); KLL and REQ sketches are random.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from processor.aggregators.base import CellCount, Inputs, Params, Plain, State
from processor.model import CellSpec, Column, Floats, Ints, Rows

PER_DOUBLING = 36  # off by (2^(1/36) - 1) / (2^(1/36) + 1) = 0.97 % at most; 34 would be over 1 %
_DECIMALS = 6
# Where buckets of [1, 2) begin, and after them 2; by decimal arithmetic, the same everywhere.
_BOUNDS = np.array([float(Decimal(2) ** (Decimal(i) / PER_DOUBLING)) for i in range(37)])
# The value that is off by the same share at both ends of the bucket: the harmonic mean of the ends.
_MIDDLES = 2 * _BOUNDS[:-1] * _BOUNDS[1:] / (_BOUNDS[:-1] + _BOUNDS[1:])
_EXPONENTS = 2048
_ZERO = _EXPONENTS * PER_DOUBLING  # buckets of positive values lie above, those of negative below
_FRACTION = np.int64(2**52 - 1)
_ONE = np.int64(1023 << 52)  # the bits of 1.0


class QuantileParams(Params, frozen=True, kw_only=True):
    tunable: ClassVar[frozenset[str]] = frozenset({"q"})

    q: Annotated[float, Meta(ge=0, le=1, description="The share, such as 0.99.")]

    def __post_init__(self) -> None:
        if round(self.q, _DECIMALS) != self.q:  # so that rank arithmetic stays within 64 bits
            raise ValueError(f"found q: {self.q}; at most {_DECIMALS} decimals")


class Quantile(Plain):
    kind: ClassVar[str] = "quantile"
    params: ClassVar[type[Params]] = QuantileParams

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("n", "<i8"),)

    def cells(self, params: Any) -> tuple[CellSpec, ...]:
        return (CellSpec("buckets", "add"),)

    def cells_a_slot(self, params: Any) -> CellCount:
        # Usual: values over three powers of ten. Most: all floats from 2^-1022 to 2^53.
        return CellCount(10 * PER_DOUBLING, 2 * (53 + 1022) * PER_DOUBLING + 1)

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        np.add.at(state["n"], slots, 1)
        state["buckets"].update(slots, buckets(inputs.numbers), np.ones(len(slots), np.int64))

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]
        places, cells, counts = other["buckets"].of(slots)
        state["buckets"].update(into[places], cells, counts)

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        n = state["n"][slots]
        found = np.full(len(slots), np.nan)
        _, cells, counts = state["buckets"].of(slots)
        before = np.cumsum(n) - n  # values in the slots that stand before
        ranks = before + _ranks(params.q, n)
        at = np.searchsorted(np.cumsum(counts), ranks)
        found[n > 0] = middles(cells[at[n > 0]])
        return found


def _ranks(q: float, n: Ints) -> Ints:
    """Of n values in order, which one it is, counted from 1: the q·n-th, rounded up."""
    share = Fraction(round(q * 10**_DECIMALS), 10**_DECIMALS)
    up = -(-n * share.numerator // share.denominator)
    return np.maximum(up, 1)


def buckets(values: Floats) -> Ints:
    """Each value's bucket, ascending with the values: int64[n]."""
    sizes = np.abs(values)
    bits = sizes.view(np.int64)
    exponents = bits >> 52
    fractions = ((bits & _FRACTION) | _ONE).view(np.float64)
    within = np.searchsorted(_BOUNDS, fractions, side="right") - 1
    distance = np.where(exponents > 0, exponents * PER_DOUBLING + within, 0)
    return _ZERO + np.where(values < 0, -distance, distance)


def middles(cells: Ints) -> Floats:
    """The value that stands for each bucket."""
    distance = np.abs(cells - _ZERO)
    exponents, within = np.divmod(distance, PER_DOUBLING)
    sizes = np.ldexp(_MIDDLES[within], (exponents - 1023).astype(np.int32))
    return np.where(distance == 0, 0.0, np.copysign(sizes, (cells - _ZERO).astype(np.float64)))
