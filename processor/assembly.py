"""Makes the adapters that a pipeline file names; a new one is one line here."""

from __future__ import annotations

import random
import sys
from io import FileIO
from typing import NamedTuple

import msgspec

from processor.config.checks import arn_region
from processor.core.pacing import Pace
from processor.errors import ConfigError
from processor.model import Pipeline, SinkSpec
from processor.observe.reporter import Reporter
from processor.ports import Clock, DeadLetters, ObjectStore, PartialObserver, ReadObserver, Sink
from processor.runtime.aws import Aws
from processor.sinks.eventbridge import EventBridgeOptions, EventBridgeSink
from processor.sinks.partials import KinesisRecords, StreamPartials
from processor.sinks.sqs import SqsDeadLetters
from processor.sinks.stdout import StdoutSink
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from processor.stores.dynamodb import DynamoTable
from processor.stores.folder import FolderObjects
from processor.stores.s3 import S3Objects

# We are the merge stream's only reader, so a shard is asked as often as the service allows, less a
# tenth for the moments in which it changes hands: what all shards told is merged a quarter of a
# second later.
MERGE_PACE = Pace(reads_per_s=4.5, caught_up_s=0.2, caught_up_s_max=0.2)


class Shop(NamedTuple):
    """What adapters are made with."""

    pipeline: Pipeline
    aws: Aws
    clock: Clock
    rng: random.Random
    budget: ByteBudget


def region_of(pipeline: Pipeline) -> str | None:
    """The region that is set, or that of the stream's ARN; None for the environment's."""
    return pipeline.source.region or arn_region(pipeline.source.stream)


# ---- streams ----------------------------------------------------------------------------------


async def source(shop: Shop, observer: ReadObserver) -> KinesisSource:
    stream = shop.pipeline.source.stream
    reading = Reading(shop.clock, shop.rng, shop.budget, observer=observer)
    return KinesisSource(await _wire(shop, f"stream {stream}"), stream, reading)


async def merge_source(shop: Shop, observer: ReadObserver) -> KinesisSource:
    stream = merge_stream(shop)
    reading = Reading(shop.clock, shop.rng, shop.budget, MERGE_PACE, observer)
    return KinesisSource(await _wire(shop, f"merge stream {stream}"), stream, reading)


async def partials(shop: Shop, observer: PartialObserver) -> StreamPartials:
    stream = merge_stream(shop)
    records = KinesisRecords(await _wire(shop, f"merge stream {stream}"), stream)
    return StreamPartials(records, shop.clock, shop.rng, observer)


def merge_stream(shop: Shop) -> str:
    """Name or ARN; ConfigError where the ARN is of another region than we read in."""
    assert shop.pipeline.merge is not None, "no rule is global"
    stream = shop.pipeline.merge.stream
    region = arn_region(stream)
    if region not in (None, shop.aws.region):
        expected = f"one in the source's region, {shop.aws.region}"
        raise ConfigError("merge.stream", f"a stream in {region}", expected)
    return stream


async def _wire(shop: Shop, subject: str) -> Wire:
    url = await shop.aws.endpoint("kinesis")
    signer = Signer(url, shop.aws.region, "kinesis")
    return Wire(await shop.aws.http(url), signer, shop.aws.credentials, shop.clock, subject)


# ---- targets ----------------------------------------------------------------------------------


async def sink(shop: Shop, reporter: Reporter, spec: SinkSpec) -> Sink:
    """One line a kind."""
    match spec.kind:
        case "eventbridge":
            return EventBridgeSink(
                await shop.aws.client("events"),
                spec.name,
                spec.target,
                clock=shop.clock,
                rng=shop.rng,
                observer=reporter.sinks,
                options=msgspec.convert(spec.options, EventBridgeOptions),
            )
        case "stdout":
            out = FileIO(sys.stdout.fileno(), "wb", closefd=False)
            return StdoutSink(spec.name, out)
    raise AssertionError(f"sink {spec.name}: {spec.kind} passed validation without an adapter")


async def dead_letters(shop: Shop, reporter: Reporter, stream: str) -> DeadLetters:
    """Those of one stream's records, and of the events that are told of it."""
    return SqsDeadLetters(
        await shop.aws.client("sqs"),
        shop.pipeline.dead_letters.sqs,
        stream,
        clock=shop.clock,
        rng=shop.rng,
        observer=reporter.dead_letters,
    )


# ---- stores -----------------------------------------------------------------------------------


async def table(shop: Shop) -> DynamoTable:
    return DynamoTable(await shop.aws.client("dynamodb"), shop.pipeline.state.table)


async def objects(shop: Shop) -> ObjectStore | None:
    location = shop.pipeline.state.objects
    if location is None:
        return None
    if location.startswith("s3://"):
        return S3Objects(await shop.aws.client("s3"), location)
    return FolderObjects(location)
