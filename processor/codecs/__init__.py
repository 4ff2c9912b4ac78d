"""Codecs by name: one file a format, found by its place in this folder."""

from __future__ import annotations

from functools import cache
from typing import Any

from processor import plugins
from processor.codecs.base import Codec, Splitter
from processor.wording import one_of


@cache
def load() -> dict[str, Any]:
    """Classes of codecs and splitters by kind, sorted; the folder is read once."""
    return plugins.discover(__name__, __path__)


def get(kind: str) -> type[Codec]:
    """The codec's class of that kind, a chain's last step; KeyError if there is none."""
    found: type[Codec] = load()[kind]
    return found


def splitter(chain: tuple[str, ...]) -> Splitter | None:
    """What takes records apart before a chain's last step decodes them, if anything does."""
    assert chain_fault(chain) is None, chain
    return load()[chain[0]]() if len(chain) > 1 else None


def chain_fault(chain: tuple[str, ...]) -> str | None:
    """What is expected of a chain, if it is not that."""
    splitters = [kind for kind, found in load().items() if hasattr(found, "split")]
    last = [kind for kind in kinds() if kind not in splitters]
    *before, end = chain
    if end in last and len(before) <= 1 and set(before) <= set(splitters):
        return None
    return f"{one_of(last)} at the end, and at most one of {one_of(splitters)} before it"


def kinds() -> tuple[str, ...]:
    """What a pipeline file may name, sorted."""
    return tuple(load())
