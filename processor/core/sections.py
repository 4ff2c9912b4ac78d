"""Which section of a saved state serves a rule: its own, that of a former version, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from processor.core import beginnings
from processor.core.beginnings import Beginnings
from processor.core.rules import Heritage, RulePlan, Saved
from processor.model import Shard


class Section(Protocol):
    """What every section says; its version is its name."""

    @property
    def rule(self) -> str: ...

    @property
    def state_version(self) -> str: ...

    @property
    def beginnings(self) -> Beginnings: ...


S = TypeVar("S", bound=Section)


def serving(plan: RulePlan, saved: Mapping[str, S]) -> S | None:
    """The section that the rule goes on from; `saved` is by rule version. None: it starts anew.

    Its own before any other, and of others only one of the same name and state version. Two of
    those can't be: an owner keeps the sections of the rules that it runs, and no others.
    """
    if is_own(plan, saved):
        return saved[plan.version]
    former = (
        section
        for section in saved.values()
        if (section.rule, section.state_version) == (plan.spec.name, plan.state_version)
    )
    return next(former, None)


def is_own(plan: RulePlan, saved: Mapping[str, Section]) -> bool:
    """Whether the state holds a section of this very version."""
    return plan.version in saved


def heritage(
    plan: RulePlan, saved: Mapping[str, Saved], parent: Shard, newest_ms: int | None, origin: str
) -> Heritage:
    """What a parent's last state leaves a rule. Where there is no section, the rule starts anew for
    that parent's keys; `newest_ms`: the newest time that the parent saw, `origin`: as `begin`."""
    section = serving(plan, saved)
    if section is None:
        return Heritage(beginnings.anew(parent, newest_ms, origin))
    if is_own(plan, saved):
        return Heritage(section.beginnings, section)
    named = beginnings.renamed(section.beginnings, parent, newest_ms, origin)
    return Heritage(named, section, is_former=True)


def beginning(
    plan: RulePlan, saved: Mapping[str, S], parent: Shard, newest_ms: int | None, origin: str
) -> Heritage:
    """What a parent leaves a global rule: only where it began. See `heritage`."""
    if is_own(plan, saved):
        return Heritage(saved[plan.version].beginnings)
    return Heritage(beginnings.anew(parent, newest_ms, origin))
