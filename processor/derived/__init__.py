"""Derived figures by name: one file each, found by its place in this folder."""

from __future__ import annotations

from functools import cache

from processor import plugins
from processor.derived.base import Derived


@cache
def load() -> dict[str, Derived]:
    """Derived figures by kind, sorted; the folder is read once."""
    return {kind: plugin() for kind, plugin in plugins.discover(__name__, __path__).items()}


def get(kind: str) -> Derived:
    """The derived figure of that kind; KeyError for a kind that `kinds` does not name."""
    return load()[kind]


def kinds() -> tuple[str, ...]:
    """What a pipeline file may name, sorted."""
    return tuple(load())
