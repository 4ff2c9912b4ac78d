"""Our Kinesis over a real socket: JSON 1.1 on HTTP, as the service's SDKs speak it.

    async with KinesisServer() as server:
        client = session.create_client("kinesis", endpoint_url=server.url, ...)

or `python -m processor.local.kinesis_server --port 0`, which prints its URL when it is ready and
ends with 0 on SIGTERM. Signatures are not verified: keep it on loopback, which is the default.
Beside the service's own operations, `/_local/faults` takes a JSON list of faults (POST), shows
those still pending (GET) and forgets them (DELETE); see kinesis_faults. `--journal FILE` notes each
page that a worker got, but for answers with a fault; see journal.
"""

import argparse
import asyncio
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from email.utils import formatdate
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Self

import msgspec
import uvloop
from aiohttp import web

from processor.local.journal import Journal
from processor.local.kinesis_api import answer_in_part, answer_to, page_json, page_of, shard_of
from processor.local.kinesis_errors import ServiceError
from processor.local.kinesis_faults import Fault, Faults
from processor.local.kinesis_limits import MEBIBYTE, Limits
from processor.local.kinesis_model import KinesisModel, expired_iterator

CONTENT_TYPE = "application/x-amz-json-1.1"
REQUEST_BODY_MAX = 20 * MEBIBYTE  # 10 MiB of data are 13.3 in base64; the rest is for keys
STOP_S = 1.0  # what requests under way get when the server stops; a delayed fault is cut off
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing then sends a reset instead of a FIN


