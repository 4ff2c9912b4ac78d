"""Event patterns on columns say what EventBridge's rules say of one event at a time."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core import patterns
from processor.core.patterns import ABSENT
from processor.errors import ConfigError

# ---- a naive interpreter: one event, one pattern, no columns --------------------------------


def leaf_matches(alternative: Any, leaf: Any) -> bool:
    if not isinstance(alternative, dict):
        return json_equal(alternative, leaf)
    [(name, argument)] = alternative.items()
    if name in ("prefix", "suffix", "equals-ignore-case", "wildcard", "cidr"):
        return isinstance(leaf, str) and text_matches(name, argument, leaf)
    if name == "numeric":
        return is_number(leaf) and all(
            {"=": leaf == b, "<": leaf < b, "<=": leaf <= b, ">": leaf > b, ">=": leaf >= b}[sign]
            for sign, b in zip(argument[::2], argument[1::2], strict=True)
        )
    if name == "exists":
        return bool(argument)
    assert name == "anything-but"
    if isinstance(argument, dict):
        [(name, texts)] = argument.items()
        texts = texts if isinstance(texts, list) else [texts]
        return not any(leaf_matches({name: text}, leaf) for text in texts)
    excluded = argument if isinstance(argument, list) else [argument]
    return not any(json_equal(e, leaf) for e in excluded)


def text_matches(name: str, argument: Any, text: str) -> bool:
    """By regular expressions, which the ring doesn't use for wildcards."""
    if name == "cidr":
        try:
            return ipaddress.ip_address(text) in ipaddress.ip_network(argument, strict=False)
        except ValueError:
            return False
    flags = re.DOTALL
    if isinstance(argument, dict):
        [(_, argument)] = argument.items()
        flags |= re.IGNORECASE
    if name == "equals-ignore-case":
        flags |= re.IGNORECASE
    regex = re.escape(argument)
    if name == "wildcard":
        regex = regex.replace(r"\*", ".*")
    start, end = ".*" if name == "suffix" else "", ".*" if name == "prefix" else ""
    return re.fullmatch(f"{start}{regex}{end}", text, flags) is not None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def json_equal(a: Any, b: Any) -> bool:
    if is_number(a) and is_number(b):
        return bool(a == b)
    return type(a) is type(b) and bool(a == b)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for element in value for leaf in leaves(element)]
    return [] if isinstance(value, dict) or value is ABSENT else [value]


def field_matches(alternatives: list[Any], value: Any) -> bool:
    found = leaves(value)
    if not found:
        return {"exists": False} in alternatives
    return any(leaf_matches(alternative, leaf) for alternative in alternatives for leaf in found)


def event_matches(pattern: dict[str, list[Any]], event: dict[str, Any]) -> bool:
    return all(field_matches(pattern[field], event[field]) for field in pattern)


# ---- what hypothesis draws: few different values, so that matches are common -----------------

BIG = 2**53
ADDRESSES = ["10.0.0.1", "10.0.1.255", "::1", "2001:db8::5"]
texts = st.sampled_from(["", "a", "ab", "abc", "AbA", "B", "b", "1", "true", "null", *ADDRESSES])
numbers = st.sampled_from([0, 1, -1, 2, 1.0, 1.5, -0.0, BIG, BIG + 1, float(BIG), 10**400, -5e300])
comparable = st.sampled_from([0, 1, -1, 2, 1.0, 1.5, -0.0, BIG, float(BIG), -5e300])
scalars = st.one_of(texts, numbers, st.booleans(), st.none())
values = st.one_of(
    scalars,
    st.just(ABSENT),
    st.lists(st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=3),
    st.just({"inner": 1}),
)
columns_of_one_type = st.sampled_from([texts, numbers, st.booleans(), scalars, values])


@st.composite
def ranges(draw: st.DrawFn) -> list[Any]:
    low, high = sorted([draw(comparable), draw(comparable)])
    if low < high and draw(st.booleans()):
        return [draw(st.sampled_from([">", ">="])), low, draw(st.sampled_from(["<", "<="])), high]
    return [draw(st.sampled_from(["=", "<", "<=", ">", ">="])), low]


