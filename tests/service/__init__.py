"""The real service in tests: `processor run` processes, and what they run against on loopback.

    async with running_world(ministack_url, tmp_path) as world:
        scene = await world.scene("outage", shards=2)     a stream, a table, a bus, queues
        worker = await scene.start_worker()
        scene.put(100)
        await scene.finish()                              every window arrived, and exactly

A record is a tick: (key, time, value). Its times lie a day back, one tick a tenth of a second, so
`finish` can close every window with one late-timed record a shard. No event ids are configured: a
record that was fed twice would show in the figures.

`scene` has what a worker runs against, `worker` one process, `ticks` the records and their truth,
`waiting` how one waits for a state.
"""

from tests.service.scene import SECRET, SERVICES, Scene, World, running_world
from tests.service.waiting import eventually, together
from tests.service.worker import Worker, balanced

__all__ = [
    "SECRET",
    "SERVICES",
    "Scene",
    "Worker",
    "World",
    "balanced",
    "eventually",
    "running_world",
    "together",
]
