"""The HTTP endpoints, over real sockets: what they answer, and what they survive."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from processor.errors import Unavailable
from processor.observe import http
from processor.observe.board import Totals
from processor.observe.http import Health, HttpServer, Status, Views
from processor.observe.latency import LatencyRecorder
from processor.observe.metrics import Metrics


def status() -> Status:
    recorder = LatencyRecorder()
    recorder.record(0.25)
    return Status(
        worker_id="w-1",
        version="1.2.3",
        app="shop",
        state="running",
        totals=Totals(records=7),
        latency={"close_to_accepted": recorder.summary(), "end_to_end": recorder.summary()},
        leases=[{"shard_id": "shard-0", "epoch": 3}],
        shards={"shard-0": {"position": "after:49", "epoch": 3}},
    )


def views(metrics: Metrics | None = None) -> Views:
    served = metrics or Metrics()
    return Views(
        health=Health,
        readiness=Health,
        metrics=lambda: served,
        status=status,
        leases=lambda: status().leases,
    )


@asynccontextmanager
async def serving(shown: Views) -> AsyncIterator[aiohttp.ClientSession]:
    server = HttpServer("127.0.0.1", 0, shown)
    await server.start()
    try:
        async with aiohttp.ClientSession(server.url) as client:
            yield client
    finally:
        await server.stop()


async def get(client: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, str]:
    async with client.get(path, headers=headers) as answer:
        return answer.status, await answer.text()


# Health


async def test_a_worker_that_is_well_and_ready_says_ok() -> None:
    async with serving(views()) as client:
        assert await get(client, "/healthz") == (200, "ok\n")
        assert await get(client, "/readyz") == (200, "ok\n")


async def test_reasons_are_told_a_line_each_with_503() -> None:
    ill = Health(("shard-0 stands still", "the event loop is late"))
    starting = Health(("starting: no lease yet",))
    shown = replace(views(), health=lambda: ill, readiness=lambda: starting)
    async with serving(shown) as client:
        assert await get(client, "/healthz") == (
            503,
            "shard-0 stands still\nthe event loop is late\n",
        )
        assert await get(client, "/readyz") == (503, "starting: no lease yet\n")


async def test_a_thousand_reasons_are_cut_and_counted() -> None:
    ill = Health(tuple(f"shard-{i} stands still" for i in range(1_000)))
    async with serving(replace(views(), health=lambda: ill)) as client:
        _, text = await get(client, "/healthz")
    assert len(text.splitlines()) == http.REASONS_MAX + 1
    assert text.splitlines()[-1] == "… and 980 more"


# Metrics


async def test_metrics_come_as_prometheus_text_unless_openmetrics_is_asked_for() -> None:
    metrics = Metrics()
    metrics.add("rejects_total", 3, reason="bad_json")
    async with serving(views(metrics)) as client:
        async with client.get("/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await answer.text()
        accept = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"
        async with client.get("/metrics", headers={"Accept": accept}) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text;")
            open_text = await answer.text()
    for families in (parse_text(text), parse_openmetrics(open_text)):
        samples = [s for f in families for s in f.samples if s.name.endswith("rejects_total")]
        assert [(s.name, s.labels, s.value) for s in samples] == [
            ("processor_rejects_total", {"reason": "bad_json"}, 3)
        ]


# Status and leases


async def test_status_has_the_agreed_shape() -> None:
    async with serving(views()) as client, client.get("/status") as answer:
        assert answer.content_type == "application/json"
        told: dict[str, Any] = await answer.json()
    assert list(told) == [
        *("worker_id", "version", "app", "state", "totals", "latency", "leases", "shards"),
        *("ended", "merge"),
    ]
    assert set(told["totals"]) == {
        *("records", "payload_bytes", "counted", "duplicates", "late", "unmatched", "rejects"),
        *("events_published", "dead_letters"),
    }
    assert set(told["latency"]) == {"close_to_accepted", "end_to_end"}
    assert set(told["latency"]["end_to_end"]) == {
        *("count", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "histogram")
    }
    assert told["totals"]["records"] == 7
    assert told["shards"]["shard-0"] == {"position": "after:49", "epoch": 3}


async def test_leases_are_a_list() -> None:
    async with serving(views()) as client, client.get("/leases") as answer:
        assert await answer.json() == [{"shard_id": "shard-0", "epoch": 3}]


# What it refuses and survives


async def test_other_paths_are_not_found_and_other_methods_not_allowed() -> None:
    async with serving(views()) as client:
        assert (await get(client, "/"))[0] == 404
        assert (await get(client, "/healthz/more"))[0] == 404
        async with client.post("/status", data=b"x" * 1_000_000) as answer:
            assert answer.status == 405
        async with client.head("/healthz") as answer:
            assert answer.status == 200


async def test_a_view_that_fails_is_a_500_and_a_log_line_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Status:
        raise AssertionError("totals do not add up")

    with caplog.at_level(logging.ERROR):
        async with serving(replace(views(), status=broken)) as client:
            assert (await get(client, "/status"))[0] == 500
            assert (await get(client, "/healthz"))[0] == 200
    assert "totals do not add up" in caplog.text


async def test_headers_without_end_are_refused() -> None:
    async with serving(views()) as client:
        status_, _ = await get(client, "/healthz", **{"X-Long": "x" * 20_000})
    assert status_ == 400


async def test_who_comes_when_all_places_are_taken_is_turned_away_until_one_is_free() -> None:
    server = HttpServer("127.0.0.1", 0, views())
    await server.start()
    request = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
    guests = []
    try:
        for _ in range(http.CONNECTIONS_MAX):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(request)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            guests.append(writer)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        assert await reader.read() == b""
        writer.close()
    finally:
        await server.stop()
        for guest in guests:
            guest.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "])
async def test_a_connection_ends_after_its_time_even_if_its_request_never_does(
    sent: bytes,
) -> None:
    server = HttpServer("127.0.0.1", 0, views(), connection_s_max=0.05)
    await server.start()
    try:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(sent)
        with suppress(ConnectionResetError):  # the abort's own sign
            assert await reader.read() == b""
        writer.close()
    finally:
        await server.stop()


async def test_stopping_closes_idle_connections_and_frees_the_port() -> None:
    first = HttpServer("127.0.0.1", 0, views())
    await first.start()
    reader, writer = await asyncio.open_connection(first.host, first.port)
    await first.stop()
    await first.stop()
    assert await reader.read() == b""
    writer.close()
    second = HttpServer(first.host, first.port, views())
    await second.start()
    await second.stop()


async def test_a_taken_address_is_named_with_what_to_do() -> None:
    first = HttpServer("127.0.0.1", 0, views())
    await first.start()
    second = HttpServer("127.0.0.1", first.port, views())
    try:
        with pytest.raises(Unavailable) as caught:
            await second.start()
    finally:
        await first.stop()
    assert str(caught.value).startswith(f"HTTP address 127.0.0.1:{first.port}: listening on it")
    assert "set http.host and http.port" in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70_000)])
async def test_an_address_that_is_not_this_machines_is_unavailable(host: str, port: int) -> None:
    with pytest.raises(Unavailable):
        await HttpServer(host, port, views()).start()
