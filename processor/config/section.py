"""Reads one mapping of the file against its keys; faults are collected, so that all are told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from processor.config.document import Document, Place, plain
from processor.config.shape import Key
from processor.config.values import Wrong
from processor.errors import ConfigError
from processor.wording import describe, did_you_mean, one_of


class Faults:
    """What is wrong with a file, by path; lines are looked up at the end."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, path: str, found: str, expected: str) -> None:
        self.errors.append(ConfigError(path, found, expected))


def read_section(
    tree: Any,
    path: str,
    keys: Iterable[Key],
    faults: Faults,
    also: Collection[str] = (),
) -> dict[str, Any]:
    """Values by the Struct's names; `also` are keys that the caller reads. Null means not given."""
    keys = list(keys)
    if not is_mapping(tree, path, [*(key.name for key in keys), *also], faults):
        return {}
    values: dict[str, Any] = {}
    for key in keys:
        place = f"{path}.{key.name}" if path else key.name
        given = tree.get(key.name)
        if plain(given) is not None:
            read_value(key, given, place, values, faults)
        elif key.is_required:
            about = key.about.rstrip(".")
            faults.add(place, "nothing", about[0].lower() + about[1:])
    return values


def read_value(key: Key, given: Any, place: str, values: dict[str, Any], faults: Faults) -> None:
    try:
        values[key.attribute] = key.type.read(given)
    except Wrong as wrong:
        faults.add(place, wrong.found or describe(plain(given)), wrong.expected)


def is_mapping(tree: Any, path: str, known: Collection[str], faults: Faults) -> bool:
    """Whether it is one; keys that are not known are faults too."""
    if not isinstance(tree, dict):
        expected = f"a mapping with {one_of(known)}" if known else "a mapping"
        faults.add(path, describe(plain(tree)), expected)
        return False
    for name in tree:
        if name not in known:
            place = f"{path}.{name}" if path else name
            faults.add(place, "an unknown key", one_of(known) + did_you_mean(name, known))
    return True


def located(path: str, document: Document) -> Place:
    """Where a path stands; what is missing is missed at the mapping around it."""
    while path not in document.places:
        cut = max(path.rfind("."), path.rfind("["))
        if cut <= 0:
            return document.places.get("", Place("", None))
        path = path[:cut]
    return document.places[path]


def in_order(errors: Iterable[ConfigError], document: Document, file: str) -> list[ConfigError]:
    """The errors with their places, each once, sorted by line; overrides come last."""
    placed: dict[tuple[Any, ...], ConfigError] = {}
    for error in errors:
        place = Place(error.file, error.line) if error.file else located(error.path, document)
        found = ConfigError(
            error.path, error.found, error.expected, file=place.file or file, line=place.line
        )
        placed[found.args] = found
    return sorted(placed.values(), key=lambda e: (e.file != file, e.line or 0))


def shown(struct: Any, keys: Iterable[Key]) -> dict[str, Any]:
    """The inverse of `read_section`: a Struct as its part of the file, None left out."""
    given: dict[str, Any] = {}
    for key in keys:
        value = (
            struct[key.attribute] if isinstance(struct, Mapping) else getattr(struct, key.attribute)
        )
        if value is not None:
            given[key.name] = key.type.show(value)
    return given
