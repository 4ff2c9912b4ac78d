"""Reads one detector of a rule: `{KIND: aggregate, option: value, name: …}`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from processor import detectors
from processor.config.document import plain
from processor.config.options import read_options
from processor.config.section import Faults
from processor.model import DetectSpec
from processor.wording import describe, did_you_mean, is_name, one_of


def read_detect(
    tree: Any, path: str, aggregates: Collection[str], faults: Faults
) -> DetectSpec | None:
    if not isinstance(tree, dict) or not tree:
        faults.add(path, describe(plain(tree)), "a detector, such as {novelty: orders}")
        return None
    before = len(faults)
    kind = _kind(tree, path, faults)
    if kind is None:
        return None
    figures = _figures(kind, plain(tree[kind]), f"{path}.{kind}", aggregates, faults)
    name = plain(tree.get("name", kind))
    if not isinstance(name, str) or not is_name(name):
        expected = "a name: letters, digits, _ . - and at most 64 of them"
        faults.add(f"{path}.name", describe(name), expected)
    given = {key: value for key, value in tree.items() if key not in (kind, "name")}
    options = read_options(kind, detectors.get(kind).params, given, path, faults)
    if len(faults) > before:
        return None
    return DetectSpec(name, kind, figures[0], options, tuple(figures[1:]))


def _figures(
    kind: str, tree: Any, path: str, aggregates: Collection[str], faults: Faults
) -> list[str]:
    """One aggregate, or of a detector that looks at several, a list of them."""
    most: int = getattr(detectors.get(kind), "figures_max", 1)
    figures = tree if isinstance(tree, list) and most > 1 else [tree]
    if not 1 <= len(figures) <= most:
        faults.add(path, f"{len(figures)} aggregates", f"from 1 to {most}")
    for figure in figures:
        if figure not in aggregates:
            near = did_you_mean(str(figure), aggregates)
            known = f": {one_of(aggregates)}{near}" if aggregates else ""
            faults.add(path, describe(figure), f"an aggregate of this rule{known}")
        elif figures.count(figure) > 1:
            faults.add(path, f"{figure} twice", "each aggregate once")
            break
    return figures


def _kind(tree: dict[str, Any], path: str, faults: Faults) -> str | None:
    """The first key that is a detector's: an option may have the name of another detector."""
    kinds = detectors.kinds()
    for key in tree:
        if key in kinds:
            return key
    first = next(iter(tree))
    faults.add(f"{path}.{first}", "no detector", one_of(kinds) + did_you_mean(first, kinds))
    return None
