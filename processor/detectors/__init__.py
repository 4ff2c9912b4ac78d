"""Detectors by name: one file a detector, found by its place in this folder."""

from __future__ import annotations

from functools import cache

from processor import plugins
from processor.detectors.base import Detector


@cache
def load() -> dict[str, Detector]:
    """Detectors by kind, sorted; the folder is read once."""
    return {kind: plugin() for kind, plugin in plugins.discover(__name__, __path__).items()}


def get(kind: str) -> Detector:
    """The detector of that kind; KeyError for a kind that `kinds` does not name."""
    return load()[kind]


def kinds() -> tuple[str, ...]:
    """What a pipeline file may name, sorted."""
    return tuple(load())
