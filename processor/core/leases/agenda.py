"""What is under way, what waits after a failure, and when to look again."""

from __future__ import annotations

from math import inf

from processor.core.leases.commands import Command, key_of


class Agenda:
    """One command of a key is under way at a time; a failed one waits before it is repeated."""

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._busy: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._wake_at = inf

    def wake_at(self) -> float | None:
        """The earliest moment that `is_due` was asked about in vain since `restart`."""
        return None if self._wake_at == inf else self._wake_at

    def restart(self) -> None:
        self._wake_at = inf

    def is_due(self, at: float, now: float) -> bool:
        """Whether the moment has come; if not, it is one to wake up at."""
        if at <= now:
            return True
        self._wake_at = min(self._wake_at, at)
        return False

    def start(self, command: Command, now: float) -> bool:
        """Whether the command may go out now; if so, it is under way from here on."""
        key = key_of(command)
        if key in self._busy or not self.is_due(self._not_before.get(key, now), now):
            return False
        self._not_before.pop(key, None)
        self._busy.add(key)
        return True

    def done(self, key: str) -> None:
        self._busy.discard(key)

    def failed(self, key: str, now: float) -> None:
        """Not before `retry_s` again."""
        self._busy.discard(key)
        waiting = self._not_before.items()  # some, such as burials, are never repeated
        self._not_before = {other: at for other, at in waiting if at > now}
        self._not_before[key] = now + self._retry_s

    def is_any_under_way(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self._busy)
