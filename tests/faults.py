"""A proxy in front of a stand-in for AWS that fails as it is told to, for tests of any adapter.

`script` says what happens to the next requests of the chosen operations, one fault a request; then
all goes well again. Other operations pass. `hold` keeps operations waiting until `release`;
`close_door` refuses connections until `open_door`.
`passed` keeps the JSON bodies of what reached the service, in order; `statuses` what it answered.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web


@dataclass(frozen=True)
class Pass:
    """Nothing happens."""


@dataclass(frozen=True)
class Answer:
    """The service says this, and does nothing; `code` is the error's, in its header and body."""

    status: int
    code: str
    message: str = "as the test wants it"


@dataclass(frozen=True)
class Garble:
    """The request takes effect, and its answer is an empty JSON object."""


@dataclass(frozen=True)
class Hang:
    """The request goes nowhere, and no answer comes as long as the client waits."""


@dataclass(frozen=True)
class CutAfter:
    """The request takes effect, and the connection is cut before its answer."""


@dataclass(frozen=True)
class FailEntries:
    """The entries at these places fail with that code and take no effect; the others pass."""

    codes: Mapping[int, str]


Fault = Pass | Answer | Garble | Hang | CutAfter | FailEntries


class FaultProxy:
    """See the module; made by `fault_proxy`."""

    def __init__(self, upstream: str, operations: Collection[str], script: Iterable[Fault]):
        self.url = ""
        self.script = deque(script)
        self.passed: list[Any] = []
        self.statuses: list[int] = []
        self._upstream, self._operations = upstream, operations
        self._held: Collection[str] = ()
        self._released = asyncio.Event()
        self._site: web.TCPSite | None = None
        self._runner: web.AppRunner
        self._client: aiohttp.ClientSession

    async def open_door(self) -> None:
        """Take connections, always on the same port."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close_door(self) -> None:
        """Refuse new connections; those that stand go on."""
        assert self._site is not None
        await self._site.stop()
        self._site = None

    def hold(self, *operations: str) -> None:
        """Let their requests wait, from now on until `release`."""
        self._held, self._released = operations, asyncio.Event()

    def release(self) -> None:
        self._held = ()
        self._released.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation in self._held:
            await self._released.wait()
        if operation not in self._operations or not self.script:
            return await self._forward(request, body, operation)
        fault = self.script.popleft()
        if isinstance(fault, Answer):
            return _error(fault)
        if isinstance(fault, Hang):
            await asyncio.Event().wait()  # aiohttp cancels us when the client has gone
        if isinstance(fault, FailEntries):
            return await self._forward_some(request, body, operation, fault)
        answer = await self._forward(request, body, operation)
        if isinstance(fault, CutAfter) and request.transport is not None:
            request.transport.abort()
        return web.json_response({}) if isinstance(fault, Garble) else answer

    async def _forward(self, request: web.Request, body: bytes, operation: str) -> web.Response:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "accept-encoding")
        }
        url = self._upstream + request.rel_url.raw_path_qs
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            if operation in self._operations:
                self.passed.append(json.loads(body))
                self.statuses.append(answer.status)
            kind = answer.headers.get("Content-Type", "application/x-amz-json-1.1")
            return web.Response(status=answer.status, body=content, headers={"Content-Type": kind})

    async def _forward_some(
        self, request: web.Request, body: bytes, operation: str, fault: FailEntries
    ) -> web.Response:
        asked = json.loads(body)
        entries = asked["Entries"]
        kept = [entry for place, entry in enumerate(entries) if place not in fault.codes]
        answer: dict[str, Any] = {"Entries": [], "Successful": [], "Failed": []}
        if kept:
            fewer = json.dumps({**asked, "Entries": kept}).encode()
            response = await self._forward(request, fewer, operation)
            answer |= json.loads(response.body)  # type: ignore[arg-type]
        failed = {p: code for p, code in fault.codes.items() if p < len(entries)}
        if operation == "PutEvents":
            return web.json_response(_put_events_answer(answer, failed))
        answer["Failed"] += [
            {"Id": entries[p]["Id"], "Code": code, "SenderFault": False}
            for p, code in failed.items()
        ]
        return web.json_response(answer)


@asynccontextmanager
async def fault_proxy(
    upstream: str, operations: Collection[str], script: Iterable[Fault] = ()
) -> AsyncIterator[FaultProxy]:
    """A proxy before the endpoint URL `upstream`, on loopback and a free port."""
    proxy = FaultProxy(upstream, operations, script)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    proxy._runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    await proxy._runner.setup()
    async with aiohttp.ClientSession(auto_decompress=True) as proxy._client:
        await proxy.open_door()
        try:
            yield proxy
        finally:
            await proxy._runner.cleanup()


def _error(fault: Answer) -> web.Response:
    return web.json_response(
        {"__type": fault.code, "message": fault.message},
        status=fault.status,
        headers={"X-Amzn-ErrorType": fault.code},
    )


def _put_events_answer(answer: dict[str, Any], failed: Mapping[int, str]) -> dict[str, Any]:
    entries = list(answer["Entries"])
    for place, code in sorted(failed.items()):
        entries.insert(place, {"ErrorCode": code, "ErrorMessage": "as the test wants it"})
    bad = sum("ErrorCode" in entry for entry in entries)
    return {"FailedEntryCount": bad, "Entries": entries}
