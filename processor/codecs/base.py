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


class Decoded(NamedTuple):
    """n rows, and what is wrong with those payloads that gave none (their rows are None)."""

    rows: list[Any]
    faults: dict[int, Fault]


class Codec(Protocol):
    """The last step of a chain: payloads to rows of the pipeline's own Struct type."""

    kind: ClassVar[str]

    def __init__(self, row_type: Any) -> None: ...

    def decode(self, payloads: Sequence[bytes]) -> Decoded: ...
