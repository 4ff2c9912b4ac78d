"""Which section of a saved state serves a rule: its own, that of a former version, or none."""

from __future__ import annotations

from collections.abc import Mapping

from processor.core.rules import RulePlan, Saved


def serving(plan: RulePlan, saved: Mapping[str, Saved]) -> Saved | None:
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


def is_own(plan: RulePlan, saved: Mapping[str, Saved]) -> bool:
    """Whether the state holds a section of this very version."""
    return plan.version in saved
