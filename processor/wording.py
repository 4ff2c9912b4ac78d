"""How errors name what they found, and what counts as a name or a field's path. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from typing import Any

NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}"  # fits a table's key, a metric's label and a DetailType
PATH_CHARACTERS_MAX = 256
SHOWN_CHARACTERS = 60  # of a value in a message: enough to find it, and a line stays a line


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None


def is_field_path(text: str) -> bool:
    """Whether `text` names a field by the keys that lead to it, such as `order.store.id`."""
    return len(text) <= PATH_CHARACTERS_MAX and all(map(_is_key, text.split(".")))


def _is_key(part: str) -> bool:
    return (
        part != "" and part == part.strip() and part.isprintable() and not set(part) & set('[]"\\')
    )


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """The tail of a sentence: what was probably meant, or nothing."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(found.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def one_of(known: Collection[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = known
    return f"{', '.join(first)} or {last}" if first else last


def describe(value: Any) -> str:
    """A JSON value in words: `the text "x"`, `the number 5`, `a list`, `nothing`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {_shortened(json.dumps(value, ensure_ascii=False))}"
        case int() | float():
            return f"the number {_shortened(str(value))}"
        case list() | tuple():
            return "an empty list" if not value else "a list"
        case dict():
            return "an empty mapping" if not value else "a mapping"
        case _:
            return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
