"""A pipeline file's text as a plain tree, with the line of everything in it.

Scalars follow YAML 1.2's core schema: `no` is a text, not false; `2024-01-01` is a text. Anchors
and merges are allowed, within bounds: a small file can't unfold into a large tree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from processor.config import variables
from processor.config.variables import VariableError
from processor.errors import ConfigError

FILE_BYTES_MAX = 1024 * 1024  # some 2,000 rules; PyYAML reads about 100 KB a second
NODES_MAX = 100_000  # 1 MB of the shortest useful lines; ends a "billion laughs" file
DEPTH_MAX = 50  # the format itself is 6 deep; nested patterns may be deeper
NUMBER_CHARACTERS_MAX = 100  # Python refuses integers of more than 4,300 digits


class Expanded(NamedTuple):
    """A scalar that held a variable: the place where it stands says which reading is wanted."""

    text: str
    value: Any  # as YAML would read the text, had it stood there
    is_quoted: bool


class Place(NamedTuple):
    file: str
    line: int | None


class Document(NamedTuple):
    """`root`: dicts, lists, scalars, `Expanded`; `places` by path, such as `rules.a.detect[0]`."""

    root: Any
    places: dict[str, Place]
    errors: list[ConfigError]


class _Loader(yaml.SafeLoader):
    """Only its scanner, parser and composer are used, with resolvers of our own."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse(source: str, file: str, env: Mapping[str, str]) -> Document:
    """Raises `ConfigError` where the text is no YAML; other faults are listed in `errors`."""
    if len(source) > FILE_BYTES_MAX:
        raise ConfigError("", f"{len(source)} characters", f"at most {FILE_BYTES_MAX}", file=file)
    if variables.has_private_use(source):
        raise ConfigError("", "a character of the private use area", "none of U+E0xx", file=file)
    reader = _Reader(file, env)
    node = _compose(variables.hide(source), file)
    return Document(reader.read(node, "", 0) if node else None, reader.places, reader.errors)


def _compose(source: str, file: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(source, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        found = variables.show(": ".join(filter(None, (error.context, error.problem))))
        raise ConfigError("", found, "valid YAML", file=file, line=line) from None
    except yaml.YAMLError as error:
        raise ConfigError("", " ".join(str(error).split()), "valid YAML", file=file) from None
    except RecursionError:
        raise ConfigError("", "deeper nesting", f"at most {DEPTH_MAX} levels", file=file) from None
    return node


class _Reader:
    """Turns nodes into the tree; `nodes` counts aliases each time they are unfolded."""

    def __init__(self, file: str, env: Mapping[str, str]):
        self.file, self.env = file, env
        self.places: dict[str, Place] = {}
        self.errors: list[ConfigError] = []
        self.nodes = 0

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.places.setdefault(path, Place(self.file, _line(node)))
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise self._error(node, path, "more values", f"at most {NODES_MAX}, aliases unfolded")
        if depth > DEPTH_MAX:
            raise self._error(node, path, "deeper nesting", f"at most {DEPTH_MAX} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(n, f"{path}[{i}]", depth + 1) for i, n in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value in node.value:
            key = self._key(key_node, path)
            place = f"{path}.{key}" if path else key
            if key == "<<" and _is_plain(key_node):
                merged.append(value)
            elif key in tree:
                self._note(key_node, place, "the key a second time", "each key once")
            else:
                self.places.setdefault(place, Place(self.file, _line(key_node)))
                tree[key] = self.read(value, place, depth + 1)
        for source in merged:
            self._merge(tree, source, path, depth)
        return tree

    def _merge(self, tree: dict[str, Any], source: yaml.Node, path: str, depth: int) -> None:
        """`<<: *a` or `<<: [*a, *b]`: keys that are not there yet, the first source first."""
        sources = source.value if isinstance(source, yaml.SequenceNode) else [source]
        for each in sources:
            if not isinstance(each, yaml.MappingNode):
                self._note(source, f"{path}.<<", "no mapping", "an alias of a mapping")
                continue
            for key, value in self.read(each, path, depth + 1).items():
                tree.setdefault(key, value)

    def _key(self, node: yaml.Node, path: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, path, "a list or mapping as a key", "a text as a key")
        key = variables.show(node.value)
        if "${" in key:
            self._note(node, path, f"the key {key}", "variables in values only")
        return key

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            text, has_variable = variables.expand(variables.show(node.value), self.env)
        except VariableError as error:
            self._note(node, path, error.found, error.expected)
            return None
        if has_variable:
            return Expanded(text, resolve(text), not _is_plain(node))
        return resolve(text) if _is_plain(node) else text

    def _note(self, node: yaml.Node, path: str, found: str, expected: str) -> None:
        self.errors.append(self._error(node, path, found, expected))

    def _error(self, node: yaml.Node, path: str, found: str, expected: str) -> ConfigError:
        return ConfigError(path, found, expected, file=self.file, line=_line(node))


def resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema; `.inf` and `.nan` stay texts, as in JSON."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= NUMBER_CHARACTERS_MAX:
        if _INT.fullmatch(text):
            return int(text, 10 if text.lstrip("+-").isdigit() else 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def plain(tree: Any) -> Any:
    """The tree as JSON values; a variable's is read as YAML unless it stood in quotes."""
    match tree:
        case Expanded():
            return tree.text if tree.is_quoted else tree.value
        case dict():
            return {key: plain(value) for key, value in tree.items()}
        case list():
            return [plain(value) for value in tree]
        case _:
            return tree


def override(document: Document, assignments: Sequence[str], env: Mapping[str, str]) -> Document:
    """The document with each `a.b=value` set; values are YAML, keys that are missing are made."""
    root = {} if document.root is None and assignments else document.root
    changed = Document(root, dict(document.places), list(document.errors))
    for assignment in assignments:
        _set(changed, assignment, env)
    return changed


def _set(document: Document, assignment: str, env: Mapping[str, str]) -> None:
    file = f"--set {assignment}"
    path, equals, value = assignment.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError("", repr(assignment), "a.b=value", file="--set")
    part = parse(value, file, env)
    node, rest, here = document.root, path, ""
    while True:
        if not isinstance(node, dict):
            raise ConfigError(here, "no mapping", f"one, to set {rest} in it", file=file)
        key, rest = _next_key(node, rest)
        here = f"{here}.{key}" if here else key
        if not rest:
            break
        node = node.setdefault(key, {})
    is_bare = isinstance(part.root, int | float)  # the shell has eaten the quotes, if any
    node[key] = Expanded(value.strip(), part.root, False) if is_bare else part.root
    for below in part.places:
        joint = "." if below and not below.startswith("[") else ""
        document.places[f"{here}{joint}{below}"] = Place(file, None)
    document.errors.extend(
        ConfigError(f"{here}.{e.path}".rstrip("."), e.found, e.expected, file=file)
        for e in part.errors
    )


def _next_key(node: Mapping[str, Any], rest: str) -> tuple[str, str]:
    """Names may hold dots: the longest key that is there wins, else the part up to the dot."""
    known = [key for key in node if rest == key or rest.startswith(f"{key}.")]
    key = max(known, key=len) if known else rest.partition(".")[0]
    return key, rest[len(key) + 1 :]


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None
