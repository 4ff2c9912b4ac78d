"""Wildcards, texts whatever their case, and blocks of addresses."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core import texts
from processor.core.texts import Place


def test_a_star_takes_any_text_even_none_and_a_new_line() -> None:
    pattern = texts.wildcard("dir/*.png")
    assert pattern.has("dir/.png")
    assert pattern.has("dir/sub\n/a.png")
    assert not pattern.has("dir/a.png2")
    assert not pattern.has("a/dir/a.png")
    assert texts.wildcard("*").has("")
    assert texts.wildcard("").has("")
    assert not texts.wildcard("").has("a")


def test_beginning_and_end_of_a_wildcard_do_not_overlap() -> None:
    assert not texts.wildcard("aba*ba").has("aba")
    assert not texts.wildcard("ab*b*b").has("abb")
    assert texts.wildcard("ab*b*b").has("abbb")


def test_a_backslash_makes_a_star_or_a_backslash_stand_for_itself() -> None:
    pattern = texts.wildcard(r"a\*b\\*")
    assert pattern.has(r"a*b\c")
    assert not pattern.has(r"axb\c")
    assert texts.wildcard(r"*\**").has("a*b")  # the middle one is none of the pattern's stars


def has_naively(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(has_naively(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return text[:1] == pattern[0] and has_naively(pattern[1:], text[1:])


@given(
    st.text("ab*", max_size=8).filter(lambda pattern: "**" not in pattern),
    st.text("ab", max_size=8),
)
def test_a_wildcard_takes_what_trying_every_length_takes(pattern: str, text: str) -> None:
    assert texts.wildcard(pattern).has(text) == has_naively(pattern, text)


def test_a_letter_of_the_pattern_takes_its_own_two_cases_and_no_other_letter() -> None:
    pattern = texts.ignore_case("Straße", Place.WHOLE)
    assert pattern.has("STRASSE")
    assert pattern.has("sTRASSe")
    assert not pattern.has("strasse")
    assert not texts.ignore_case("ss", Place.WHOLE).has("ß")
    assert not texts.ignore_case("k", Place.WHOLE).has("\N{KELVIN SIGN}")
    assert not texts.ignore_case("a.c", Place.WHOLE).has("abc")


def test_case_is_ignored_at_the_start_or_at_the_end_alone() -> None:
    assert texts.ignore_case("EventB", Place.START).has("eVENTbridge")
    assert not texts.ignore_case("EventB", Place.START).has("an EventBridge")
    assert texts.ignore_case(".png", Place.END).has("a.PnG")
    assert not texts.ignore_case(".png", Place.END).has("a.png\n")
    assert texts.ignore_case("ß", Place.END).has("GROSS")
    assert texts.ignore_case("", Place.END).has("any")


def test_no_letter_has_two_cases_that_begin_alike() -> None:
    """Or the expression for a text without case could have to try again, for ever longer."""
    letters = map(chr, range(sys.maxunicode + 1))
    assert not [x for x in letters if x.lower() != x.upper() and x.lower()[0] == x.upper()[0]]


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("10.0.0.0/24", ["10.0.0.0", "10.0.0.255", "010.00.0.9"], ["10.0.1.0", "::10.0.0.1"]),
        ("10.0.0.77/24", ["10.0.0.1"], ["10.0.1.77"]),
        ("0.0.0.0/0", ["255.255.255.255"], ["::", "256.0.0.0", "1.2.3", "1.2.3.4.5", " 1.2.3.4"]),
        ("128.0.0.0/1", ["200.1.1.1"], ["127.255.255.255"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:DB8:0::"], ["2001:db9::", "2001:db8::1%eth0"]),
        ("::/0", ["::1"], ["10.0.0.1", "::ffff:10.0.0.1", "", ":", "1.2.3.²", "1" * 5000]),
    ],
)
def test_a_block_holds_its_addresses_and_takes_no_other_text_for_one(
    block: str, inside: list[str], outside: list[str]
) -> None:
    compiled = texts.cidr(block)
    assert [address for address in inside if not compiled.has(address)] == []
    assert [address for address in outside if compiled.has(address)] == []
