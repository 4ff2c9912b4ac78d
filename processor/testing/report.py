"""Verdicts for people, as text with or without colours, and for machines, as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from processor.core.matching import ABSENT
from processor.testing import times
from processor.testing.comparing import Difference, Field
from processor.testing.running import Verdict, Wrong
from processor.testing.suite import Suite

RED, GREEN, DIM = "31", "32", "2"
# Of an event that nobody expected, what tells it apart; the rest is there for `--output json`.
TOLD = ("rule", "key", "window", "pane", "count", "values", "anomaly", "part", "partial")
TOLD_OF_ANOMALY = ("detector", "aggregate", "state", "value", "expected", "sentence")
VALUE_CHARACTERS_MAX = 400  # of one value in a line
DIFFERENCES_MAX = 20  # of one step; who expected one of ten thousand needs no more


def as_text(suite: Suite, verdicts: Sequence[Verdict], *, coloured: bool) -> Iterator[str]:
    paint = _paint if coloured else _plain
    yield suite.file
    for verdict in verdicts:
        word = paint("WRONG ", RED) if verdict.wrong else paint("ok    ", GREEN)
        yield f"  {word} {verdict.case}"
        for wrong in verdict.wrong:
            yield f"    {paint(_step(wrong, suite), DIM)}"
            kinds = _alike(wrong.differences)
            for difference, others in kinds[:DIFFERENCES_MAX]:
                yield from (f"      {line}" for line in _difference(difference, suite, paint))
                if others:
                    yield f"          and {others} more like it"
            if len(kinds) > DIFFERENCES_MAX:
                yield f"      and {len(kinds) - DIFFERENCES_MAX} more; --output json tells all"


def summary(verdicts: Sequence[Verdict]) -> str:
    wrong = sum(bool(verdict.wrong) for verdict in verdicts)
    cases = "1 case" if len(verdicts) == 1 else f"{len(verdicts)} cases"
    return f"{cases}: {'all ok' if not wrong else f'{wrong} wrong'}"


def _alike(found: Sequence[Difference]) -> list[tuple[Difference, int]]:
    """Dead letters for one reason as one, and how many there are besides: a slip in the records
    of a step makes as many as it has."""
    kinds: dict[object, list[Difference]] = {}
    for i, one in enumerate(found):
        is_letter = one.what == "dead letter" and one.expected is None
        alike = (one.told["reason"], one.told["detail"]) if is_letter else i
        kinds.setdefault(alike, []).append(one)
    return [(first, len(rest)) for first, *rest in kinds.values()]


def _step(wrong: Wrong, suite: Suite) -> str:
    """The watermarks tell why something is not told yet, or why a record was late."""
    each = [
        "none" if ms is None else f"{times.show(ms, suite.start_ms)} ({times.to_iso(ms)})"
        for ms in wrong.watermarks_ms
    ]
    word = "watermark" if len(each) == 1 else "watermarks"
    return f"step {wrong.number}, {suite.file}:{wrong.line}; {word} {', '.join(each)}"


def _difference(one: Difference, suite: Suite, paint: Any) -> Iterator[str]:
    if one.what not in ("event", "dead letter"):
        told = flow(one.told)
        yield f"{one.what}: expected {paint(flow(one.expected), GREEN)}, told {paint(told, RED)}"
    elif one.expected is None:
        yield paint(f"+ {one.what} that is not expected:", RED)
        yield f"    {flow(_shortened(one.told, suite))}"
    elif one.told is None:
        yield paint(f"- {one.what} of line {one.line} that was not told:", GREEN)
        yield f"    {flow(one.expected)}"
    else:
        yield f"≠ {one.what} of line {one.line}: {_name(one.told, suite)}"
        for field in one.fields:
            expected, told = _sides(field, suite)
            path = ".".join(field.path)
            yield f"    {path}: expected {paint(expected, GREEN)}, told {paint(told, RED)}"


def _sides(field: Field, suite: Suite) -> tuple[str, str]:
    def side(value: Any) -> str:
        if value is ABSENT:
            return "nothing"
        if field.path[0] == "window" or field.path[-1:] == ("opened_at",):
            return times.show(value, suite.start_ms) if isinstance(value, int) else flow(value)
        return flow(value)

    return side(field.expected), side(field.told)


def _name(told: Any, suite: Suite) -> str:
    """What an event is about, in a few words."""
    if "rule" not in told:
        return flow({"reason": told["reason"], "detail": told["detail"]})
    short = {name: told[name] for name in ("rule", "key", "window") if name in told}
    return flow(_shortened(short, suite))


def _shortened(told: Any, suite: Suite) -> dict[str, Any]:
    """As one would write it into the file."""
    short = {name: told[name] for name in TOLD if name in told} if "rule" in told else dict(told)
    if short.get("pane") == "on_time":
        del short["pane"]
    if "window" in short:
        window = short["window"]
        short["window"] = {end: times.show(at, suite.start_ms) for end, at in window.items()}
    if "anomaly" in short:
        anomaly = short["anomaly"]
        short["anomaly"] = {name: anomaly[name] for name in TOLD_OF_ANOMALY if name in anomaly}
    return short


# ---- values -------------------------------------------------------------------------------------


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = _flow(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _is_bare(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_bare(text: str) -> bool:
    """Whether YAML takes it as a text without quotes."""
    is_word = re.fullmatch(r"[A-Za-z_+-][\w .+-]*|[+-]\d+[a-z][0-9a-z]*", text) is not None
    return is_word and text == text.strip() and text.lower() not in ("true", "false", "null")


def _paint(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}\033[0m"


def _plain(text: str, colour: str) -> str:
    return text


# ---- for machines -------------------------------------------------------------------------------


def as_json(suite: Suite, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "file": suite.file,
        "pipeline": suite.pipeline_file,
        "cases": [
            {
                "name": verdict.case,
                "line": verdict.line,
                "steps": verdict.steps,
                "ok": not verdict.wrong,
                "wrong": [_wrong_as_json(wrong) for wrong in verdict.wrong],
            }
            for verdict in verdicts
        ],
    }


def _wrong_as_json(wrong: Wrong) -> dict[str, Any]:
    each = [
        {
            "what": one.what,
            "line": one.line,
            "expected": one.expected,
            "told": one.told,
            "fields": [_field_as_json(field) for field in one.fields],
        }
        for one in wrong.differences
    ]
    return {
        "step": wrong.number,
        "line": wrong.line,
        "watermarks": list(wrong.watermarks_ms),
        "differences": each,
    }


def _field_as_json(field: Field) -> dict[str, Any]:
    """Without `told` where nothing was."""
    told = {} if field.told is ABSENT else {"told": field.told}
    return {"path": ".".join(field.path), "expected": field.expected, **told}
