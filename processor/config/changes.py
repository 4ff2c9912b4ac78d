"""What a new pipeline file means for the state that an old one has built up, rule by rule.

    kept        same version: nothing happens to its state
    converted   other results, but the state is as good as before: windows and what was learnt go on
    reset       starts anew: windows that are open at the deploy are partial, detectors learn again
    renamed     the same under another name: state goes by names, so it starts anew
    added       there was none before: it starts, with a partial window
    removed     its state is dropped
    left behind the new file has another application, stream or table, where this rule has no state

Which of them it is, the versions say (`core.versions`); why, the settings that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import orjson
from msgspec import Struct

from processor import detectors
from processor.config.checks import is_global
from processor.config.render import show
from processor.core import versions
from processor.model import Pipeline, RuleSpec

Fate = Literal["kept", "converted", "reset", "renamed", "added", "removed", "left behind"]

NOTHING = "none"
# These lose state that somebody may miss.
LOST: frozenset[Fate] = frozenset({"reset", "renamed", "removed", "left behind"})
MEANS: Mapping[Fate, str] = {
    "kept": "nothing happens to it",
    "converted": "windows and what detectors have learnt go on; event ids carry the new version",
    "reset": "windows open at the deploy will be partial; detectors learn anew",
    "renamed": "state goes by the rule's name: windows open at the deploy will be partial, and"
    " detectors learn anew",
    "added": "windows open at the deploy will be partial",
    "removed": "its open windows and what its detectors have learnt are dropped",
    "left behind": "its windows and what its detectors have learnt stay behind; it starts anew",
}
_UNSEEN: Mapping[str, str] = {
    "emit_windows": "its windows go nowhere from now on",
    "emit_anomalies": "what its detectors find goes nowhere from now on",
}
_IN_TABLE = "it goes on only on shards whose state lies in the table, not as an object"
_TAKE_ALONG = "`processor leases export` and `import` take positions along, without state"
# Whoever changes one of these has other state, or another application.
_ELSEWHERE: Mapping[str, str] = {
    "app": "every event id is new, and the lease table of the old app refuses the new one; "
    + _TAKE_ALONG,
    "source.stream": "another stream has positions and state of its own: reading begins at"
    " source.start, and positions can't be taken along",
    "state.table": "positions and state stay in the old table: reading begins at source.start; "
    + _TAKE_ALONG,
    "state.objects": "states that lie as objects in the old place are not found",
    "merge.stream": "of global rules, open windows and what detectors have learnt stay with the old"
    " stream, and so does what is on its way through it",
    "merge.buckets": "fixed by the first start with a merge stream: workers refuse the new file,"
    " unless merge.stream names a new one",
}
# Where there was none of these, nothing lies in an old place.
_FROM_NOTHING = ("state.objects", "merge.stream", "merge.buckets")
_EVENT_TUNABLE = {name.removesuffix("_ms") for name in versions.TUNABLE_EVENT}


class Setting(Struct, frozen=True):
    """One setting that differs, by its path in the file, as text; `none` where it is not there."""

    path: str
    old: str
    new: str
    shapes_state: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


class RuleChange(Struct, frozen=True):
    """What becomes of one rule; `was` is its former name, where that was another."""

    rule: str
    fate: Fate
    means: str
    why: tuple[Setting, ...] = ()
    was: str | None = None


class Elsewhere(Struct, frozen=True):
    """A setting by which the new file does not find the old one's state at all."""

    setting: Setting
    means: str


class Changes(Struct, frozen=True):
    """All differences: `sinks` are those of results, `others` neither change results nor state."""

    rules: tuple[RuleChange, ...]
    elsewhere: tuple[Elsewhere, ...]
    sinks: tuple[Setting, ...]
    others: tuple[Setting, ...]

    @property
    def loses_state(self) -> bool:
        return bool(self.elsewhere) or any(change.fate in LOST for change in self.rules)


class _Leaf(NamedTuple):
    text: str
    shapes_state: bool


