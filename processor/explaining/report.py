"""An account as text: a paragraph a rule, its lines wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from processor.explaining import prices
from processor.explaining.account import Account, Rule
from processor.explaining.traffic import Assumed

LABEL_WIDTH = 10
BYTES_UNITS = (("GB", 10**9), ("MB", 10**6), ("KB", 10**3))


def as_text(account: Account, width: int) -> Iterator[str]:
    """Lines of at most `width` characters, where words allow."""
    rules = "1 rule" if len(account.rules) == 1 else f"{len(account.rules)} rules"
    yield f"{account.app}: {rules}"
    yield from _field("repeats", account.repeats, width)
    yield from _field("assumed", assumptions(account.assumed), width)
    for rule in account.rules:
        yield ""
        yield f"{rule.name} (version {rule.version})"
        for label, text in _lines(rule):
            yield from _field(label, text, width)
    if account.warnings:
        yield ""
        yield from account.warnings


def assumptions(assumed: Assumed) -> str:
    return (
        f"{assumed.rate:,g} records a second (--rate) on {assumed.shards:,} shards (--shards),"
        f" {assumed.keys:,} groups a rule (--keys), all of them wanted; prices of {prices.AS_OF}"
    )


def _lines(rule: Rule) -> Iterator[tuple[str, str]]:
    yield "scope", rule.scope
    yield "counts", rule.counts
    yield from _each("figures", rule.figures)
    yield "windows", rule.window
    yield from _each("tells", rule.tells)
    yield "late", rule.late
    yield "groups", rule.groups
    yield from _each("detectors", rule.detectors)
    yield from _each("off", rule.maintenance)
    yield from _each("budget", rule.budget)
    yield from _each("collapses", rule.collapses)
    yield from _each("sends", rule.sends or ["nothing"])
    yield "memory", memory(rule)
    yield "events", events(rule)
    if rule.is_global:
        yield "merge", merging(rule)
    yield from _each("warning", rule.warnings)


def _each(label: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    for i, text in enumerate(texts):
        yield ("" if i else label), text


def memory(rule: Rule) -> str:
    of = rule.memory
    most = "" if of.a_key_most == of.a_key else f", up to {bytes_(of.a_key_most)}"
    open_ = "1 open window" if of.windows_a_key == 1 else f"{of.windows_a_key:,} open windows"
    detectors = f", {bytes_(of.detectors_a_key)} for detectors" if of.detectors_a_key else ""
    each = f"about {bytes_(of.a_key)} a group{most}: {open_} of {bytes_(of.a_window)}{detectors}"
    where = "; on each shard, and once more where they meet" if rule.is_global else ""
    if not rule.is_grouped:
        return f"{each}{where}"
    return (
        f"{each}; {bytes_(rule.memory_bytes)} for {rule.memory_groups:,} groups,"
        f" {bytes_(rule.memory_bytes_max)} a shard at max_groups ({rule.max_groups:,}){where}"
    )


def events(rule: Rule) -> str:
    traffic = rule.traffic
    if not rule.tells_windows:
        return "no window results; only what the detectors find"
    besides = "; what the detectors find comes besides" if rule.detectors else ""
    if traffic.events < 1:
        return f"less than one window result a day at that rate{besides}"
    cost = f", {usd(traffic.usd)} on EventBridge" if traffic.usd else ""
    return f"up to {traffic.events:,.0f} window results a day{cost}{besides}"


def merging(rule: Rule) -> str:
    return (
        f"{rule.traffic.merge_puts:,.0f} records a day into the merge stream,"
        f" {usd(rule.traffic.merge_usd)} for PUT payload units, besides its shards; also where"
        " nothing was counted"
    )


def usd(a_day: float) -> str:
    a_month = a_day * prices.DAYS_A_MONTH
    if a_month < 0.01:
        return "less than a cent a month"
    return f"${a_day:,.2f} a day, ${a_month:,.2f} a month"


def bytes_(n: int) -> str:
    for unit, size in BYTES_UNITS:
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n} bytes"


def _field(label: str, text: str, width: int) -> Iterator[str]:
    indent = " " * (LABEL_WIDTH + 2)
    yield from textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=f"  {label:<{LABEL_WIDTH}}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
