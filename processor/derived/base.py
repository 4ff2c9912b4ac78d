"""What a derived figure is: a function of other figures of the same window, without memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from processor.aggregators.base import Params
from processor.model import Floats, Ints


class Derived(Protocol):
    """One way to make a figure of others. Registered by name in `processor.derived`."""

    kind: ClassVar[str]
    params: ClassVar[type[Params]]
    of: ClassVar[tuple[str, ...]]  # what each figure is to it, for messages

    def result(self, params: Any, figures: Sequence[Floats], lengths_ms: Ints) -> Floats:
        """float64[n]: one figure a window, NaN where it is not defined.

        `figures`: float64[n] for each of `of`, NaN where that is not defined. `lengths_ms`:
        int64[n], how long each window is; 0 where it has no length.
        """
