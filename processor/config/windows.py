"""Reads and shows a rule's windows, how long they take late records, and when they are told."""

from __future__ import annotations

from math import gcd
from typing import Any

import msgspec

from processor import detectors
from processor.config import shape
from processor.config.aggregates import read_where
from processor.config.document import plain
from processor.config.lints import period_of
from processor.config.section import Faults, is_mapping, read_section, shown
from processor.config.values import show_duration
from processor.core import patterns
from processor.model import PanesSpec, RuleSpec, WindowSpec
from processor.wording import describe, did_you_mean, one_of

# Each is a merge of a window's units at its end, or a window that a record counts in.
UNITS_MAX = 1_000
LATE_COUNT = 1  # where late records may come, each is told unless the file says otherwise


def read_window(tree: Any, path: str, faults: Faults) -> WindowSpec | None:
    kinds = list(shape.WINDOWS)
    expected = f"a kind of window: {one_of(kinds)}"
    if not isinstance(tree, dict) or not tree:
        faults.add(path, describe(plain(tree)), expected)
        return None
    if not any(kind in tree for kind in kinds):
        first = next(iter(tree))
        found = "an unknown key"
        faults.add(f"{path}.{first}", found, expected + did_you_mean(first, kinds))
        return None
    before = len(faults)
    kind = next(kind for kind in kinds if kind in tree)
    spec = read_section(tree, path, shape.WINDOWS[kind], faults)
    if len(faults) > before:
        return None
    window = WindowSpec(kind=kind, **spec)  # type: ignore[arg-type]
    _check_offset(window, path, faults)
    if kind == "hopping":
        _check_hopping(window, path, faults)
    return window


def _check_offset(window: WindowSpec, path: str, faults: Faults) -> None:
    most = {
        "tumbling": (window.size_ms, "the window's size"),
        "hopping": (window.every_ms, "every"),
        "calendar": (shape.DAY_MS, "a day"),
    }.get(window.kind)
    if most is not None and window.offset_ms >= most[0]:
        expected = f"less than {most[1]}, {show_duration(most[0])}"
        faults.add(f"{path}.offset", show_duration(window.offset_ms), expected)


def _check_hopping(window: WindowSpec, path: str, faults: Faults) -> None:
    size, every = show_duration(window.size_ms), show_duration(window.every_ms)
    if window.every_ms > window.size_ms:
        expected = f"at most the window's size, {size}: records between two would count nowhere"
        faults.add(f"{path}.every", every, expected)
        return
    unit_ms = gcd(window.size_ms, window.every_ms)
    if window.size_ms > UNITS_MAX * unit_ms:
        found = f"{every}, which makes {window.size_ms // unit_ms:,} units of a window of {size}"
        expected = (
            f"at most {UNITS_MAX:,}, each as long as the greatest common divisor of both"
            f" ({show_duration(unit_ms)})"
        )
        faults.add(f"{path}.every", found, expected)


# ---- panes ----------------------------------------------------------------------------------


def read_panes(tree: Any, lateness_ms: int, path: str, faults: Faults) -> PanesSpec:
    late_count = LATE_COUNT if lateness_ms else None
    if tree is None:
        return PanesSpec(late_count=late_count)
    own = read_section(tree, path, shape.PANES, faults, ("early", "late"))
    if not isinstance(tree, dict):
        return PanesSpec()
    own |= _read_early(tree.get("early"), f"{path}.early", faults)
    own["late_count"] = _read_late(tree.get("late"), lateness_ms, f"{path}.late", faults)
    return PanesSpec(**own)


def _read_early(tree: Any, path: str, faults: Faults) -> dict[str, Any]:
    if tree is None:
        return {}
    own = read_section(tree, path, shape.EARLY, faults, ("when",))
    if isinstance(tree, dict) and plain(tree.get("when")) is not None:
        own["early_when"] = read_where(tree["when"], f"{path}.when", faults)
    elif not own:
        faults.add(path, describe(plain(tree)), "at least one of every, count and when")
    return own


