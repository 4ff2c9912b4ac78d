"""Values are named in words, and near misses are recognised."""

from __future__ import annotations

from typing import Any

import pytest

from processor.wording import describe, did_you_mean, is_field_path, is_name, one_of


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (5, "the number 5"),
        ("a", 'the text "a"'),
        ([], "an empty list"),
        ({"a": 1}, "a mapping"),
        ("x" * 100, 'the text "' + "x" * 59 + "…"),
    ],
)
def test_a_value_is_described_by_its_type_and_shortened(value: Any, words: str) -> None:
    assert describe(value) == words


def test_a_near_miss_is_recognised_whatever_its_case() -> None:
    assert did_you_mean("PREFX", ["prefix", "exists"]) == "; did you mean prefix?"
    assert did_you_mean("banana", ["prefix", "exists"]) == ""


def test_choices_are_listed_as_one_says_them() -> None:
    assert [one_of(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a or b",
        "a, b or c",
    ]


@pytest.mark.parametrize("path", ["a", "order.store", "@timestamp", "Event Time", "$type", "ä.b-c"])
def test_a_field_path_is_made_of_keys(path: str) -> None:
    assert is_field_path(path)


@pytest.mark.parametrize("path", ["", ".", "a.", "a..b", " a", "a[0]", "a\n", "a" * 257])
def test_what_no_key_path_can_be_is_told_apart(path: str) -> None:
    assert not is_field_path(path)


def test_a_name_starts_with_a_letter_or_digit_and_has_64_characters_at_most() -> None:
    assert is_name("a" * 64)
    assert not any(map(is_name, ("", "-a", "a b", "a" * 65, "a\n")))
