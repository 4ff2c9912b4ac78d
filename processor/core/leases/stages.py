"""The stages of a lease, from its claim to its end.

    RUNNING → OFFERED → STOPPING → STOPPED → GIVEN → gone      handed over
    OFFERED → RUNNING                                the taker went, or leaves itself
    RUNNING → STOPPING                               the worker stops, and nobody is there to take
    RUNNING → FAILED → RUNNING (new epoch)           the task failed, or waited in vain; later and
                                                     later; after `failures_max` failures: PARKED
    RUNNING → gone                                   the shard ended
    RUNNING → STOPPING → STOPPED                     its task stalled: cancelled, and released
    FAILED, PARKED → STOPPED                         the worker stops
    any     → gone                                   lost

No other change is legal; `portfolio.Portfolio` makes them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from processor.core.leases.rows import ShardRow


class Stage(Enum):
    RUNNING = "running"
    OFFERED = "offered"  # it runs on until the taker is ready
    STOPPING = "stopping"
    STOPPED = "stopped"
    GIVEN = "given"
    FAILED = "failed"
    PARKED = "parked"


# How a shard's task ended. `waited`: for something that will be back, such as a stream's service.
TaskEnd = Literal["stopped", "failed", "waited", "unreadable", "lost"]


@dataclass(slots=True)
class Lease:
    """One shard that we own (or just released: GIVEN)."""

    row: ShardRow
    stage: Stage
    since: float
    offered_at: float | None = None
    stopped_at: float | None = None  # when its task was asked to stop
    until: float = 0.0  # OFFERED: stop; STOPPING: cancel; GIVEN: forget; FAILED: claim anew
    rests_until: float = 0.0
    to: str | None = None
    rate: int = 0  # points, as our row says it
    is_cancelled: bool = False  # STOPPING: at `until` the task is no longer waited for
    is_stalled: bool = False  # it is given away for that
    failures: int = 0  # since it last got on
    waits: int = 0  # likewise

    @property
    def has_task(self) -> bool:
        return self.stage in (Stage.RUNNING, Stage.OFFERED, Stage.STOPPING)

    @property
    def setbacks(self) -> int:
        """How often in a row its task ended without having got on."""
        return self.failures + self.waits
