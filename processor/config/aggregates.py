"""Reads a rule's figures: `count`, `{sum: field}`, `{quantile: field, q: 0.99, where: …}`.

Derived ones are made of other figures of the rule: `{ratio: [failed, orders]}`, `{rate: orders}`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from processor import aggregators, derived
from processor.config import values
from processor.config.document import plain
from processor.config.options import read_options
from processor.config.section import Faults
from processor.config.values import Wrong
from processor.core import patterns
from processor.core.figures import is_number
from processor.errors import ConfigError
from processor.model import AggregateSpec
from processor.wording import describe, did_you_mean, is_name, one_of

NO_FIELD = "*"  # what stands in the field's place where none is read: {count: "*", where: …}
_A_FIGURE = "count, or one statistic and its field, such as {sum: amount}"


def kinds() -> tuple[str, ...]:
    """All kinds of figures, sorted."""
    return tuple(sorted((*aggregators.kinds(), *derived.kinds())))


def read_aggregates(tree: Any, path: str, faults: Faults) -> tuple[AggregateSpec, ...]:
    if not isinstance(tree, dict) or not tree:
        faults.add(path, describe(plain(tree)), "at least one figure, such as {orders: count}")
        return ()
    found = [_read(name, value, f"{path}.{name}", faults) for name, value in tree.items()]
    specs = tuple(spec for spec in found if spec is not None)
    _check_derived(specs, list(tree), path, faults)
    return specs


def read_where(tree: Any, path: str, faults: Faults) -> dict[str, Any]:
    """An event pattern; nothing for every event."""
    if tree is None:
        return {}
    where = plain(tree)
    try:
        patterns.compile(where, path)
    except ConfigError as error:
        faults.errors.append(error)
        return {}
    assert isinstance(where, dict), "compiled, so it is a mapping"
    return where


def _read(name: str, value: Any, place: str, faults: Faults) -> AggregateSpec | None:
    before = len(faults)
    if not is_name(name):
        expected = "letters, digits, _ . - and at most 64 of them"
        faults.add(place, f"the name {name!r}", expected)
    try:
        spec = _aggregate(name, value, place, faults)
    except Wrong as wrong:
        faults.add(place, wrong.found or describe(plain(value)), wrong.expected)
        return None
    return spec if len(faults) == before else None


def _aggregate(name: str, value: Any, place: str, faults: Faults) -> AggregateSpec:
    tree = plain(value)
    if isinstance(tree, str):
        return AggregateSpec(name, _alone(tree))
    if not isinstance(tree, dict) or not tree:
        raise Wrong(_A_FIGURE)
    kind = _kind(tree)
    given = {key: of for key, of in value.items() if key not in (kind, "where")}
    if kind in derived.kinds():
        options = read_options(kind, derived.get(kind).params, given, place, faults)
        if tree.get("where") is not None:
            expected = f"none: a {kind} is made of figures, and they can have one each"
            faults.add(f"{place}.where", "an event pattern", expected)
        return AggregateSpec(name, kind, of=_of(kind, tree[kind]), options=options)
    options = read_options(kind, aggregators.get(kind).params, given, place, faults)
    where = read_where(value.get("where"), f"{place}.where", faults)
    field = _field(kind, value[kind], f"{place}.{kind}", faults)
    return AggregateSpec(name, kind, field, where=where, options=options)


def _alone(kind: str) -> str:
    if kind not in kinds():
        raise Wrong(one_of(kinds()) + did_you_mean(kind, kinds()), describe(kind))
    if kind in derived.kinds():
        raise Wrong(f"the figures that it is made of: {_example(kind)}")
    if aggregators.get(kind).reads != "nothing":
        raise Wrong(f"its field: {{{kind}: FIELD}}")
    return kind


def _kind(tree: dict[str, Any]) -> str:
    """The one key that is a figure's."""
    named = [key for key in tree if key in kinds()]
    if len(named) > 1:
        raise Wrong(_A_FIGURE)
    if not named:
        first = next(iter(tree))
        raise Wrong(one_of(kinds()) + did_you_mean(first, kinds()), describe(first))
    return named[0]


def _field(kind: str, tree: Any, place: str, faults: Faults) -> str | None:
    if aggregators.get(kind).reads == "nothing":
        if plain(tree) != NO_FIELD:
            expected = f'{kind} alone, or "{NO_FIELD}": it reads no field'
            faults.add(place, describe(plain(tree)), expected)
        return None
    try:
        field: str = values.FIELD.read(tree)
    except Wrong as wrong:
        faults.add(place, wrong.found or describe(plain(tree)), wrong.expected)
        return None
    return field


# ---- derived figures ------------------------------------------------------------------------


def _of(kind: str, names: Any) -> tuple[str, ...]:
    wanted = derived.get(kind).of
    given = [names] if isinstance(names, str) and len(wanted) == 1 else names
    is_list = isinstance(given, list) and all(isinstance(name, str) for name in given)
    if not is_list or len(given) != len(wanted):
        raise Wrong(f"{' and '.join(wanted)}, such as {_example(kind)}")
    return tuple(given)


def _example(kind: str) -> str:
    names = ", ".join(part.upper() for part in derived.get(kind).of)
    return f"{{{kind}: {names}}}" if len(derived.get(kind).of) == 1 else f"{{{kind}: [{names}]}}"


def _check_derived(
    specs: Sequence[AggregateSpec], names: Collection[str], path: str, faults: Faults
) -> None:
    """`names` are those of all figures, of faulty ones too."""
    known = {spec.name: spec for spec in specs}
    for spec in specs:
        for name in spec.of:
            place = f"{path}.{spec.name}.{spec.kind}"
            if name not in names:
                near = did_you_mean(name, names)
                faults.add(place, describe(name), f"a figure of this rule: {one_of(names)}{near}")
            elif name in known and known[name].of:
                found = f"{name}, which is derived itself"
                faults.add(place, found, "figures that are counted, not derived")
            elif name in known and not is_number(known[name]):
                faults.add(place, f"{name}, which is a list", "a figure that is a number")
