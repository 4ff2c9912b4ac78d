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
    aggregate = plain(tree[kind])
    if aggregate not in aggregates:
        near = did_you_mean(str(aggregate), aggregates)
        expected = f"an aggregate of this rule: {one_of(aggregates)}{near}" if aggregates else ""
        faults.add(f"{path}.{kind}", describe(aggregate), expected or "an aggregate of this rule")
    name = plain(tree.get("name", kind))
    if not isinstance(name, str) or not is_name(name):
        expected = "a name: letters, digits, _ . - and at most 64 of them"
        faults.add(f"{path}.name", describe(name), expected)
    given = {key: value for key, value in tree.items() if key not in (kind, "name")}
    options = read_options(kind, detectors.get(kind).params, given, path, faults)
    return DetectSpec(name, kind, aggregate, options) if len(faults) == before else None


def _kind(tree: dict[str, Any], path: str, faults: Faults) -> str | None:
    """The first key that is a detector's: an option may have the name of another detector."""
    kinds = detectors.kinds()
    for key in tree:
        if key in kinds:
            return key
    first = next(iter(tree))
    faults.add(f"{path}.{first}", "no detector", one_of(kinds) + did_you_mean(first, kinds))
    return None
