"""Order-free sums: exact fixed-point numbers spread over int64 columns ("limbs") with carry.

Float addition rounds, so its result shows the order of the records; a page cut, a shuffle within
the out-of-orderness or a split over workers would change the last bits. Here each float64 is cut
exactly into integers of units 2^-104, 2^-52, 1 and 2^53 (squares: 2^106 too), and integers add in
any order. What a value holds below 2^-104 (about 5e-32) is rounded, value by value, so order still
doesn't show. Limbs are carried after each batch: equal sums have equal columns, byte for byte.

After Demmel and Nguyen, "Fast Reproducible Floating-Point Summation" (2013), with fixed bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from processor.aggregators.base import State
from processor.model import Column, Floats, Ints, Rows

LIMB_BITS = (52, 52, 53, 53)  # of each limb but the last, lowest first
SCALE_BITS = 104  # the lowest limb's unit is 2^-104
# A limb of up to 53 bits takes 512 values of up to 53 bits each before it could pass 2^62.
BATCH_MAX = 512

Pieces = list[Ints]  # one int64[n] a limb, lowest first
_TWO52 = 2.0**52
_TWO53 = 2.0**53
_SPLIT = 2.0**27 + 1  # Veltkamp


def columns(prefix: str, limbs: int) -> tuple[Column, ...]:
    """`limbs` columns: 4 for sums of values up to 2^53, 5 for sums of their squares."""
    return tuple(Column(f"{prefix}{i}", "<i8") for i in range(limbs))


def add_batched(
    limbs: Sequence[npt.NDArray[Any]], slots: Rows, values: Floats, cut: Callable[[Floats], Pieces]
) -> None:
    """Add `cut(values)` to the limbs at `slots` (which may repeat)."""
    for at in range(0, len(slots), BATCH_MAX):
        part = slice(at, at + BATCH_MAX)
        add(limbs, slots[part], cut(values[part]))


def add(limbs: Sequence[npt.NDArray[Any]], slots: Rows, pieces: Pieces) -> None:
    """Add at most BATCH_MAX pieces a limb, then carry."""
    for limb, piece in zip(limbs, pieces, strict=False):
        if piece.any():
            np.add.at(limb, slots, piece)
    for low, high, bits in zip(limbs, limbs[1:], LIMB_BITS, strict=False):
        # Repeated slots write the same result twice, which is harmless.
        value = low[slots]
        carry = value >> bits
        if carry.any():
            low[slots] = value - (carry << bits)
            high[slots] = high[slots] + carry


def cut_values(values: Floats) -> Pieces:
    """Each value of at most 2^53 in size as integers of units 2^-104, 2^-52 and 1."""
    whole = np.trunc(values)  # towards zero: the rest is then exact
    rest = (values - whole) * _TWO52
    middle = np.trunc(rest)
    lowest = np.rint((rest - middle) * _TWO52)
    return [lowest.astype(np.int64), middle.astype(np.int64), whole.astype(np.int64)]


def cut_squares(values: Floats) -> Pieces:
    """Each value's square, exactly: the rounded product and its rounding error (Dekker 1971)."""
    product = values * values
    scaled = values * _SPLIT
    head = scaled - (scaled - values)
    tail = values - head
    error = ((head * head - product) + 2 * head * tail) + tail * tail
    top = np.trunc(product / _TWO53)
    pieces = cut_values(product - top * _TWO53)
    for piece, more in zip(pieces, cut_values(error), strict=True):
        piece += more
    return [*pieces, top.astype(np.int64)]


def totals(limbs: Sequence[npt.NDArray[Any]], slots: Rows) -> list[int]:
    """The exact sums as Python integers in units of 2^-104."""
    result = [0] * len(slots)
    shift = 0
    for limb, bits in zip(limbs, (*LIMB_BITS, 0), strict=False):
        result = [t + (v << shift) for t, v in zip(result, limb[slots].tolist(), strict=True)]
        shift += bits
    return result


def rounded(limbs: Sequence[npt.NDArray[Any]], slots: Rows) -> Floats:
    """The exact sums, rounded once to float64."""
    lowest, middle, whole, top = (limb[slots] for limb in limbs)
    # With 0 or -1 on top and nothing at the bottom, two exact floats remain: one rounding.
    plain = (lowest == 0) & ((top == 0) | (top == -1))
    result: Floats = (whole + (top << 53)).astype(np.float64)
    result += middle.astype(np.float64) / _TWO52
    hard = np.flatnonzero(~plain)
    if len(hard):
        result[hard] = [total / (1 << SCALE_BITS) for total in totals(limbs, slots[hard])]
    return result


def named(state: State, prefix: str, limbs: int) -> list[npt.NDArray[Any]]:
    return [state[f"{prefix}{i}"] for i in range(limbs)]


def merge(state: State, into: Rows, other: State, slots: Rows, *, prefix: str, limbs: int) -> None:
    """Add the sums at `slots` of `other` to those at `into` (each once)."""
    mine, theirs = named(state, prefix, limbs), named(other, prefix, limbs)
    add(mine, into, [limb[slots] for limb in theirs])