_Leaves = dict[str, _Leaf]


def compare(old: Pipeline, new: Pipeline) -> Changes:
    """From `old` to `new`; rules in the order of the new file, then those that are gone."""
    before, after = (_plain_leaves(pipeline) for pipeline in (old, new))
    plain = _differences(before, after)
    elsewhere = [Elsewhere(one, _ELSEWHERE[one.path]) for one in plain if _leaves_behind(one)]
    return Changes(
        tuple(_rules(old, new)),
        tuple(elsewhere),
        tuple(one for one in plain if one.path.startswith("sinks.")),
        tuple(
            one for one in plain if not _leaves_behind(one) and not one.path.startswith("sinks.")
        ),
    )


def _leaves_behind(setting: Setting) -> bool:
    path = setting.path
    if path.startswith("merge.") and setting.new == NOTHING:
        return False  # no rule is global any more: each one says itself what becomes of it
    return path in _ELSEWHERE and not (path in _FROM_NOTHING and setting.old == NOTHING)


def _rules(old: Pipeline, new: Pipeline) -> Iterable[RuleChange]:
    olds, news = ({rule.name: rule for rule in each.rules} for each in (old, new))
    gone = {name: versions.state_version(old, olds[name]) for name in olds if name not in news}
    for name, rule in news.items():
        former = olds.get(name) or olds.get(_former_name(gone, versions.state_version(new, rule)))
        if former is None:
            yield RuleChange(name, "added", MEANS["added"])
            continue
        why = _differences(_rule_leaves(old, former, rule), _rule_leaves(new, rule, former))
        fate = _fate(old, former, new, rule)
        means = "; ".join(_means(fate, old, former, new, rule))
        was = None if former.name == name else former.name
        if was is not None:
            del gone[was]
        yield RuleChange(name, fate, means, tuple(why), was)
    for name in gone:
        yield RuleChange(name, "removed", MEANS["removed"])


def _former_name(gone: Mapping[str, str], state_version: str) -> str:
    return next((name for name, version in gone.items() if version == state_version), "")


def _fate(old: Pipeline, former: RuleSpec, new: Pipeline, rule: RuleSpec) -> Fate:
    if _place(old) != _place(new) or _meets_elsewhere(old, former, new, rule):
        return "left behind"
    if former.name != rule.name:
        return "renamed"
    if versions.rule_version(old, former) == versions.rule_version(new, rule):
        return "kept"
    if versions.state_version(old, former) == versions.state_version(new, rule):
        return "converted"
    return "reset"


def _place(pipeline: Pipeline) -> tuple[str, str, str]:
    """Where positions and state lie."""
    return pipeline.app, pipeline.source.stream, pipeline.state.table


def _meets_elsewhere(old: Pipeline, former: RuleSpec, new: Pipeline, rule: RuleSpec) -> bool:
    """Windows and detectors of a global rule lie with the shards of the merge stream."""
    is_merged = is_global(old.event, former) and is_global(new.event, rule)
    if not is_merged or old.merge is None or new.merge is None:
        return False
    return old.merge.stream != new.merge.stream


def _means(
    fate: Fate, old: Pipeline, former: RuleSpec, new: Pipeline, rule: RuleSpec
) -> Iterable[str]:
    unseen = [
        told for emit, told in _UNSEEN.items() if getattr(former, emit) and not getattr(rule, emit)
    ]
    goes_on = fate in ("kept", "converted")
    has_moved = goes_on and old.state.objects not in (None, new.state.objects)
    if has_moved:
        yield _IN_TABLE
    elif fate == "kept" and unseen:
        yield "its state goes on"
    else:
        yield MEANS[fate]
    yield from unseen


# ---- settings as paths and texts ------------------------------------------------------------


def _differences(old: _Leaves, new: _Leaves) -> list[Setting]:
    found = []
    for path in dict.fromkeys((*old, *new)):
        was, now = old.get(path), new.get(path)
        if was == now:
            continue
        shapes = any(leaf is not None and leaf.shapes_state for leaf in (was, now))
        old_text, new_text = (leaf.text if leaf else NOTHING for leaf in (was, now))
        found.append(Setting(path, old_text, new_text, shapes))
    return found


