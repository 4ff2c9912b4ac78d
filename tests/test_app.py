"""How a worker is put together: adapters for all that a pipeline file may name, and what it tells.

The service as a whole is in test_service.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from processor import app, assembly, config
from processor.config.shape import SINKS
from processor.model import Pipeline, SinkSpec, SourceSpec
from processor.runtime.aws import open_aws
from processor.runtime.stages import Stages
from tests.runtime.in_memory import Town, until
from tests.virtual_time import run

SHOP = Path(__file__).parent / "pipelines" / "shop.yaml"


@pytest.fixture
def pipeline() -> Pipeline:
    return config.load(str(SHOP), {})


def test_the_region_is_the_one_that_is_set_else_the_streams_own(pipeline: Pipeline) -> None:
    arn = "arn:aws:kinesis:eu-west-2:123456789012:stream/orders"
    cases = {None: SourceSpec("orders"), "eu-west-2": SourceSpec(arn)}
    cases |= {"sa-east-1": SourceSpec(arn, region="sa-east-1")}
    for region, source in cases.items():
        assert assembly.region_of(replace(pipeline, source=source)) == region


def test_the_hash_of_a_pipeline_changes_with_anything_in_it(pipeline: Pipeline) -> None:
    assert app.config_hash(pipeline) == app.config_hash(config.load(str(SHOP), {}))
    changed = config.load(str(SHOP), {}, ["rules.orders-by-store.max_groups=7"])
    assert app.config_hash(pipeline) != app.config_hash(changed)


async def test_every_kind_of_sink_that_a_file_may_name_has_an_adapter(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    process = app.Process(pipeline)
    async with open_aws("us-east-1", connections_max=1) as aws:
        for kind in SINKS:
            sink = await assembly.sink(
                process.shop(aws), process.reporter, SinkSpec("one", kind, "json")
            )
            assert callable(sink.put), kind


# ---- what it tells ------------------------------------------------------------------------------


def test_readiness_follows_the_workers_life(pipeline: Pipeline) -> None:
    async def main() -> None:
        process = app.Process(pipeline)
        process.awaited = "the stream"
        views = process.views()
        assert views.readiness().reasons == ("starting: waiting for the stream",)
        assert (views.status().worker_id, views.leases()) == ("", [])
        town = Town()
        life = town.start()
        process.stages, process.state = Stages(life.worker), "running"
        (reason,) = views.readiness().reasons
        assert "heartbeat" in reason, "it has not joined yet"
        await until(lambda: life.worker.shards())
        assert views.readiness().is_well
        assert views.status().worker_id == life.worker.worker_id
        assert list(views.status().shards) == list(life.worker.shards())
        process.state = "draining"
        assert views.readiness().reasons == ("draining: the leases are being handed over",)
        assert views.health().is_well, "draining is no illness"
        await life.stop()

    run(main())


def test_draining_is_told_by_status_and_metrics(pipeline: Pipeline) -> None:
    process = app.Process(pipeline)
    views = process.views()
    assert views.status().state == "starting"
    assert "processor_draining 0.0" in views.metrics().text().decode()
    process.state = "draining"
    assert views.status().state == "draining"
    assert "processor_draining 1.0" in views.metrics().text().decode()


@contextmanager
def outlived(number: signal.Signals) -> Iterator[None]:
    """Without a handler the signal would end the whole run, not one test."""
    former = signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(number, former)


async def test_a_first_signal_asks_for_an_end_in_order_and_a_second_one_ends_at_once(
    pipeline: Pipeline,
) -> None:
    process, stopping = app.Process(pipeline), asyncio.Event()
    with outlived(signal.SIGTERM), app._signals(process, stopping):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await stopping.wait()
        assert process.state == "draining"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "who waits no longer may kill"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