class KinesisServer:
    """A wire server around one `model`; `faults` is what it shall do wrong next.

    `clock` gives wall-clock seconds and is the only clock: arrival times, expiry, rates, retention
    and the Date header follow it.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
    ) -> None:
        self.model = KinesisModel(limits)
        self.faults = Faults()
        self._host = host
        self._port = port
        self._clock = clock
        self._journal = journal
        self._runner: web.ServerRunner | None = None
        self._requests = count(1)

    def __repr__(self) -> str:
        where = self.url if self._runner is not None else "stopped"
        return f"<KinesisServer {where} {self.model!r} {self.faults!r}>"

    @property
    def url(self) -> str:
        """The endpoint, once started."""
        assert self._runner is not None, "start() comes first"
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def now_ms(self) -> int:
        return round(self._clock() * 1000)

    def create_stream(self, name: str, shard_count: int) -> None:
        """A shortcut past the socket; errors as in KinesisModel.create_stream."""
        self.model.create_stream(name, shard_count, self.now_ms())

    def load(self, name: str, pairs: Iterable[tuple[str, bytes]]) -> int:
        """Append (partition key, data) pairs in bulk, whatever the rates say; how many."""
        return self.model.load(name, pairs, self.now_ms())

    async def start(self) -> None:
        """Listen. Cancelling it leaves nothing open that stop() doesn't close."""
        server = web.Server(self._handle, request_factory=_request)
        self._runner = web.ServerRunner(server, shutdown_timeout=STOP_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Close the socket and all connections, within about a second. May be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await request.read()
            if request.path == "/_local/faults":
                return self._response(*self._administer(request.method, body))
            operation = _operation(request)
            shard = shard_of(self.model, operation, body, self.now_ms()) if self.faults else None
            fault = self.faults.take(operation, shard)
            if fault is None:
                return self._response(self._answer(request, operation, body))
            return await self._answer_with_fault(fault, request, operation, body)
        except ServiceError as error:
            return self._refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return self._refusal(ServiceError("RequestEntityTooLargeException", "Too long.", 413))

    def _answer(self, request: web.BaseRequest, operation: str, body: bytes) -> bytes:
        if self._journal is None or operation != "GetRecords":
            return answer_to(self.model, operation, body, self.now_ms())
        page = page_of(self.model, body, self.now_ms())
        self._journal.note(request.headers.get("Authorization", ""), page)
        return page_json(page)

    async def _answer_with_fault(
        self, fault: Fault, request: web.BaseRequest, operation: str, body: bytes
    ) -> web.StreamResponse:
        await asyncio.sleep(fault.delay_ms / 1000)
        match fault.kind:
            case "throttle" | "internal" | "expired_iterator":
                raise self._injected(fault)
            case "reset":
                return _reset(request)
        answer_of = answer_in_part if fault.kind == "partial" else answer_to
        answer = answer_of(self.model, operation, body, self.now_ms())
        match fault.kind:
            case "lost":
                return _reset(request)
            case "empty":
                return self._response(b"{}")
            case "cut":
                return self._response(answer[: len(answer) // 2])
            case "delay" | "partial":
                return self._response(answer)

    def _injected(self, fault: Fault) -> ServiceError:
        if fault.kind == "throttle":
            return ServiceError(
                "ProvisionedThroughputExceededException", "Rate exceeded (injected)."
            )
        if fault.kind == "internal":
            return ServiceError("InternalFailure", "Internal service failure (injected).", 500)
        lives_ms = self.model.limits.iterator_ms
        return expired_iterator(self.now_ms() - lives_ms - 1, self.now_ms(), lives_ms)

    def _administer(self, method: str, body: bytes) -> tuple[bytes, int]:
        try:
            if method == "POST":
                self.faults.add(*msgspec.json.decode(body, type=list[Fault]))
            elif method == "DELETE":
                self.faults.clear()
        except (msgspec.DecodeError, ValueError) as error:
            return msgspec.json.encode({"message": str(error)}), 400
        return msgspec.json.encode(self.faults.pending), 200

    def _refusal(self, error: ServiceError) -> web.Response:
        body = msgspec.json.encode({"__type": error.kind, "message": error.message})
        response = self._response(body, error.status)
        response.headers["x-amzn-ErrorType"] = error.kind
        return response

    def _response(self, body: bytes, status: int = 200) -> web.Response:
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Date": _http_date(self.now_ms() // 1000),
            "x-amzn-RequestId": f"00000000-0000-0000-0000-{next(self._requests):012x}",
        }
        return web.Response(body=body, status=status, headers=headers)


def _operation(request: web.BaseRequest) -> str:
    """The operation's name; ServiceError for what isn't a request of this API's JSON protocol."""
    version, _, operation = request.headers.get("X-Amz-Target", "").partition(".")
    if "cbor" in request.content_type:
        raise ServiceError(
            "SerializationException",
            f"{request.content_type} is not spoken here, only {CONTENT_TYPE};"
            " switch CBOR off in the client (AWS_CBOR_DISABLE=true).",
        )
    if request.method != "POST" or version != "Kinesis_20131202":
        raise ServiceError(
            "UnknownOperationException", "POST with X-Amz-Target: Kinesis_20131202.<operation>"
        )
    return operation


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection; the response that aiohttp wants goes nowhere."""
    transport = request.transport
    if transport is not None:
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return web.Response()


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: "asyncio.Task[None]"
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=REQUEST_BODY_MAX
    )


@lru_cache(maxsize=4)
def _http_date(at_s: int) -> str:
    return formatdate(at_s, usegmt=True)


async def serve(server: KinesisServer, streams: Sequence[tuple[str, int]]) -> None:
    """Run until SIGTERM or SIGINT; print the URL once `streams` (name, shards) are there."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with server:
        for name, shard_count in streams:
            server.create_stream(name, shard_count)
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stopping.wait()


def _stream_argument(text: str) -> tuple[str, int]:
    name, _, shard_count = text.partition(":")
    return name, int(shard_count)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m processor.local.kinesis_server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--no-rates", action="store_true", help="shards without rate limits")
    parser.add_argument(
        "--stream", type=_stream_argument, action="append", default=[], metavar="NAME:SHARDS"
    )
    parser.add_argument("--journal", type=Path, metavar="FILE", help="note there who read what")
    options = parser.parse_args(arguments)
    limits = Limits.without_rates() if options.no_rates else Limits()
    with ExitStack() as stack:
        journal = None
        if options.journal is not None:
            journal = Journal(stack.enter_context(options.journal.open("a", buffering=1)))
        server = KinesisServer(limits, host=options.host, port=options.port, journal=journal)
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(serve(server, options.stream))


if __name__ == "__main__":
    main()
