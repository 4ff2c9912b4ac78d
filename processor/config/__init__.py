"""The pipeline file: `load` turns it into a `Pipeline`, or tells everything that is wrong with it.

document   text → tree of plain values with their lines; variables, overrides
shape      the file's keys, in one list
section    one mapping against its keys: unknown ones, missing ones, wrong values
build      tree → Pipeline, by rules, detectors
checks     what needs more than one part of the file: contradictions
lints      what is legal but hardly meant
render     Pipeline → the resolved file         schema   the file's JSON Schema
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from processor.config import build, document, lints, section
from processor.config.lints import Warning
from processor.config.render import show, to_yaml
from processor.config.schema import schema
from processor.errors import ConfigError
from processor.model import Pipeline

__all__ = [
    "Checked",
    "ConfigErrors",
    "Warning",
    "check",
    "load",
    "loads",
    "read_text",
    "schema",
    "show",
    "to_yaml",
]


class ConfigErrors(ConfigError):
    """All that is wrong with one file, sorted by line; a line each."""

    def __init__(self, errors: Sequence[ConfigError]):
        first = errors[0]
        super().__init__(first.path, first.found, first.expected, file=first.file, line=first.line)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class Checked(NamedTuple):
    pipeline: Pipeline
    warnings: list[Warning]


def load(path: str | Path, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a file; raises `ConfigErrors`. `overrides` are `a.b=value`, values YAML."""
    return check(path, env, overrides).pipeline


def check(path: str | Path, env: Mapping[str, str], overrides: Sequence[str] = ()) -> Checked:
    """As `load`, with what is legal but hardly meant."""
    return loads(read_text(path, "a pipeline file in UTF-8"), env, overrides, file=str(path))


def read_text(path: str | Path, expected: str) -> str:
    """A file's text; raises `ConfigErrors` that say what it should have been."""
    try:
        with Path(path).open("rb") as opened:
            raw = opened.read(document.FILE_BYTES_MAX + 1)
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        found = "no such file"
    except OSError as error:
        found = str(error.strerror)
    except UnicodeDecodeError as error:
        found = f"{error.reason} at byte {error.start}"
    raise ConfigErrors([ConfigError("", found, expected, file=str(path))])


def loads(
    source: str,
    env: Mapping[str, str],
    overrides: Sequence[str] = (),
    *,
    file: str = "pipeline.yaml",
) -> Checked:
    """As `check`, of the file's text; `file` is its name in messages."""
    try:
        parsed = document.override(document.parse(source, file, env), overrides, env)
    except ConfigError as error:
        raise ConfigErrors([error]) from None
    faults = section.Faults()
    faults.errors += parsed.errors
    pipeline = build.read_pipeline(parsed.root, faults)
    if faults.errors:
        raise ConfigErrors(section.in_order(faults.errors, parsed, file))
    assert pipeline is not None, "no faults, no pipeline"
    return Checked(pipeline, _located(lints.lint(pipeline), parsed, file))


def _located(warnings: Sequence[Warning], parsed: document.Document, file: str) -> list[Warning]:
    found = []
    for warning in warnings:
        place = section.located(warning.path, parsed)
        found.append(Warning(warning.path, warning.message, place.file or file, place.line))
    return sorted(found, key=lambda warning: (warning.file != file, warning.line or 0))
