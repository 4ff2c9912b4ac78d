"""A history as text, one line an event: what a person reads when a seed fails."""

from __future__ import annotations

from tests.sim.loop import Host, SimLoop


class Log:
    def __init__(self, loop: SimLoop) -> None:
        self.lines: list[str] = []
        self._loop = loop

    def note(self, host: Host | None, text: str) -> None:
        """`host` None: nobody's doing."""
        who = host.name if host is not None else "world"
        self.lines.append(f"{self._loop.now:9.3f}  {who:6} {text}")
