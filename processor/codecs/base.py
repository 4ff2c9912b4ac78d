"""What a codec is: bytes in, bytes or events out; chained as the pipeline file's `decode` says.

A bad payload is a value (`Fault`), never an exception that ends the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol


class Fault(NamedTuple):
    """Why one payload can't be decoded."""

    reason: str
    detail: str


class Codec(Protocol):
    """The last step of a chain: payloads to rows of the pipeline's own Struct type."""

    kind: ClassVar[str]

    def decode(self, payloads: Sequence[bytes]) -> list[Any]:
        """One row or one `Fault` a payload, in order."""
