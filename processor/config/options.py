"""Reads a plug-in's options: `{option: value}` beside what it watches or reads.

Options are those of the plug-in's own `params` Struct. One that ends in `_ms` there is written
without it, as a duration. What is kept are plain JSON values, without what stands at its default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from processor.config import values
from processor.config.document import plain
from processor.config.section import Faults
from processor.config.values import Wrong, show_duration
from processor.wording import describe, did_you_mean, one_of

DURATION_SUFFIX = "_ms"
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}


def options_of(params: type[Struct]) -> dict[str, FieldInfo]:
    """Options by their names in the file."""
    fields = msgspec.structs.fields(params)
    return {field.encode_name.removesuffix(DURATION_SUFFIX): field for field in fields}


def offered(params: type[Struct]) -> dict[str, FieldInfo]:
    """Those of them that the plug-in does not refuse."""
    refused = getattr(params, "refused", ())
    return {name: of for name, of in options_of(params).items() if of.encode_name not in refused}


def is_duration(field: FieldInfo) -> bool:
    return field.encode_name.endswith(DURATION_SUFFIX)


def show_options(params: Struct) -> dict[str, Any]:
    """All that are set, defaults too, as they are written in the file."""
    shown = {}
    for name, field in offered(type(params)).items():
        value = getattr(params, field.name)
        if value is not None:
            shown[name] = show_duration(value) if is_duration(field) else value
    options: dict[str, Any] = _json(shown)
    return options


def options_schema(params: type[Struct]) -> tuple[dict[str, Any], list[str]]:
    """JSON Schema of each option, and the names of those that must be given."""
    _, components = msgspec.json.schema_components([params])
    described = components[params.__name__]["properties"]
    known = offered(params)
    properties = {
        name: values.duration().schema
        if is_duration(field)
        else _plain(described[field.encode_name])
        for name, field in known.items()
    }
    return properties, [name for name, field in known.items() if field.required]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A tuple of likes as a list of so many, which older editors know as well."""
    if "prefixItems" not in schema:
        return schema
    first = schema["prefixItems"][0]
    rest = {name: of for name, of in schema.items() if name != "prefixItems"}
    listed: dict[str, Any] = _json(rest | {"items": first})
    return listed


def _json(value: Any) -> Any:
    """As plain JSON values: a tuple is a list."""
    return msgspec.json.decode(msgspec.json.encode(value))


def read_options(
    kind: str, params: type[Struct], tree: Mapping[str, Any], path: str, faults: Faults
) -> dict[str, Any]:
    """`tree`: what is given, and nothing but options."""
    known, before = options_of(params), len(faults)
    given: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in known:
            all_ = list(offered(params))
            names = f"one of {', '.join(all_)}" if all_ else f"no option: {kind} has none"
            faults.add(f"{path}.{key}", "an unknown option", names + did_you_mean(key, all_))
            continue
        try:
            given[known[key].encode_name] = _option(known[key], value)
        except Wrong as wrong:
            faults.add(f"{path}.{key}", wrong.found or describe(plain(value)), wrong.expected)
    for name, field in known.items():
        if field.required and name not in tree:
            faults.add(f"{path}.{name}", "nothing", f"an option that {kind} needs")
    return {} if len(faults) > before else _as_a_whole(kind, params, given, path, faults)


def _option(field: FieldInfo, tree: Any) -> Any:
    value = values.duration().read(tree) if is_duration(field) else plain(tree)
    try:
        return _json(msgspec.convert(value, field.type))
    except msgspec.ValidationError as error:
        longer = "a longer duration, such as 1s"
        raise Wrong(longer if is_duration(field) else _expected(field.type, error)) from None


def _expected(type_: Any, error: msgspec.ValidationError) -> str:
    """msgspec says "Expected `int` >= 1 - at `$`" or names the wrong choice without the right."""
    if get_origin(type_) is Literal:
        return one_of(get_args(type_))
    names = _names_in(type_)
    if names and "enum value" in str(error):
        return f"as names {one_of(names)}"
    expected = re.sub(r" - at .*|, got .*|`", "", str(error).removeprefix("Expected "))
    if "[" in str(error).partition(" - at ")[2]:  # of one item, and the whole list was found
        expected = f"in it {expected}"
    return re.sub(r"\w+", lambda match: _WORDS.get(match[0], match[0]), expected)


def _names_in(type_: Any) -> tuple[str, ...]:
    """The choices of a type, or of the first choice within it."""
    if get_origin(type_) is Literal:
        return get_args(type_)
    return next((names for part in get_args(type_) if (names := _names_in(part))), ())


def _as_a_whole(
    kind: str, type_: type[Struct], given: dict[str, Any], path: str, faults: Faults
) -> dict[str, Any]:
    """What only shows in all options together."""
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
