"""Overhears the network: whose stream a call is about, and what the targets were given.

The checkers of each stream's leases hear of its calls. What all streams share is checked here: an
id stands for one byte string, and no window is told before its time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from processor.core.leases.rows import StreamKey
from processor.model import DerivedEvent
from processor.sinks.memory import Arrival
from tests.sim.breach import Breach, Verdict
from tests.sim.checkers import Checkers
from tests.sim.history import OUT_OF_ORDERNESS_MS
from tests.sim.loop import Host
from tests.sim.network import Call
from tests.sim.services import STREAM, Services

EFFECTS = frozenset(("claim", "release", "commit", "mark", "end", "bury"))
ANSWERS = frozenset(("write", "end", "join", "heartbeat", "read_workers"))
CHANGES = frozenset(
    ("write", "end", "create_shards", "remove_shard", "delete", "delete_worker", "bury")
)


class Watch:
    """`network.Watch`, over the checkers of each stream."""

    def __init__(
        self, services: Services, stages: Mapping[str, Checkers], verdict: Verdict
    ) -> None:
        self._services, self._stages, self._verdict = services, stages, verdict
        self._bodies: dict[str, bytes] = {}

    def on_sent(self, host: Host, kind: str, args: tuple[Any, ...]) -> None:
        if kind in EFFECTS:
            self._stage_of(args).on_sent(host, kind, args)

    def on_answer(self, call: Call, result: Any) -> None:
        if call.operation in ANSWERS:
            self._stage_of(call.args).on_answer(call, result)

    def on_no_answer(self, call: Call) -> None:
        if call.operation in ANSWERS:
            self._stage_of(call.args).on_no_answer(call)

    def on_effect(self, call: Call, result: Any) -> None:
        try:
            if call.service in ("bus", "letters"):
                for entry in call.args[0]:
                    self._check_entry(call, entry)
            elif call.operation in CHANGES and call.args[0]:
                self._stage_of(call.args).on_effect(call, result)
        except Breach as breach:
            self._verdict.breach = self._verdict.breach or breach

    def _stage_of(self, args: tuple[Any, ...]) -> Checkers:
        """The stream that a call is about: its first argument is a row, or a key, or several."""
        first = args[0]
        if isinstance(first, list | tuple):
            first = first[0]
        if isinstance(first, str):
            return self._stages[first.partition("@")[0]]  # of a state
        key = first if isinstance(first, StreamKey) else first.stream
        return self._stages[key.name]

    # ---- what targets are given

    def _check_entry(self, call: Call, entry: Arrival) -> None:
        known = self._bodies.get(entry.id)
        if known is None:
            self._bodies[entry.id] = entry.body
            if isinstance(entry.of, DerivedEvent):
                self._check_time(entry)
        elif known != entry.body:
            raise Breach("one id, one byte string", f"{entry.id}:\n  {known!r}\n  {entry.body!r}")
        if self._stages[STREAM].is_buried(call.host):
            self._verdict.paths["put by the buried"] += 1

    def _check_time(self, entry: Arrival) -> None:
        """No record is ahead of the world's time, and a watermark is behind all records."""
        end_ms = json.loads(entry.body)["window"]["end"]
        if end_ms + OUT_OF_ORDERNESS_MS > self._services.now_ms():
            raise Breach("before its time", f"{entry.body!r}")
