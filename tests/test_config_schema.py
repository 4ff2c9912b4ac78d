"""The JSON Schema says of a file's shape what the reader says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from processor import aggregators, config, derived, detectors
from processor.config import ConfigErrors, document
from processor.testing.schema import schema as schema_of_cases

FOLDER = Path(__file__).parent / "pipelines"
SHOP = FOLDER / "shop.yaml"
SCHEMA = config.schema()
CASES = schema_of_cases()
DEFINITIONS = {**CASES["$defs"], **SCHEMA["$defs"]}

# ---- as much of JSON Schema 2020-12 as the schema uses; an unknown keyword is an error ---------

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
SAY_NOTHING = {"$schema", "$defs", "title", "description", "default"}


def is_type(value: Any, names: str | list[str]) -> bool:
    names = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    return all(
        key in SAY_NOTHING or KEYWORDS[key](value, argument, schema)
        for key, argument in schema.items()
    )


def additional(value: Any, argument: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    rest = [each for key, each in value.items() if key not in schema.get("properties", {})]
    return not rest if argument is False else all(is_valid(each, argument) for each in rest)


def resolved(reference: str) -> dict[str, Any]:
    definition: dict[str, Any] = DEFINITIONS[reference.removeprefix("#/$defs/")]
    return definition


KEYWORDS: dict[str, Any] = {
    "$ref": lambda v, a, s: is_valid(v, resolved(a)),
    "oneOf": lambda v, a, s: sum(is_valid(v, each) for each in a) == 1,
    "const": lambda v, a, s: v == a,
    "anyOf": lambda v, a, s: any(is_valid(v, each) for each in a),
    "type": lambda v, a, s: is_type(v, a),
    "enum": lambda v, a, s: v in a,
    "pattern": lambda v, a, s: not isinstance(v, str) or re.search(a, v) is not None,
    "minLength": lambda v, a, s: not isinstance(v, str) or len(v) >= a,
    "minimum": lambda v, a, s: not is_type(v, "number") or v >= a,
    "maximum": lambda v, a, s: not is_type(v, "number") or v <= a,
    "exclusiveMinimum": lambda v, a, s: not is_type(v, "number") or v > a,
    "properties": lambda v, a, s: (
        not isinstance(v, dict) or all(is_valid(v[key], a[key]) for key in v if key in a)
    ),
    "required": lambda v, a, s: not isinstance(v, dict) or set(a) <= set(v),
    "additionalProperties": additional,
    "propertyNames": lambda v, a, s: not isinstance(v, dict) or all(is_valid(k, a) for k in v),
    "minProperties": lambda v, a, s: not isinstance(v, dict) or len(v) >= a,
    "maxProperties": lambda v, a, s: not isinstance(v, dict) or len(v) <= a,
    "items": lambda v, a, s: not isinstance(v, list) or all(is_valid(each, a) for each in v),
    "minItems": lambda v, a, s: not isinstance(v, list) or len(v) >= a,
    "maxItems": lambda v, a, s: not isinstance(v, list) or len(v) <= a,
    "uniqueItems": lambda v, a, s: not isinstance(v, list) or all(v.count(e) == 1 for e in v),
}


def tree(source: str) -> Any:
    """The file as an editor sees it: variables are still texts."""
    raw = document.parse(source.replace("${", "$${"), "f.yaml", {})
    assert not raw.errors
    return document.plain(raw.root)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_the_schema_takes_every_file_that_the_reader_takes(path: Path) -> None:
    assert is_valid(tree(path.read_text()), SCHEMA)
    assert is_valid(config.show(config.load(path, {})), SCHEMA)


BAD_SHAPES = [
    ("app: shop", "app: shop\nunknown: 1"),
    ("app: shop", ""),
    ("app: shop", "app: a b"),
    ("stream: orders, ", ""),
    ("start: trim_horizon", "strat: latest"),
    ("unit: ms", "unit: msec"),
    ("unit: ms", "out_of_orderness: 5"),
    ("{eventbridge: shop-events}", "{kafka: x}"),
    ("{eventbridge: shop-events}", "{eventbridge: a, retry: 1}"),
    ("orders-by-store:", "'a b':"),
    ("    group_by: [store]\n", ""),
    ("group_by: [store]", "group_by: store"),
    ("tumbling: 10m", "hopping: 10m"),
    ("orders: count", "orders: cuont"),
    ("orders: count", "orders: {count: x}"),
    ("{sum: amount}", "{quantile: amount}"),
    ("{sum: amount}", "{quantile: amount, q: 2}"),
    ("{sum: amount}", "{sum: amount, q: 0.5}"),
    ("{sum: amount}", "{sum: amount, where: {type: a}}"),
    ("{sum: amount}", "{ratio: [orders]}"),
    ("{sum: amount}", "{ratio: orders}"),
    ("{sum: amount}", "{rate: orders, per: 5}"),
    ("{novelty: orders}", "{noveltee: orders}"),
    ("{novelty: orders}", "{novelty: orders, sensitivty: low}"),
    ("{novelty: orders}", "{novelty: orders, warm_up: 0}"),
    ("[order.placed]", "order.placed"),
    ("[order.placed]", "[{sufix: x}]"),
    ("[order.placed]", "[{suffix: 5}]"),
    ("[order.placed]", "[{prefix: {suffix: x}}]"),
    ("[order.placed]", "[{anything-but: [a, 1]}]"),
    ("[order.placed]", "[{anything-but: {cidr: 10.0.0.0/8}}]"),
    ("[order.placed]", "[{numeric: ['!', 5]}]"),
    ("{type: [order.placed]}", "{$or: [{type: [a]}]}"),
    ("windows: alerts", "window: alerts"),
]


@pytest.mark.parametrize(("old", "new"), BAD_SHAPES)
def test_schema_and_reader_refuse_the_same_shapes(old: str, new: str) -> None:
    source = SHOP.read_text()
    assert old in source
    source = source.replace(old, new)
    assert not is_valid(tree(source), SCHEMA)
    with pytest.raises(ConfigErrors):
        config.loads(source, {})


@pytest.mark.parametrize(
    "where",
    [
        "{type: [a, 5, null, {prefix: a}, {suffix: ''}, {suffix: {equals-ignore-case: a}}]}",
        "{type: [{equals-ignore-case: a}, {wildcard: a*}, {cidr: '::/0'}, {exists: false}]}",
        "{type: [{anything-but: a}, {anything-but: [1, 2]}, {anything-but: {wildcard: [a*, b]}}]}",
        "{type: [{numeric: ['>', 0, '<=', 5]}], $or: [{a: {b: [c]}}, {$or: [{d: [1]}, {e: [2]}]}]}",
    ],
)
def test_schema_and_reader_take_every_operator_of_a_pattern(where: str) -> None:
    source = SHOP.read_text().replace("{type: [order.placed]}", where)
    assert is_valid(tree(source), SCHEMA)
    config.loads(source, {})


def test_every_plug_in_can_be_named() -> None:
    kinds = [next(iter(each["properties"])) for each in SCHEMA["$defs"]["detector"]["anyOf"]]
    assert tuple(kinds) == detectors.kinds()
    alone, *others = SCHEMA["$defs"]["aggregate"]["anyOf"]
    assert alone["enum"] == ["count"]
    kinds = [next(iter(each["properties"])) for each in others]
    assert sorted(kinds) == sorted((*aggregators.kinds(), *derived.kinds()))


def test_every_key_of_the_file_has_a_description() -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict) and "properties" in node:
            for name, part in node["properties"].items():
                assert part.get("description"), name
                check(part)

    check({key: part for key, part in SCHEMA.items() if key != "$defs"})
    check(SCHEMA["$defs"]["rule"])


def test_what_the_schema_refers_to_is_there() -> None:
    for reference in re.findall(r"#/\$defs/\w+", yaml.safe_dump(SCHEMA)):
        assert resolved(reference)


# ---- files of cases -----------------------------------------------------------------------------


def cases_of_the_demo() -> Any:
    file = Path(__file__).parent.parent / "processor" / "local" / "demo.cases.yaml"
    return document.plain(document.parse(file.read_text(), str(file), {}).root)


def test_the_two_schemas_mean_the_same_by_the_names_that_they_share() -> None:
    shared = CASES["$defs"].keys() & SCHEMA["$defs"].keys()
    assert [name for name in shared if CASES["$defs"][name] != SCHEMA["$defs"][name]] == []


def test_the_schema_of_cases_takes_the_demo_s_and_no_slip_in_them() -> None:
    assert is_valid(cases_of_the_demo(), CASES)
    for slip in (
        {"recods": []},
        {"records": [5]},
        {"idle": "1m", "records": [{}]},
        {"idle": "1m", "expect": "nothin"},
        {"idle": "1m", "expect": [{"rul": "orders"}]},
        {"idle": "1m", "expect": [{"anomaly": {"detectr": "novelty"}}]},
        {"idle": "1m", "expect": {"late": -1}},
    ):
        tree = cases_of_the_demo()
        tree["cases"]["one"] = [slip]
        assert not is_valid(tree, CASES), slip