def operator(name: str, operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operands.map(lambda operand: {name: operand})


def one_or_more(operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operands | st.lists(operands, min_size=1, max_size=3)


wildcards = st.sampled_from(["*", "a*", "*b", "a*a", "*a*b*", "ab", "*.0.*.*"])
ignore_case = operator("equals-ignore-case", texts)
affixes = st.one_of(
    *(operator(name, texts | ignore_case) for name in ("prefix", "suffix")),
)
buts = st.one_of(
    one_or_more(texts),
    one_or_more(comparable),
    *(operator(name, one_or_more(texts.filter(bool))) for name in ("prefix", "suffix")),
    operator("equals-ignore-case", one_or_more(texts)),
    operator("wildcard", one_or_more(wildcards)),
)
alternatives = st.one_of(
    scalars,
    affixes,
    ignore_case,
    operator("wildcard", wildcards),
    operator("cidr", st.sampled_from(["10.0.0.0/8", "10.0.0.7/24", "::/0", "2001:db8::/32"])),
    ranges().map(lambda terms: {"numeric": terms}),
    buts.map(lambda excluded: {"anything-but": excluded}),
    st.booleans().map(lambda is_there: {"exists": is_there}),
)
fields = st.sampled_from(["type", "order.amount", "order.store"])
pattern_dicts = st.dictionaries(fields, st.lists(alternatives, min_size=1, max_size=3))


@given(pattern_dicts, st.data())
def test_a_column_matches_where_each_event_alone_matches(
    pattern: dict[str, list[Any]], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, 8))
    columns = {
        field: data.draw(st.lists(data.draw(columns_of_one_type), min_size=n, max_size=n))
        for field in pattern
    }
    compiled = patterns.compile(pattern, "where")
    events = [{field: columns[field][i] for field in pattern} for i in range(n)]
    assert compiled.mask(columns, n).tolist() == [event_matches(pattern, e) for e in events]


@given(pattern_dicts, st.data())
def test_a_value_of_a_type_that_fields_does_not_name_never_matches(
    pattern: dict[str, list[Any]], data: st.DataObject
) -> None:
    compiled = patterns.compile(pattern, "where")
    for field, types in compiled.fields.items():
        value = data.draw(scalars)
        if name_of_type(value) not in types:
            assert not event_matches({field: pattern[field]}, {field: value})


def name_of_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "null" if value is None else "string" if isinstance(value, str) else "number"


# ---- the rules one by one -------------------------------------------------------------------


def matching(alternatives: list[Any], column: list[Any]) -> list[Any]:
    compiled = patterns.compile({"f": alternatives}, "where")
    mask = compiled.mask({"f": column}, len(column))
    return [value for value, matches in zip(column, mask, strict=True) if matches]


def test_exact_values_match_their_own_type_only() -> None:
    column = [1, "1", True, 1.0, "true", None, "null", 0, False]
    assert repr(matching([1], column)) == "[1, 1.0]"
    assert repr(matching([True], column)) == "[True]"
    assert repr(matching(["1"], column)) == "['1']"
    assert repr(matching([None], column)) == "[None]"
    assert repr(matching([False, 0], column)) == "[0, False]"


def test_numeric_never_takes_a_text_or_a_boolean() -> None:
    assert matching([{"numeric": [">", 0, "<=", 5]}], [0, 1, 5, 5.5, "3", True, None]) == [1, 5]


def test_numeric_tells_integers_apart_that_a_double_can_not() -> None:
    assert matching([{"numeric": [">", 2**53]}], [2**53, 2**53 + 1]) == [2**53 + 1]


def test_a_range_has_both_ends_on_a_column_of_numbers() -> None:
    pattern = patterns.compile({"a": [{"numeric": [">", 0, "<=", 5]}]}, "where")
    column = [-1, 0, 0.5, 5, 5.5, 6]
    assert pattern.mask({"a": column}, 6).tolist() == [False, False, True, True, False, False]


def test_anything_but_never_takes_an_absent_field() -> None:
    assert matching([{"anything-but": ["a", "b"]}], ["a", "c", ABSENT, None, 5]) == ["c", None, 5]
    assert matching([{"anything-but": {"prefix": "x-"}}], ["x-1", "y", ABSENT]) == ["y"]


def test_exists_takes_null_for_a_value_but_neither_an_object_nor_an_empty_array() -> None:
    column: list[Any] = [None, 0, ABSENT, {}, [], ["a"]]
    assert matching([{"exists": True}], column) == [None, 0, ["a"]]
    assert matching([{"exists": False}], column) == [ABSENT, {}, []]


def test_of_an_array_one_element_that_matches_is_enough() -> None:
    assert matching(["a"], [["b", "a"], ["b"], [["a"]], "a"]) == [["b", "a"], [["a"]], "a"]
    assert matching([{"anything-but": "a"}], [["a", "b"], ["a"]]) == [["a", "b"]]


def test_fields_are_anded_and_nested_keys_are_dotted_ones() -> None:
    nested = patterns.compile({"type": ["a"], "order": {"store": ["s"]}}, "where")
    assert nested == patterns.compile({"type": ["a"], "order.store": ["s"]}, "where")
    columns = {"type": ["a", "a", "b"], "order.store": ["s", "t", "s"]}
    assert nested.mask(columns, 3).tolist() == [True, False, False]


def test_a_pattern_without_fields_takes_every_event() -> None:
    assert patterns.compile({}, "where").mask({}, 2).tolist() == [True, True]


def test_fields_name_the_types_that_can_match() -> None:
    pattern = {"a": ["x", {"prefix": "y"}], "b": [{"numeric": [">", 0]}, None], "c": [True]}
    assert patterns.compile(pattern, "where").fields == {
        "a": {"string"},
        "b": {"number", "null"},
        "c": {"boolean"},
    }
    for wide in ({"anything-but": "x"}, {"exists": True}, {"exists": False}):
        types = patterns.compile({"f": [wide]}, "where").fields["f"]
        assert types == {"string", "number", "boolean", "null"}


# ---- what is refused ------------------------------------------------------------------------

REFUSED: list[tuple[Any, str, str]] = [
    (["a"], "where", "found a list, expected an event pattern"),
    ({"f": "a"}, "where.f", 'found the text "a", expected a list of alternatives'),
    ({"f": []}, "where.f", "an empty list"),
    ({"f": {}}, "where.f", "at least one field"),
    ({"f": {"prefix": "a"}}, "where.f", "a list of alternatives, such as [{prefix: …}]"),
    ({"f": [{}]}, "where.f[0]", "a mapping of 0 keys"),
    ({"f": ["a", ["b"]]}, "where.f[1]", "found a list"),
    ({"f": [{"prefx": "a"}]}, "where.f[0]", "did you mean prefix?"),
    ({"f": [{"prefix": 5}]}, "where.f[0].prefix", "found the number 5"),
    ({"f": [{"exists": "yes"}]}, "where.f[0].exists", "true or false"),
    ({"f": [{"numeric": ["<"]}]}, "where.f[0].numeric", "comparisons and numbers"),
    ({"f": [{"numeric": ["!", 1]}]}, "where.f[0].numeric", "one of = < <= > >="),
    ({"f": [{"numeric": [">", "1"]}]}, "where.f[0].numeric", "a number after >"),
    ({"f": [{"numeric": [">", True]}]}, "where.f[0].numeric", "a number after >"),
    ({"f": [{"numeric": ["<", 1, ">", 0]}]}, "where.f[0].numeric", "a lower bound, then"),
    ({"f": [{"numeric": [">", 1, "<", 1]}]}, "where.f[0].numeric", "a lower bound below"),
    ({"f": [{"numeric": [">=", 1, "<=", 1]}]}, "where.f[0].numeric", 'for one number ["=", 3]'),
    ({"f": [{"numeric": ["=", 1, "<", 2]}]}, "where.f[0].numeric", "a lower bound, then"),
    ({"f": [{"numeric": [">", 2**53 + 1]}]}, "where.f[0].numeric", "an integer that a double"),
    ({"f": [{"anything-but": 10**400}]}, "where.f[0].anything-but", "an integer that a double"),
    ({"f": [{"suffix": None}]}, "where.f[0].suffix", "found nothing"),
    ({"f": [{"prefix": {"wildcard": "a"}}]}, "where.f[0].prefix", "equals-ignore-case"),
    ({"f": [{"wildcard": "a**b"}]}, "where.f[0].wildcard", "no two * side by side"),
    ({"f": [{"wildcard": "a\\b"}]}, "where.f[0].wildcard", "after \\ a *"),
    ({"f": [{"wildcard": "a\\"}]}, "where.f[0].wildcard", "after \\ a *"),
    ({"f": [{"cidr": "10.0.0.0"}]}, "where.f[0].cidr", "10.0.0.0/24"),
    ({"f": [{"cidr": "10.0.0.256/8"}]}, "where.f[0].cidr", "10.0.0.0/24"),
    ({"f": [{"cidr": "10.0.0.0/32"}]}, "where.f[0].cidr", "less than 32 bits"),
    ({"f": [{"cidr": "::/128"}]}, "where.f[0].cidr", "less than 128 bits"),
    ({"f": [{"equals-ignore-case": ["a"]}]}, "where.f[0].equals-ignore-case", "a text"),
    ({"f": [{"numeric": [">", float("nan")]}]}, "where.f[0].numeric", "found nan"),
    ({"f": [{"anything-but": ["a", 1]}]}, "where.f[0].anything-but", "a list of one of the two"),
    ({"f": [{"anything-but": []}]}, "where.f[0].anything-but", "an empty list"),
    ({"f": [{"anything-but": {"numeric": [">", 1]}}]}, "where.f[0].anything-but", "numeric"),
    ({"f": [{"anything-but": {"prefix": ""}}]}, "where.f[0].anything-but.prefix", "one letter"),
    ({"f": [{"anything-but": {"suffix": []}}]}, "where.f[0].anything-but.suffix", "empty list"),
    (
        {"f": [{"anything-but": {"wildcard": ["*", "**"]}}]},
        "where.f[0].anything-but.wildcard[1]",
        "no two * side by side",
    ),
    ({"f": [{"anything-but": {"cidr": "::/1"}}]}, "where.f[0].anything-but", "wildcard"),
    ({"f": ["a"], "f ": ["b"]}, "where.f ", "a field's name"),
    ({"f[0]": ["a"]}, "where.f[0]", "a field's name"),
    ({"$or": [{"f": ["a"]}]}, "where.$or", "a list of two patterns"),
    ({"$or": [{"f": ["a"]}, {}]}, "where.$or[1]", "an empty mapping"),
    ({"$or": [{"f": ["a"]}, ["b"]]}, "where.$or[1]", "a pattern, such as"),
    ({"o": {"$or": [{"f": ["a"]}, {"f": "b"}]}}, "where.o.$or[1].f", "a list of alternatives"),
    ({"$or": [{"numeric": 123}, {"prefix": "abc"}]}, "where.$or[0].numeric", "the operator"),
    ({c: {"$or": [{"f": ["a"]}] * 11} for c in "abc"}, "where", "1331 combinations"),
]


@pytest.mark.parametrize(("pattern", "path", "words"), REFUSED)
def test_a_fault_is_refused_with_its_path_and_what_was_expected(
    pattern: Any, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        patterns.compile(pattern, "where")
    assert error.value.path == path
    assert words in str(error.value)


# ---- $or ------------------------------------------------------------------------------------


def takes(pattern: dict[str, Any], **event: Any) -> bool:
    compiled = patterns.compile(pattern, "where")
    columns = {field: [event.get(field, ABSENT)] for field in compiled.fields}
    return bool(compiled.mask(columns, 1)[0])


def test_or_takes_what_one_of_its_patterns_takes_beside_the_other_fields() -> None:
    pattern = {"f": ["a"], "$or": [{"g": ["b"]}, {"h": ["c"], "i": ["d"]}]}
    assert takes(pattern, f="a", g="b")
    assert takes(pattern, f="a", h="c", i="d")
    assert not takes(pattern, f="a", h="c")
    assert not takes(pattern, f="x", g="b")


def test_ors_beside_each_other_are_anded_and_may_stand_inside_one_another() -> None:
    two = {"$or": [{"f": ["a"]}, {"g": ["a"]}], "o": {"$or": [{"f": ["b"]}, {"g": ["b"]}]}}
    assert takes(two, **{"g": "a", "o.f": "b"})
    assert not takes(two, f="a", g="a")
    nested = {"$or": [{"f": ["a"]}, {"g": ["b"], "$or": [{"h": ["c"]}, {"i": ["d"]}]}]}
    assert takes(nested, g="b", i="d")
    assert not takes(nested, g="b")


def test_of_two_lists_for_a_field_on_one_way_through_the_ors_the_last_counts() -> None:
    before = {"f": ["a"], "$or": [{"f": ["b"]}, {"g": ["c"]}]}
    assert [takes(before, f="b"), takes(before, f="a"), takes(before, f="a", g="c")] == [1, 0, 1]
    after = {"$or": [{"f": ["b"]}, {"g": ["c"]}], "f": ["a"]}
    assert [takes(after, f="b"), takes(after, f="a"), takes(after, f="a", g="c")] == [0, 1, 1]
    assert patterns.compile(before, "where").replaced == ("where.f",)
    assert patterns.compile(after, "where").replaced == ("where.$or[0].f",)
    assert patterns.compile({"$or": [{"f": ["b"]}, {"f": ["c"]}]}, "where").replaced == ()


def test_an_or_that_can_not_be_the_operator_is_a_field_as_in_event_ruler() -> None:
    assert takes({"$or": {"f": ["a"]}}, **{"$or.f": "a"})
    assert takes({"$or": ["a", {"prefix": "b"}]}, **{"$or": "bc"})


def test_up_to_a_thousand_combinations_are_taken_on_any_number_of_events() -> None:
    ten = {"$or": [{"f": [str(i)]} for i in range(10)]}
    compiled = patterns.compile({"a": ten, "b": ten, "c": ten}, "where")
    column = [str(i) for i in range(13)]
    mask = compiled.mask({f"{field}.f": column for field in "abc"}, 13)
    assert mask.tolist() == [True] * 10 + [False] * 3
    assert compiled.mask({f"{field}.f": [] for field in "abc"}, 0).tolist() == []


def test_a_field_in_two_branches_is_named_once_with_the_types_of_both() -> None:
    pattern = {"$or": [{"f": ["a"]}, {"f": [1], "g": [None]}]}
    assert patterns.compile(pattern, "where").fields == {"f": {"string", "number"}, "g": {"null"}}
