"""What an operator can ask a worker over HTTP: health, readiness, metrics, status, leases.

    /healthz   200, or 503 with reasons: the event loop and every owned shard get on
    /readyz    200, or 503 with reasons: starting, draining, no heartbeats, idle and barred
    /metrics   Prometheus text, or OpenMetrics where the Accept header names it
    /status    JSON, see `Status`          /leases    JSON list

Answers are made from memory, by callables, in milliseconds (a scrape with 200 shards: 25): no
dependency is asked. What a client can take up is bounded: headers by aiohttp (8 KB a line, 128
lines), bodies by not being read, connections in number and in length of life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from processor.errors import Unavailable
from processor.observe.latency import Latency
from processor.observe.metrics import OPENMETRICS_TYPE, TEXT_TYPE, Metrics

# Prometheus, a kubelet, a load balancer and some people: a dozen at once.
CONNECTIONS_MAX = 64
# A scrape ends within 10 s by Prometheus' default; who is slower may connect again.
CONNECTION_S_MAX = 30.0
STOP_S_MAX = 2.0  # for answers under way: of the 30 s that a shutdown may take in all
REASONS_MAX = 20  # of perhaps a thousand shards that stand still; the count is told

State = Literal["starting", "running", "draining"]


class Health(Struct, frozen=True):
    """Well if there is no reason why not; each reason is a sentence for the person on call."""

    reasons: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        return not self.reasons


class StageView(Struct, frozen=True):
    """One stage of a worker; members as in `Status`."""

    stream: str = ""
    worker_id: str = ""
    leases: Sequence[Any] = ()
    shards: Mapping[str, Any] = {}
    ended: Mapping[str, Any] = {}


class Status(Struct, frozen=True):
    """What `/status` tells. Shards and leases are any Structs or mappings that JSON can hold."""

    worker_id: str
    version: str
    app: str
    state: State
    totals: Any  # `board.Totals`: since the process began
    latency: Mapping[str, Latency]
    leases: Sequence[Any]
    shards: Mapping[str, Any]
    ended: Mapping[str, Any] = {}  # shards that came to their end here, as they were then
    merge: StageView | None = None  # the merge stage; what stands above is the source's


class Views(Struct, frozen=True):
    """Where answers come from; called on the event loop, so they must return within milliseconds.

    `metrics` may bring gauges up to date first (`Reporter.refresh`).
    """

    health: Callable[[], Health]
    readiness: Callable[[], Health]
    metrics: Callable[[], Metrics]
    status: Callable[[], Status]
    leases: Callable[[], Sequence[Any]]


class HttpServer:
    """The endpoints on one address; port 0 takes a free one, which `port` tells after `start`."""

    def __init__(
        self, host: str, port: int, views: Views, connection_s_max: float = CONNECTION_S_MAX
    ):
        self.host, self.port = host, port
        self._views = views
        self._connection_s_max = connection_s_max
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        state = "serving" if self._server else "stopped"
        return f"<HttpServer {self.url} {state}>"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Serve; raises Unavailable if the address can't be had. Cancelling leaves nothing open."""
        assert self._runner is None, f"{self!r} was started"
        runner = web.AppRunner(
            _application(self._views), access_log=None, keepalive_timeout=self._connection_s_max
        )
        await runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                _Door(runner, self._connection_s_max), self.host, self.port
            )
        except (OSError, OverflowError) as error:
            raise Unavailable(
                f"HTTP address {self.host}:{self.port}",
                "listening on it",
                f"set http.host and http.port to one that is free here ({error})",
            ) from error
        finally:
            if self._server is None:
                await runner.cleanup()
        self._runner = runner
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, let answers under way go out, close all connections. May be repeated."""
        server, runner = self._server, self._runner
        self._server = self._runner = None
        if server is None or runner is None:
            return
        server.close()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await runner.cleanup()
        except TimeoutError:
            _cut_all(runner)


class _Door:
    """Makes a connection's protocol; turns away whom there is no room for."""

    def __init__(self, runner: web.AppRunner, connection_s_max: float):
        assert runner.server is not None, "the runner is set up first"
        self._server = runner.server
        self._connection_s_max = connection_s_max

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) >= CONNECTIONS_MAX:
            return _TurnedAway()
        protocol = self._server()
        asyncio.get_running_loop().call_later(self._connection_s_max, _cut, protocol)
        return protocol


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _cut(protocol: web.RequestHandler) -> None:
    if isinstance(protocol.transport, asyncio.Transport):
        protocol.transport.abort()


def _cut_all(runner: web.AppRunner) -> None:
    assert runner.server is not None
    for protocol in runner.server.connections:
        _cut(protocol)


# ---- answers --------------------------------------------------------------------------------


def _application(views: Views) -> web.Application:
    app = web.Application(client_max_size=1)  # nobody reads a body
    answers: Mapping[str, Callable[[web.Request], web.Response]] = {
        "/healthz": lambda _: _health(views.health()),
        "/readyz": lambda _: _health(views.readiness()),
        "/metrics": lambda request: _metrics(request, views.metrics()),
        "/status": lambda _: _json(views.status()),
        "/leases": lambda _: _json(views.leases()),
    }
    for path, answer in answers.items():
        app.router.add_get(path, _handler(answer))
    return app


def _handler(
    answer: Callable[[web.Request], web.Response],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        response = answer(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    return handle


def _health(health: Health) -> web.Response:
    if health.is_well:
        return web.Response(text="ok\n")
    lines = list(health.reasons[:REASONS_MAX])
    if len(health.reasons) > REASONS_MAX:
        lines.append(f"… and {len(health.reasons) - REASONS_MAX} more")
    return web.Response(status=503, text="\n".join(lines) + "\n")


def _metrics(request: web.Request, metrics: Metrics) -> web.Response:
    if "application/openmetrics-text" in request.headers.get("Accept", ""):
        return web.Response(body=metrics.openmetrics(), headers={"Content-Type": OPENMETRICS_TYPE})
    return web.Response(body=metrics.text(), headers={"Content-Type": TEXT_TYPE})


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