def _plain_leaves(pipeline: Pipeline) -> _Leaves:
    """Of what concerns no rule's results."""
    tree = show(pipeline)
    own = ("decode", "outside_range")  # those of `source` that rules depend on
    tree["source"] = {name: value for name, value in tree["source"].items() if name not in own}
    tree = {name: part for name, part in tree.items() if name not in ("event", "rules")}
    return {path: _Leaf(text, False) for path, text in _flat(tree)}


def _rule_leaves(pipeline: Pipeline, rule: RuleSpec, other: RuleSpec) -> _Leaves:
    """Of all that a rule's results depend on. `other`: the one that it is compared with."""
    tree = show(pipeline)
    own = tree["rules"][rule.name]
    leaves = {
        f"event.{key}": _Leaf(_text(value), key not in _EVENT_TUNABLE)
        for key, value in tree["event"].items()
    }
    for key in ("decode", "outside_range"):
        leaves[f"source.{key}"] = _Leaf(_text(tree["source"][key]), True)
    leaves["where"] = _Leaf(_text(own["where"]), True)
    for key in ("group_by", "max_groups", "overflow", "forget_after", "lateness"):
        if key in own:
            leaves[key] = _Leaf(_text(own[key]), True)
    if "alarm_budget" in own:
        leaves["alarm_budget"] = _Leaf(_text(own["alarm_budget"]), False)
    leaves |= {f"window.{path}": _Leaf(text, True) for path, text in _flat(own["window"])}
    leaves |= {f"panes.{path}": _Leaf(text, True) for path, text in _flat(own.get("panes", {}))}
    leaves |= _figures(rule, own, other)
    for key in sorted(versions.TUNABLE_RULE & own.keys()):
        leaves[key] = _Leaf(_text(own[key]), False)
    leaves |= {f"emit.{path}": _Leaf(text, False) for path, text in _flat(own["emit"])}
    return leaves


def _figures(rule: RuleSpec, shown: Mapping[str, Any], other: RuleSpec) -> _Leaves:
    """Aggregates and detectors, by what they are: a new name is a difference of its own."""
    ids = versions.aggregate_ids(rule.aggregates)
    leaves: _Leaves = {}
    memory = versions.memory_ids(rule.aggregates)
    for name, what in ids.items():
        if name in memory:  # two quantiles of a field are two figures of one memory
            leaves[f"aggregates[{memory[name]}]"] = _Leaf("there", True)
        leaves.setdefault(f"aggregates[{what}]", _Leaf("there", False))
        leaves[f"aggregates[{what}].name"] = _Leaf(name, False)
    leaves |= _order("aggregates", ids.values(), versions.aggregate_ids(other.aggregates).values())
    series = versions.detect_ids(rule.detect, ids)
    for what, detect, each in zip(series, rule.detect, shown["detect"], strict=True):
        tunable = detectors.get(detect.kind).params.tunable
        leaves[f"detect[{what}]"] = _Leaf("there", True)
        for option, value in each.items():
            if option != detect.kind:
                is_tunable = option == "name" or option in tunable
                leaves[f"detect[{what}].{option}"] = _Leaf(_text(value), not is_tunable)
    others = versions.detect_ids(other.detect, versions.aggregate_ids(other.aggregates))
    return leaves | _order("detect", series, others)


def _order(path: str, ids: Iterable[str], others: Iterable[str]) -> _Leaves:
    """The order, where both rules have the same ones."""
    here, there = list(ids), list(others)
    is_same = sorted(here) == sorted(there)
    return {f"{path}.order": _Leaf(", ".join(here), False)} if is_same else {}


def _flat(tree: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if not isinstance(tree, Mapping):
        yield path, _text(tree)
        return
    for key, value in tree.items():
        yield from _flat(value, f"{path}.{key}" if path else str(key))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
