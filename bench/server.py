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

WARM_UP, STREAM = "warm-up", "bench"  # the second goes on where the first ends


class Load(Struct, frozen=True):
    workload: data.Workload
    shards: int
    core: int | None  # to stay on


def main() -> None:
    load = msgspec.json.decode(sys.argv[1], type=Load)
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    server = KinesisServer(Limits.without_rates())
    pairs = [(event.partition_key, event.payload) for event in data.events(load.workload)]
    warm_up = load.workload.warm_up
    for stream, part in ((WARM_UP, pairs[:warm_up]), (STREAM, pairs[warm_up:])):
        server.create_stream(stream, load.shards)
        server.load(stream, part)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(server, []))


if __name__ == "__main__":
    main()
