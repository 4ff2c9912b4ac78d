"""`${NAME}` and `${NAME:-default}` in scalars of a pipeline file; `$${` is a plain `${`.

Variables are expanded in scalars, after the YAML is parsed: a value can't change the structure of
the file. YAML itself would stumble over `{stream: ${NAME}}`, where a brace ends a scalar; so the
brackets and commas of a variable are hidden from its parser behind characters that no file holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_HIDDEN = "{}[],:?#"  # where a plain scalar could end
_SHOWN = "".join(chr(0xE000 + i) for i in range(len(_HIDDEN)))  # private use area: nobody's text
_HIDE = str.maketrans(_HIDDEN, _SHOWN)
_SHOW = str.maketrans(_SHOWN, _HIDDEN)

_ANY = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}\n]*)?\}")
_PARTS = re.compile(r"(?P<escape>\$\$\{)|\$\{(?P<inside>[^{}\n]*)\}|(?P<open>\$\{)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)
SYNTAX = "${NAME} or ${NAME:-default}; $${ stands for a plain ${"


class VariableError(Exception):
    """What was found and expected, for the scalar's own place."""

    def __init__(self, found: str, expected: str):
        super().__init__(found, expected)
        self.found, self.expected = found, expected


class Expanded(NamedTuple):
    text: str
    has_variable: bool


def hide(source: str) -> str:
    """The file as the YAML parser may see it: every character stays in its line and column."""
    return _ANY.sub(lambda match: match[0].translate(_HIDE), source)


def has_private_use(source: str) -> bool:
    return not set(_SHOWN).isdisjoint(source)


def show(text: str) -> str:
    return text.translate(_SHOW)


def expand(text: str, env: Mapping[str, str]) -> Expanded:
    """Values are taken as they are: a variable inside a variable's value is not expanded."""
    if "${" not in text:
        return Expanded(text, False)
    has_variable = any(match["inside"] is not None for match in _PARTS.finditer(text))
    return Expanded(_PARTS.sub(lambda match: _value(match, env), text), has_variable)


def _value(match: re.Match[str], env: Mapping[str, str]) -> str:
    if match["escape"]:
        return "${"
    inside = _INSIDE.fullmatch(match["inside"] or "")
    if inside is None:
        raise VariableError(f"{match[0]} …" if match["open"] else match[0], SYNTAX)
    name, default = inside["name"], inside["default"]
    value = env.get(name, "")
    if default is not None:
        return value or default
    if name not in env:
        raise VariableError(
            f"${{{name}}}, and the environment has no {name}",
            f"{name} to be set, or a default: ${{{name}:-default}}",
        )
    return value
