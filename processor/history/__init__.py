"""Recorded input: reading it, and running a pipeline over it as fast as it goes.

    recorded = history.read(["captures/2026-10-*.jsonl.gz"], pipeline.event)
    for event in history.run(pipeline, recorded): …

fields     the partition key and the time of an event
lines      a line of a recording → a record
sources    files, folders, globs and objects in S3 → their bytes, decompressed
recording  all lines of all of them, lazily; what is wrong with some is counted, and told
shards     a shard of either stage, alone
stages     both stages, without streams
running    a pipeline over a recording: its derived events
learning   … what its detectors learn of it, for each shard of a stream
warming    a warm start: refused or not, learning, writing the first states
"""

from processor.history.lines import Recorded as Recorded
from processor.history.recording import Bad as Bad
from processor.history.recording import Recording as Recording
from processor.history.recording import read as read
from processor.history.running import run as run
