"""Codecs by name: one file a format, found by its place in this folder."""

from __future__ import annotations

from functools import cache

from processor import plugins
from processor.codecs.base import Codec


@cache
def load() -> dict[str, type[Codec]]:
    """Classes of codecs by kind, sorted; the folder is read once."""
    return plugins.discover(__name__, __path__)


def get(kind: str) -> type[Codec]:
    """The codec's class of that kind; KeyError for a kind that `kinds` does not name."""
    return load()[kind]


def kinds() -> tuple[str, ...]:
    """What a pipeline file may name, sorted."""
    return tuple(load())
