"""Child processes that can't outlive us: started on their own, stopped in order, killed if need be.

Each runs in a session of its own, so that Ctrl-C in a terminal reaches only the parent, which then
stops them one after the other. On Linux the kernel kills them should the parent be killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def plain_environment() -> dict[str, str]:
    """Ours without what would lead a child's AWS calls astray: profiles, endpoints, proxies."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago; whoever takes it must be ready to find it taken."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


class Child:
    """One running process; its standard error (and output, unless piped) goes to `log`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.log = name, log
        self._process = process

    def __repr__(self) -> str:
        state = "running" if self.is_running else f"ended with {self.exit_code}"
        return f"<{self.name} pid {self._process.pid} {state}, log {self.log}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As the shell has it; negative: ended by that signal."""
        return self._process.returncode

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def first_line(self, timeout_s: float) -> str:
        """The first line of its piped output; raises TimeoutError, or EOFError if it ended."""
        assert self._process.stdout is not None, "start it with piped=True"
        async with asyncio.timeout(timeout_s):
            line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            raise EOFError(f"{self!r}: {self.tail()}")
        return line.decode().strip()

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_s: float = 30.0) -> int:
        """SIGTERM, and SIGKILL after the grace; safe to cancel, which kills it at once."""
        try:
            async with asyncio.timeout(grace_s):
                self._send(signal.SIGTERM)
                return await self._process.wait()
        except TimeoutError:
            return await self.kill()
        finally:
            self._send(signal.SIGKILL)

    async def kill(self) -> int:
        """SIGKILL, as a crash would."""
        self._send(signal.SIGKILL)
        return await self._process.wait()

    def kill_now(self) -> None:
        """SIGKILL without waiting, for the last resort."""
        self._send(signal.SIGKILL)

    def tail(self, lines: int = 10) -> str:
        """The end of its log, for an error's sentence."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "its log is empty"

    def _send(self, number: signal.Signals) -> None:
        if self.is_running:
            self._process.send_signal(number)


async def start(
    name: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    piped: bool = False,
) -> Child:
    """Start a process in its log's folder; `piped` keeps its standard output for `first_line`."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if piped else file,
            stderr=file,
            env=dict(environment),
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
    return Child(name, process, log)


def _die_with_parent() -> Callable[[], object] | None:
    """What the child does before it becomes another program; nothing where there is no prctl."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec nothing may allocate
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
