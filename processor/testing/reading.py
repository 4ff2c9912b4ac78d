"""Reads a file of cases into a `Suite`; all that is wrong with it is told at once, by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processor import config
from processor.config import ConfigErrors, document, section
from processor.config.document import Document, plain
from processor.config.section import Faults, read_section
from processor.errors import ConfigError
from processor.model import Pipeline
from processor.testing import shape
from processor.testing.events import Expectations
from processor.testing.records import Producer
from processor.testing.suite import Action, Case, Expect, Idle, Records, Step, Suite, Watermark
from processor.wording import describe, one_of

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z, where a file says nothing


def load(
    file: str, env: Mapping[str, str], overrides: Sequence[str] = (), pipeline: str | None = None
) -> Suite:
    """Raises ConfigErrors: of this file, or of the pipeline's.

    `pipeline`: a pipeline file that stands above the one which is named; `overrides` are of it.
    """
    parsed = _parse(config.read_text(file, "a file of cases in UTF-8"), file, env)
    faults = Faults()
    faults.errors += parsed.errors
    root = parsed.root
    top = read_section(root, "", shape.TOP, faults, ("env", "cases"))
    own = _env(root, faults)
    is_named = pipeline is None and "pipeline" in top
    if is_named:
        pipeline = str(Path(file).parent / top["pipeline"])
    if pipeline is None and not faults.errors:
        faults.add("pipeline", "nothing", "the pipeline file, beside this one, or -c FILE")
    source = "" if pipeline is None else _source(pipeline, is_named, faults)
    _raise(faults, parsed, file)
    assert pipeline is not None, "no faults, so it is named"
    known = config.loads(source, {**env, **own}, overrides, file=pipeline).pipeline
    start_ms = top.get("start", START_MS)
    cases = _Reader(known, start_ms, parsed, faults).cases(root.get("cases"))
    _raise(faults, parsed, file)
    return Suite(file, pipeline, known, start_ms, cases)


def _source(pipeline: str, is_named: bool, faults: Faults) -> str:
    """The pipeline file's text; a name that leads nowhere is a fault of whoever gave it."""
    try:
        return config.read_text(pipeline, "a pipeline file in UTF-8")
    except ConfigErrors as error:
        if not is_named:
            raise
        faults.add("pipeline", f"{pipeline}: {error.found}", "the pipeline file, beside this one")
        return ""


def _parse(text: str, file: str, env: Mapping[str, str]) -> Document:
    try:
        return document.parse(text, file, env)
    except ConfigError as error:
        raise ConfigErrors([error]) from None


def _raise(faults: Faults, parsed: Document, file: str) -> None:
    if faults.errors:
        raise ConfigErrors(section.in_order(faults.errors, parsed, file))


def _env(root: Any, faults: Faults) -> dict[str, str]:
    """Variables for the pipeline file."""
    given = plain(root.get("env")) if isinstance(root, dict) else None
    if given is None:
        return {}
    if not isinstance(given, dict):
        faults.add("env", describe(given), "variables of the pipeline file, such as {STAGE: test}")
        return {}
    for name, value in given.items():
        if not isinstance(value, str):
            faults.add(f"env.{name}", describe(value), "a text: write it in quotes")
    return {name: str(value) for name, value in given.items()}


class _Reader:
    def __init__(self, pipeline: Pipeline, start_ms: int, parsed: Document, faults: Faults) -> None:
        self._pipeline, self._start_ms = pipeline, start_ms
        self._parsed, self._faults = parsed, faults
        self._step_keys = shape.step(start_ms)
        self._producer = Producer(pipeline.event, start_ms, faults)
        self._expectations = Expectations(pipeline, start_ms, self._line, faults)

    def cases(self, tree: Any) -> tuple[Case, ...]:
        if not isinstance(tree, dict) or not tree:
            expected = "at least one case by its name: a list of steps"
            self._faults.add("cases", describe(plain(tree)), expected)
            return ()
        return tuple(self._case(name, case, f"cases.{name}") for name, case in tree.items())

    def _case(self, name: str, tree: Any, path: str) -> Case:
        """A list of steps, or a mapping with it."""
        given: dict[str, Any] = {}
        steps, place = tree, path
        if isinstance(tree, dict):
            given = read_section(tree, path, shape.CASE, self._faults, ("steps",))
            steps, place = tree.get("steps"), f"{path}.steps"
        rules = given.get("rules")
        for rule in rules or ():
            self._expectations.check_rule(rule, f"{path}.rules")
        shards = given.get("shards", 1)
        return Case(
            name,
            self._line(path),
            self._steps(steps, place, shards),
            shards,
            None if rules is None else frozenset(rules),
        )

    def _steps(self, tree: Any, path: str, shards: int) -> tuple[Step, ...]:
        if not isinstance(tree, list) or not tree:
            self._faults.add(path, describe(plain(tree)), "a list of steps")
            return ()
        steps = [self._step(each, f"{path}[{i}]", shards) for i, each in enumerate(tree)]
        read = tuple(step for step in steps if step is not None)
        if len(read) == len(steps) and read[-1].expect is None:
            expected = "what is expected in the end, if only `nothing`"
            self._faults.add(f"{path}[{len(steps) - 1}]", "a last step without expect", expected)
        return read

    def _step(self, tree: Any, path: str, shards: int) -> Step | None:
        before = len(self._faults)
        given = read_section(tree, path, self._step_keys, self._faults, shape.STEP_ALSO)
        if not isinstance(tree, dict):
            return None
        shard = given.get("shard")
        if shard is not None and shard >= shards:
            expected = f"one of the case's {shards} shards, counted from 0"
            self._faults.add(f"{path}.shard", str(shard), expected)
        action = self._action(tree, given, path)
        expect: Expect | None = None
        if tree.get("expect") is not None:
            expect = self._expectations.read(tree["expect"], f"{path}.expect")
        if action is None or len(self._faults) > before:
            return None
        return Step(self._line(path), action, shard, expect)

    def _action(self, tree: dict[str, Any], given: Mapping[str, Any], path: str) -> Action | None:
        named = [key for key in shape.ACTIONS if tree.get(key) is not None]
        if len(named) != 1:
            found = "nothing to do" if not named else one_of(named).replace(" or ", " and ")
            self._faults.add(path, found, f"one of {one_of(shape.ACTIONS)}")
            return None
        if named[0] == "records":
            sent = self._producer.read(tree, given, path)
            return Records(sent, given.get("arrival"))
        for key in ("arrival", "partition_key", "repeat"):
            if tree.get(key) is not None:
                self._faults.add(f"{path}.{key}", key, f"it with records only, not {named[0]}")
        if named[0] == "idle":
            return Idle(given["idle"]) if "idle" in given else None
        return Watermark(given["watermark"]) if "watermark" in given else None

    def _line(self, path: str) -> int:
        return section.located(path, self._parsed).line or 0