def _read_late(tree: Any, lateness_ms: int, path: str, faults: Faults) -> int | None:
    given = plain(tree)
    if given is None:
        return LATE_COUNT if lateness_ms else None
    if given == "none":
        return None
    if not lateness_ms:
        faults.add(path, describe(given), "none, or a lateness: without it no record comes late")
        return None
    if not is_mapping(tree, path, [key.name for key in shape.LATE], faults):
        return None
    count: int | None = read_section(tree, path, shape.LATE, faults).get("late_count")
    return count


# ---- together -------------------------------------------------------------------------------


def check(rule: RuleSpec, faults: Faults) -> None:
    """What only shows when windows, panes, figures and detectors are seen together."""
    path, kind, panes = f"rules.{rule.name}", rule.window.kind, rule.panes
    is_early = _is_early(panes)
    if rule.detect and kind in ("session", "running"):
        expected = f"none: detectors compare windows of one length, and a {kind} window has any"
        faults.add(f"{path}.detect", f"detectors on {kind} windows", expected)
    if rule.detect and panes.is_discarding and is_early:
        expected = "none: detectors see the pane on time, which tells only what early ones did not"
        faults.add(f"{path}.detect", "detectors on panes that discard", expected)
    if kind == "running" and not is_early:
        expected = "every, count or when: a running window does not end while records come"
        faults.add(f"{path}.panes.early", "nothing", expected)
    if panes.is_discarding and not is_early and panes.late_count is None:
        expected = "early or late panes: a window told once has nothing to discard"
        faults.add(f"{path}.panes.discarding", "true", expected)
    _check_lengths(rule, path, faults)
    _check_every(rule, f"{path}.panes.early.every", faults)
    _check_when(rule, f"{path}.panes.early.when", faults)


def _check_lengths(rule: RuleSpec, path: str, faults: Faults) -> None:
    """Of detectors that compare a window with one that began some time before."""
    every_ms = period_of(rule.window)
    for i, detect in enumerate(rule.detect):
        detector = detectors.get(detect.kind)
        window_fault = getattr(detector, "window_fault", None)
        if window_fault is None or not every_ms:
            continue
        expected = window_fault(msgspec.convert(dict(detect.options), detector.params), every_ms)
        if expected is not None:
            found = f"windows every {show_duration(every_ms)}"
            faults.add(f"{path}.detect[{i}].{detect.kind}", found, expected)


def _is_early(panes: PanesSpec) -> bool:
    return any(each is not None for each in (panes.early_every_ms, panes.early_count)) or bool(
        panes.early_when
    )


def _check_every(rule: RuleSpec, path: str, faults: Faults) -> None:
    every_ms, size_ms = rule.panes.early_every_ms, rule.window.size_ms
    if every_ms is not None and size_ms and every_ms >= size_ms:
        expected = f"less than the window's size, {show_duration(size_ms)}"
        faults.add(path, show_duration(every_ms), expected)


def _check_when(rule: RuleSpec, path: str, faults: Faults) -> None:
    """It speaks of figures."""
    if rule.panes.early_when is None:
        return
    names = [figure.name for figure in rule.aggregates]
    for field in patterns.compile(rule.panes.early_when, path).fields:
        if field not in names:
            expected = f"a figure of the rule: {one_of(names)}{did_you_mean(field, names)}"
            faults.add(f"{path}.{field}", f"no figure {field}", expected)


# ---- the inverse ----------------------------------------------------------------------------


def shown_window(window: WindowSpec) -> dict[str, Any]:
    return shown(window, shape.WINDOWS[window.kind])


def shown_panes(rule: RuleSpec) -> dict[str, Any]:
    """Nothing where they are as they would be without being asked for."""
    panes = rule.panes
    tree: dict[str, Any] = {}
    early = shown(panes, shape.EARLY)
    if panes.early_when is not None:
        early["when"] = panes.early_when
    if early:
        tree["early"] = early
    if rule.lateness_ms:
        tree["late"] = "none" if panes.late_count is None else shown(panes, shape.LATE)
    if tree:
        tree |= shown(panes, shape.PANES)
    return {"panes": tree} if tree else {}
