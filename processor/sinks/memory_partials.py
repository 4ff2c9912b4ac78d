"""The merge stream in memory: partials go straight into a `MemorySource`, and fail as told.

The same packing, order and retries as on the way to Kinesis; the far side is `MemoryRecords`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from processor.core.packing import Result
from processor.sinks.delivery import Answered, Failed, Outcome
from processor.sinks.memory import AnswerLost, Dropped, Fault, Healthy, Throttled
from processor.sinks.partials import AGAIN, Entry
from processor.sources.memory import MemorySource


class MemoryRecords:
    """PutRecords on a stream in memory. `script` says what happens to the next requests."""

    def __init__(self, stream: MemorySource, script: Iterable[Fault] = ()) -> None:
        self._stream = stream
        self.script = deque(script)
        self.is_down = False
        self.taken = 0  # records, repeats included

    def __repr__(self) -> str:
        return f"<MemoryRecords of {self._stream!r} is_down={self.is_down}>"

    async def __call__(self, entries: Sequence[Entry]) -> Outcome:
        fault = self.script.popleft() if self.script else Healthy()
        if self.is_down or isinstance(fault, Dropped):
            return Failed("Down")
        throttled = fault.places if isinstance(fault, Throttled) else frozenset[int]()
        results = []
        for place, entry in enumerate(entries):
            if place in throttled:
                results.append(Result(AGAIN, "Throttled"))
                continue
            self._stream.put_at(int(entry.explicit_hash_key), entry.data, entry.partition_key)
            self.taken += 1
            results.append(Result())
        return Failed("AnswerLost") if isinstance(fault, AnswerLost) else Answered(tuple(results))
