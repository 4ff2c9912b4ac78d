"""A pipeline in the shape of its file, with every default written out and secrets hidden."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from processor import aggregators, derived, detectors
from processor.config import shape
from processor.config.aggregates import NO_FIELD
from processor.config.document import resolve
from processor.config.maintenance import shown_maintenance
from processor.config.options import show_options
from processor.config.section import shown
from processor.config.windows import shown_panes, shown_window
from processor.model import AggregateSpec, DetectSpec, Pipeline, RuleSpec, SinkSpec

HIDDEN = "***"
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*(?=@)")


def show(pipeline: Pipeline) -> dict[str, Any]:
    """Plain JSON values; read again they give the same pipeline, hidden secrets excepted."""
    given: dict[str, Any] = {
        "app": pipeline.app,
        "source": shown(pipeline.source, shape.source()),
        "event": shown(pipeline.event, shape.EVENT),
        "sinks": {name: _sink(sink) for name, sink in pipeline.sinks.items()},
        "rules": {rule.name: _rule(rule) for rule in pipeline.rules},
        **({} if pipeline.merge is None else {"merge": shown(pipeline.merge, shape.MERGE)}),
        "state": shown(pipeline.state, shape.STATE),
        "dead_letters": shown(pipeline.dead_letters, shape.DEAD_LETTERS),
        "http": shown(pipeline.http, shape.HTTP),
    }
    written: dict[str, Any] = _write(given)
    return written


def _sink(sink: SinkSpec) -> dict[str, Any]:
    given = [key for key in shape.SINKS[sink.kind].options if key.attribute in sink.options]
    return {sink.kind: sink.target, **shown(sink.options, given)}


def _rule(rule: RuleSpec) -> dict[str, Any]:
    return {
        "where": rule.where,
        **shown(rule, shape.RULE),
        "window": shown_window(rule.window),
        **shown_panes(rule),
        "aggregates": {aggregate.name: _aggregate(aggregate) for aggregate in rule.aggregates},
        "detect": [_detect(detect) for detect in rule.detect],
        **shown_maintenance(rule),
        "emit": shown(rule, shape.EMIT),
    }


def _aggregate(figure: AggregateSpec) -> str | dict[str, Any]:
    if figure.of:
        params = msgspec.convert(dict(figure.options), derived.get(figure.kind).params)
        of = figure.of[0] if len(figure.of) == 1 else list(figure.of)
        return {figure.kind: of, **show_options(params)}
    params = msgspec.convert(dict(figure.options), aggregators.get(figure.kind).params)
    where = {"where": figure.where} if figure.where else {}
    if figure.field is None and not where:
        return figure.kind
    return {figure.kind: figure.field or NO_FIELD, **show_options(params), **where}


def _detect(detect: DetectSpec) -> dict[str, Any]:
    params = msgspec.convert(dict(detect.options), detectors.get(detect.kind).params)
    of = [detect.aggregate, *detect.others] if detect.others else detect.aggregate
    return {detect.kind: of, "name": detect.name, **show_options(params)}


def _write(value: Any) -> Any:
    """Texts without what stands before the `@` of a URL, and without anything to expand."""
    match value:
        case str():
            return _USERINFO.sub(HIDDEN, value).replace("${", "$${")
        case dict():
            return {key: _write(each) for key, each in value.items()}
        case list():
            return [_write(each) for each in value]
        case _:
            return value


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader would not take for a text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if resolve(text) is text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(shown_pipeline: dict[str, Any]) -> str:
    """What `show` gave, as a pipeline file."""
    text: str = yaml.dump(shown_pipeline, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
