"""ministack (DynamoDB, EventBridge, SQS and more) as a child process on a free loopback port.

    async with Emulator(folder) as emulator:
        session.create_client("dynamodb", endpoint_url=emulator.url, ...)

It needs an environment of its own, `.venv-emulator`: it pins an older botocore, which would hold
the processor's back. It keeps everything in memory and verifies no signatures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import aiohttp

from processor.errors import Unavailable
from processor.local.processes import Child, free_port, plain_environment, start

HOST = "127.0.0.1"
READY_S = 30.0  # it takes 1 s on an idle machine
POLL_S = 0.05
STARTS_MAX = 3  # the free port may be taken between our look and its bind
STOP_S = 5.0
_ROOT = Path(__file__).parents[2]


def interpreter(folders: Sequence[Path] = (_ROOT, Path())) -> Path:
    """The Python of `.venv-emulator`, beside this package or where one works; or Unavailable."""
    for folder in folders:
        found = folder.resolve() / ".venv-emulator" / "bin" / "python"
        if found.exists():
            return found
    raise Unavailable(
        f"{folders[0] / '.venv-emulator'}", "starting the emulator", "run make .venv-emulator"
    )


def environment(port: int, folder: Path, services: Sequence[str] = ()) -> dict[str, str]:
    """What keeps it to itself: loopback, one port, no Docker, nothing kept. No `services`: all."""
    return plain_environment() | {
        "BIND_HOST": HOST,  # its default is every interface
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": HOST,  # in queue URLs; localhost may be an IPv6 address
        "TMPDIR": str(folder),  # its pid file
        "LOG_LEVEL": "WARNING",
        "SERVICES": ",".join(services),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",  # would listen on a port of its own
        "DOCKER_HOST": f"unix://{folder}/no-docker",  # it would reap containers there
        "PERSIST_STATE": "0",
        "S3_PERSIST": "0",
        "PYTHONPATH": "",  # its packages are its own
    }


class Emulator:
    """One ministack; `services` limits what it offers (None: all), which makes it start faster."""

    def __init__(self, folder: Path, services: Sequence[str] | None = None) -> None:
        self._folder = folder
        self._services = services
        self._child: Child | None = None
        self._port = 0

    def __repr__(self) -> str:
        return f"<Emulator {self.url if self._port else 'stopped'} {self._child!r}>"

    @property
    def url(self) -> str:
        """The endpoint of every service, once started."""
        assert self._port, "start() comes first"
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Its process, once started: to freeze it, for instance."""
        assert self._child is not None, "start() comes first"
        return self._child.pid

    async def start(self) -> None:
        """Returns when it answers. Raises Unavailable; cancelling it leaves stop() to be called."""
        python = interpreter()
        for _ in range(STARTS_MAX):
            self._port = free_port()
            self._child = await start(
                "emulator",
                [str(python), "-m", "ministack"],
                environment=environment(self._port, self._folder, self._services or ()),
                log=self._folder / "emulator.log",
            )
            if await self._is_ready(self._child):
                return
            await self.stop()
        raise Unavailable(
            f"the emulator ({python})",
            "starting it",
            f"see {self._folder / 'emulator.log'}, or run make clean .venv-emulator",
        )

    async def reset(self) -> None:
        """Forget everything: tables, buses, queues."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/_ministack/reset") as answer,
        ):
            answer.raise_for_status()

    async def stop(self) -> None:
        """May be called twice."""
        child, self._child = self._child, None
        if child is not None:
            await child.stop(STOP_S)

    def kill_now(self) -> None:
        """Without waiting, for the last resort."""
        if self._child is not None:
            self._child.kill_now()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _is_ready(self, child: Child) -> bool:
        """Whether it answers in time; False too when it ended."""
        async with aiohttp.ClientSession() as session:
            for _ in range(int(READY_S / POLL_S)):
                if not child.is_running:
                    return False
                try:
                    async with session.get(f"{self.url}/_ministack/ready") as answer:
                        if answer.status == 200:
                            return True
                except aiohttp.ClientError:
                    pass  # not listening yet
                await asyncio.sleep(POLL_S)
        return False
