"""The server side of `end-to-end`: our local Kinesis without rates, loaded in bulk, then serving.

    python -m bench.server '{"workload": {...}, "shards": 16, "core": 0}'

prints its URL when everything is loaded and ends with 0 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import uvloop
from msgspec import Struct

from bench import data
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer, serve

STREAM, WARM_UP = "bench", "warm-up"
WARM_UP_RECORDS = 5_000


class Load(Struct, frozen=True):
    workload: data.Workload
    shards: int
    core: int | None  # to stay on


def main() -> None:
    load = msgspec.json.decode(sys.argv[1], type=Load)
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    server = KinesisServer(Limits.without_rates())
    _fill(server, STREAM, load.shards, load.workload)
    warm_up = msgspec.structs.replace(load.workload, records=WARM_UP_RECORDS)
    _fill(server, WARM_UP, 1, warm_up)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(server, []))


def _fill(server: KinesisServer, stream: str, shards: int, workload: data.Workload) -> None:
    server.create_stream(stream, shards)
    events = data.events(workload)
    server.load(stream, [(event.partition_key, event.payload) for event in events])


if __name__ == "__main__":
    main()
