"""The pipeline file's JSON Schema (2020-12), for editors: completion, descriptions, first errors.

It says no to unknown keys and wrong shapes; what needs the whole file (names that must exist, types
that must agree) only `processor validate` can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from processor import aggregators, derived, detectors
from processor.config import shape, values
from processor.config.aggregates import NO_FIELD
from processor.config.options import options_schema
from processor.config.shape import Key
from processor.core.matching import COMPARISONS
from processor.wording import NAME

Schema = dict[str, Any]
_LITERAL = {"type": ["string", "number", "boolean", "null"]}


def schema() -> Schema:
    sections = {
        "app": {**shape.APP.type.schema, "description": shape.APP.about},
        "source": _section(shape.source(), "Where records come from."),
        "event": _section(shape.EVENT, "How to read an event."),
        "sinks": _named({"$ref": "#/$defs/sink"}, "Targets of derived events, by name."),
        "rules": {**_named({"$ref": "#/$defs/rule"}, "Rules by name."), "minProperties": 1},
        "merge": _section(shape.MERGE, "Through what the shards of global rules meet."),
        "state": _section(shape.STATE, "Where leases and state live."),
        "dead_letters": _section(shape.DEAD_LETTERS, "Where bad records go."),
        "http": _section(shape.HTTP, "Where health and metrics are served."),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline file",
        **_closed(sections, ["app", "source", "event", "rules"]),
        "$defs": {
            "sink": {"anyOf": [_sink(kind) for kind in shape.SINKS]},
            "rule": _rule(),
            "aggregate": _aggregate(),
            "detector": {"anyOf": [_detector(kind) for kind in detectors.kinds()]},
            "pattern": _pattern(),
            "alternative": _alternative(),
        },
    }


def _closed(properties: Mapping[str, Any], required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _section(keys: Iterable[Key], about: str, more: Mapping[str, Any] | None = None) -> Schema:
    keys = list(keys)
    properties = {key.name: {**key.type.schema, "description": key.about} for key in keys}
    required = [key.name for key in keys if key.is_required]
    return {**_closed({**properties, **(more or {})}, required), "description": about}


def _named(item: Schema, about: str) -> Schema:
    names = {"pattern": f"^{NAME}$"}
    return {
        "type": "object",
        "propertyNames": names,
        "additionalProperties": item,
        "description": about,
    }


def _sink(kind: str) -> Schema:
    spec = shape.SINKS[kind]
    target = Key(kind, spec.target, spec.about, is_required=True)
    return _section((target, *spec.options), spec.about)


def _rule() -> Schema:
    aggregates = _named({"$ref": "#/$defs/aggregate"}, shape.RULE_AGGREGATES)
    detect = {"type": "array", "items": {"$ref": "#/$defs/detector"}}
    windows = [_section(keys, f"{kind} windows") for kind, keys in shape.WINDOWS.items()]
    more = {
        "where": {"$ref": "#/$defs/pattern", "description": shape.RULE_WHERE},
        "window": {"anyOf": windows, "description": "How event time is cut."},
        "panes": _panes(),
        "aggregates": {**aggregates, "minProperties": 1},
        "detect": {**detect, "description": shape.RULE_DETECT},
        "maintenance": {
            "type": "array",
            "items": {"anyOf": [_section(keys, "") for keys in shape.MAINTENANCE.values()]},
            "description": shape.RULE_MAINTENANCE,
        },
        "emit": _section(shape.EMIT, "Where results go."),
    }
    rule = _section(shape.RULE, "What is counted, how, and who is told.", more)
    return {**rule, "required": [*rule["required"], "window", "aggregates"]}


def _panes() -> Schema:
    when = {"$ref": "#/$defs/pattern", "description": shape.EARLY_WHEN}
    early = _section(shape.EARLY, "Before the window's end.", {"when": when})
    kinds = [{"const": "none"}, _section(shape.LATE, "Late panes.")]
    late = {"anyOf": kinds, "description": "After its end; none: it is closed once it is told."}
    about = "When a window is told, besides once at its end."
    return _section(shape.PANES, about, {"early": early, "late": late})


def _aggregate() -> Schema:
    alone = [kind for kind, each in aggregators.load().items() if each.reads == "nothing"]
    counted = [_figure(kind) for kind in aggregators.kinds()]
    made = [_derived(kind) for kind in derived.kinds()]
    return {"anyOf": [{"enum": alone}, *counted, *made]}


def _figure(kind: str) -> Schema:
    aggregator = aggregators.get(kind)
    options, required = options_schema(aggregator.params)
    field = {"enum": [NO_FIELD]} if aggregator.reads == "nothing" else values.FIELD.schema
    where = {"$ref": "#/$defs/pattern", "description": shape.FIGURE_WHERE}
    return _closed({kind: field, **options, "where": where}, [kind, *required])


def _derived(kind: str) -> Schema:
    plugin = derived.get(kind)
    options, required = options_schema(plugin.params)
    n = len(plugin.of)
    name = {"type": "string", "description": "A figure of this rule."}
    names = {"type": "array", "items": name, "minItems": n, "maxItems": n}
    of = {"anyOf": [name, names]} if n == 1 else names
    return _closed({kind: of, **options}, [kind, *required])


def _detector(kind: str) -> Schema:
    options, required = options_schema(detectors.get(kind).params)
    properties: Schema = {
        kind: _watched(getattr(detectors.get(kind), "figures_max", 1)),
        "name": {**values.NAMED.schema, "description": "Its own name, if not its kind."},
        **options,
    }
    return _closed(properties, [kind, *required])


def _watched(most: int) -> Schema:
    one = {"type": "string", "description": "The aggregate that it watches."}
    if most == 1:
        return one
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": most}
    return {"anyOf": [one, several]}


def _pattern() -> Schema:
    """Nested objects of fields; each field has a list of alternatives, `$or` a list of patterns."""
    alternatives = _list_of({"$ref": "#/$defs/alternative"})
    pattern = {"$ref": "#/$defs/pattern"}
    either = {"type": "array", "items": pattern, "minItems": 2}
    return {
        "type": "object",
        "properties": {"$or": {"anyOf": [either, alternatives, pattern]}},
        "additionalProperties": {"anyOf": [alternatives, pattern]},
    }


def _alternative() -> Schema:
    text: Schema = {"type": "string"}
    signs = [{"enum": list(COMPARISONS)}, {"type": "number"}]
    numeric: Schema = {"type": "array", "items": {"anyOf": signs}, "minItems": 2, "maxItems": 4}
    same_case = _operator("equals-ignore-case", text)
    affix: Schema = {"anyOf": [text, same_case]}
    operators = {
        "prefix": affix,
        "suffix": affix,
        "wildcard": text,
        "numeric": numeric,
        "cidr": text,
        "anything-but": _excluded(),
        "exists": {"type": "boolean"},
        "exactly": text,
    }
    named = [_operator(name, operand) for name, operand in operators.items()]
    return {"anyOf": [_LITERAL, *named, same_case]}


def _excluded() -> Schema:
    """What `anything-but` excludes: values of one type, or an operator on texts."""
    text: Schema = {"type": "string"}
    part: Schema = {"type": "string", "minLength": 1}
    either: list[Schema] = [text, {"type": "number"}]
    operators = {"prefix": part, "suffix": part, "equals-ignore-case": text, "wildcard": text}
    named = [
        _operator(name, {"anyOf": [operand, _list_of(operand)]})
        for name, operand in operators.items()
    ]
    return {"anyOf": [*either, *map(_list_of, either), *named]}


def _operator(name: str, operand: Schema) -> Schema:
    return _closed({name: operand}, [name])


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


# What the schema of cases (`processor.testing`) is made of too.
closed, section, alternative = _closed, _section, _alternative
