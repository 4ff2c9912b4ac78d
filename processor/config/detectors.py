"""Reads one detector of a rule: `{KIND: aggregate, option: value, name: …}`.

Options are those of the detector's own `params` Struct. One that ends in `_ms` there is written
without it, as a duration. What is kept are plain JSON values, without what stands at its default.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from processor import detectors
from processor.config import values
from processor.config.document import plain
from processor.config.section import Faults
from processor.config.values import Wrong
from processor.detectors.base import Params
from processor.model import DetectSpec
from processor.wording import describe, did_you_mean, is_name, one_of

DURATION_SUFFIX = "_ms"
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "nothing",
}


def options_of(kind: str) -> dict[str, FieldInfo]:
    """A detector's options by their names in the file."""
    fields = msgspec.structs.fields(detectors.get(kind).params)
    return {field.encode_name.removesuffix(DURATION_SUFFIX): field for field in fields}


def is_duration(field: FieldInfo) -> bool:
    return field.encode_name.endswith(DURATION_SUFFIX)


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
    options = _options(kind, tree, path, faults)
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


def _options(kind: str, tree: dict[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    known, before = options_of(kind), len(faults)
    given: dict[str, Any] = {}
    for key, value in tree.items():
        if key in (kind, "name"):
            continue
        if key not in known:
            near = did_you_mean(key, known)
            faults.add(f"{path}.{key}", "an unknown option", f"one of {', '.join(known)}{near}")
            continue
        try:
            given[known[key].encode_name] = _option(known[key], value)
        except Wrong as wrong:
            faults.add(f"{path}.{key}", wrong.found or describe(plain(value)), wrong.expected)
    return {} if len(faults) > before else _as_a_whole(kind, given, path, faults)


def _option(field: FieldInfo, tree: Any) -> Any:
    if is_duration(field):
        return values.duration().read(tree)
    value = plain(tree)
    try:
        return msgspec.to_builtins(msgspec.convert(value, field.type))
    except msgspec.ValidationError as error:
        raise Wrong(_expected(field.type, error)) from None


def _expected(type_: Any, error: msgspec.ValidationError) -> str:
    """msgspec says "Expected `int` >= 1 - at `$`" or names the wrong choice without the right."""
    if get_origin(type_) is Literal:
        return one_of(get_args(type_))
    expected = re.sub(r" - at .*|, got .*|`", "", str(error).removeprefix("Expected "))
    return re.sub(r"\w+", lambda match: _WORDS.get(match[0], match[0]), expected)


def _as_a_whole(kind: str, given: dict[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    """What only shows in all options together, and options that are missing."""
    type_: type[Params] = detectors.get(kind).params
    try:
        params = msgspec.convert(given, type_)
    except msgspec.ValidationError as error:
        found, _, expected = str(error).removeprefix("found ").partition("; ")
        faults.add(path, found, f"a change: {expected}" if expected else f"other options of {kind}")
        return {}
    fields = msgspec.structs.fields(type_)
    return {
        field.encode_name: given[field.encode_name]
        for field in fields
        if field.encode_name in given and getattr(params, field.name) != field.default
    }
