"""What can go wrong, as a tree; each error carries its facts and builds its own sentence.

    ProcessorError          exit 1
    ├── ConfigError         exit 78  the pipeline file is wrong: nothing was started
    ├── UsageError          exit 64  the command line is wrong
    ├── Unavailable         exit 69  a stream, table, bus, queue or permission is missing
    │   └── Missing                  … because it does not exist (any more)
    ├── Refused             exit 75  not now: try again, or stop the owner first
    ├── Outage                       a service does not answer: wait and retry, lose nothing
    │   └── Throttled                … because we ask too often: slow down
    ├── IteratorExpired              a shard iterator outlived its five minutes: ask anew
    ├── LeaseLost                    somebody else owns the shard: its task ends here
    ├── StateUnreadable              a stored state can't be read: never start from nothing
    ├── RetentionGap                 records were gone before they were read: a person decides
    └── StreamReplaced               the stream was deleted and made again under its name

"We are wrong" is an AssertionError, never one of these. A bad record is a value (`model.Reject`).
"""

from __future__ import annotations

from datetime import UTC, datetime


class ProcessorError(Exception):
    """The root: anything that the processor raises on purpose."""

    exit_code = 1


class ConfigError(ProcessorError):
    """The pipeline file is wrong at `path`; `line` is 1-based, None where there is no line."""

    exit_code = 78

    def __init__(
        self, path: str, found: str, expected: str, *, file: str = "", line: int | None = None
    ):
        super().__init__(path, found, expected, file, line)
        self.path, self.found, self.expected = path, found, expected
        self.file, self.line = file, line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        place = ": ".join(part for part in (where, self.path) if part)
        return f"{place}: found {self.found}, expected {self.expected}"


class UsageError(ProcessorError):
    """The command line asks for what does not exist or can't be done, however often it is tried."""

    exit_code = 64


class Unavailable(ProcessorError):
    """Something that must exist before we start does not, or we may not use it."""

    exit_code = 69

    def __init__(self, what: str, action: str, remedy: str):
        super().__init__(what, action, remedy)
        self.what, self.action, self.remedy = what, action, remedy

    def __str__(self) -> str:
        return f"{self.what}: {self.action} failed; {self.remedy}"


class Missing(Unavailable):
    """The service does not find what was asked for: it was never made, or is gone."""


class Refused(ProcessorError):
    """A request that would do harm at present, such as moving a live owner's position; once the
    message's advice is followed, the same command succeeds."""

    exit_code = 75


class Outage(ProcessorError):
    """A dependency does not answer or answers with its own failure; the call may be repeated."""

    def __init__(self, service: str, operation: str, cause: str):
        super().__init__(service, operation, cause)
        self.service, self.operation, self.cause = service, operation, cause

    def __str__(self) -> str:
        return f"{self.service} {self.operation}: {self.cause}"


class Throttled(Outage):
    """The service asks us to slow down."""


class IteratorExpired(ProcessorError):
    """The iterator is older than five minutes; the reader asks for a new one at its position."""


class LeaseLost(ProcessorError):
    """A conditional write found another epoch: what we would still do is no longer ours to do."""

    def __init__(self, shard_id: str, epoch: int):
        super().__init__(shard_id, epoch)
        self.shard_id, self.epoch = shard_id, epoch

    def __str__(self) -> str:
        return f"lease of {self.shard_id} at epoch {self.epoch} is lost"


class StateUnreadable(ProcessorError):
    """A snapshot is damaged, missing or of another format."""

    def __init__(self, shard_id: str, reason: str):
        super().__init__(shard_id, reason)
        self.shard_id, self.reason = shard_id, reason

    def __str__(self) -> str:
        return f"state of {self.shard_id} can't be read: {self.reason}"


class RetentionGap(ProcessorError):
    """Records that arrived from `first_ms` on, and before `last_ms`, may be gone unread."""

    def __init__(self, shard_id: str, first_ms: int, last_ms: int):
        super().__init__(shard_id, first_ms, last_ms)
        self.shard_id, self.first_ms, self.last_ms = shard_id, first_ms, last_ms

    def __str__(self) -> str:
        return (
            f"records of {self.shard_id} that arrived between {_utc(self.first_ms)} and"
            f" {_utc(self.last_ms)} are past the stream's retention, and were not read;"
            " set source.on_gap to continue to go on without them, and a longer retention"
            " (aws kinesis increase-stream-retention-period) to keep what comes"
        )


class StreamReplaced(ProcessorError):
    """The stream is another one than at the start: made at `after_ms`, not at `before_ms`."""

    def __init__(self, name: str, before_ms: int, after_ms: int):
        super().__init__(name, before_ms, after_ms)
        self.name, self.before_ms, self.after_ms = name, before_ms, after_ms

    def __str__(self) -> str:
        return f"stream {self.name} was deleted, and made again at {_utc(self.after_ms)}"


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
