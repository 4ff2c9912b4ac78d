"""The JSON Schema (2020-12) of a file of cases, for editors.

What needs the pipeline file (names of rules, figures and fields) only `processor test` can tell.
"""

from __future__ import annotations

from typing import Any

from processor.config.schema import alternative, closed, section
from processor.testing import shape
from processor.testing.events import NOTHING

Schema = dict[str, Any]
_ANY_OF_OBJECT = {"type": "object"}
_NOTHING = {"const": NOTHING}


def schema() -> Schema:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cases of a pipeline file",
        **section(shape.TOP, "Cases of a pipeline file.", {"env": _env(), "cases": _cases()}),
        "required": ["cases"],
        "$defs": {
            "step": _step(),
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
            "expect": _expect(),
            "event": _event(),
            "alternative": alternative(),
        },
    }


def _env() -> Schema:
    about = "Variables of the pipeline file."
    return {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": about,
    }


def _cases() -> Schema:
    steps = {"$ref": "#/$defs/steps"}
    whole = section(shape.CASE, "A case with settings.", {"steps": steps})
    one = {"anyOf": [steps, {**whole, "required": ["steps"]}]}
    about = "Each from nothing, by its name."
    return {
        "type": "object",
        "additionalProperties": one,
        "minProperties": 1,
        "description": about,
    }


def _step() -> Schema:
    record = {"type": ["object", "string"]}
    more = {
        "records": {"type": "array", "items": record, "minItems": 1},
        "repeat": section(shape.REPEAT, "The records again and again."),
        "expect": {"$ref": "#/$defs/expect"},
    }
    one = section(shape.step(0), "One thing that happens, and what is told then.", more)
    return {**one, "oneOf": [{"required": [name]} for name in shape.ACTIONS]}


def _expect() -> Schema:
    events = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/event"}}, _NOTHING]}
    count = {"type": "integer", "minimum": 0}
    letters = {"type": "array", "items": closed(dict.fromkeys(shape.LETTER_KEYS, _value()))}
    more = {
        "exactly": events,
        "contains": events,
        "dead_letters": {"anyOf": [letters, _NOTHING]},
        "late": {"anyOf": [count, {"type": "object", "additionalProperties": count}]},
    }
    return {"anyOf": [events, section(shape.EXPECT, "What is told since the last one.", more)]}


def _event() -> Schema:
    parts: Schema = {name: _value() for name in shape.EVENT_KEYS}
    parts["correlation_ids"] = {"type": "array"}
    parts["window"] = closed(dict.fromkeys(shape.WINDOW_KEYS, _value()))
    parts["anomaly"] = closed(dict.fromkeys(shape.ANOMALY_KEYS, _value()))
    parts["key"] = parts["values"] = _ANY_OF_OBJECT
    return {**closed(parts), "description": "Fields of the event's detail; the rest is any."}


def _value() -> Schema:
    alternatives = {"type": "array", "items": {"$ref": "#/$defs/alternative"}, "minItems": 1}
    return {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, alternatives]}
