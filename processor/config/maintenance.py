"""Reads and shows when a rule's detectors are off: `[{from: …, to: …}, {every: …, for: …}]`."""

from __future__ import annotations

from typing import Any

from processor.config import shape
from processor.config.document import plain
from processor.config.lints import span_of
from processor.config.section import Faults, read_section, shown
from processor.config.values import show_duration
from processor.core.alarms.maintenance import period_ms
from processor.model import MaintenanceSpec, RuleSpec
from processor.wording import describe

ONCE_MS_MAX = 31 * shape.DAY_MS  # each window in it is passed one by one, also without records


def read_maintenance(tree: Any, path: str, faults: Faults) -> tuple[MaintenanceSpec, ...]:
    if plain(tree) is None:
        return ()
    if not isinstance(tree, list):
        expected = 'a list, such as [{every: "sun 02:00", for: 3h}]'
        faults.add(path, describe(plain(tree)), expected)
        return ()
    read = [_read(each, f"{path}[{i}]", faults) for i, each in enumerate(tree)]
    return tuple(spec for spec in read if spec is not None)


def _read(tree: Any, path: str, faults: Faults) -> MaintenanceSpec | None:
    before = len(faults)
    recurs = isinstance(tree, dict) and "every" in tree
    keys = shape.MAINTENANCE["every" if recurs else "from"]
    given = read_section(tree, path, keys, faults)
    if len(faults) > before:
        return None
    spec = MaintenanceSpec(**given)
    if recurs and spec.for_ms >= period_ms(spec):
        expected = f"less than {show_duration(period_ms(spec))}, or it would never be over"
        faults.add(f"{path}.for", show_duration(spec.for_ms), expected)
    if not recurs and not 0 < spec.to_ms - spec.from_ms <= ONCE_MS_MAX:
        expected = f"a time after `from`, by at most {show_duration(ONCE_MS_MAX)}"
        faults.add(f"{path}.to", describe(plain(tree["to"])), expected)
    return spec


def check(rule: RuleSpec, faults: Faults) -> None:
    """Windows so long that none lies between two periods would never be judged."""
    span_ms = span_of(rule.window)
    for i, spec in enumerate(rule.maintenance):
        free_ms = period_ms(spec) - spec.for_ms
        if span_ms is not None and period_ms(spec) and span_ms > free_ms:
            found = f"{spec.every} for {show_duration(spec.for_ms)}"
            expected = (
                f"at least {show_duration(span_ms)} between two, which is how long a window is:"
                " each would overlap one, and the detectors never see any"
            )
            faults.add(f"rules.{rule.name}.maintenance[{i}]", found, expected)


def shown_maintenance(rule: RuleSpec) -> dict[str, Any]:
    """As its part of the rule in the file; nothing where there is none."""
    if not rule.maintenance:
        return {}
    keys = [shape.MAINTENANCE["from" if s.every is None else "every"] for s in rule.maintenance]
    return {"maintenance": [shown(s, k) for s, k in zip(rule.maintenance, keys, strict=True)]}


def in_words(spec: MaintenanceSpec) -> str:
    if spec.every is not None:
        return f"{spec.every} for {show_duration(spec.for_ms)}"
    given = shown(spec, shape.MAINTENANCE["from"])
    return f"from {given['from']} to {given['to']}"
