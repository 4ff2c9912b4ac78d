"""A promise that was not kept, and where the first of them is noted."""

from __future__ import annotations

from collections import Counter

from tests.sim.log import Log


class Breach(AssertionError):
    """`checker` is which promise; the run ends there."""

    def __init__(self, checker: str, what: str) -> None:
        super().__init__(f"{checker}: {what}")
        self.checker = checker


class Verdict:
    """What all checkers share: the first breach, and how often each path was taken."""

    def __init__(self, log: Log) -> None:
        self.breach: Breach | None = None
        self.paths: Counter[str] = Counter()
        self.note = log.note

    def on_breach(self, checker: str, what: str) -> None:
        self.breach = self.breach or Breach(checker, what)
