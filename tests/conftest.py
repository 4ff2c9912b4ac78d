"""The shared emulator: ministack (DynamoDB, S3, EventBridge, SQS, SNS …), once a session.

`make .venv-emulator` builds the environment that it needs for itself; the server listens on
loopback and a free port, and is stopped by its handle. `ministack` is its endpoint URL, emptied
before each test; `ministack_server` is the same without the emptying, for fixtures of wider scope.
"""

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.local import emulator
from processor.local.processes import free_port

EXECUTABLE = Path(__file__).parents[1] / ".venv-emulator" / "bin" / "ministack"
READY_WITHIN_S = 60.0  # 1 s on an idle core; a busy machine with two cores takes its time


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[str]:
    """The endpoint URL of a ministack that lives as long as the session."""
    if not EXECUTABLE.exists():
        pytest.fail(f"{EXECUTABLE} is missing; `make .venv-emulator` builds it")
    with tempfile.TemporaryDirectory(prefix="ministack-") as folder:
        port = free_port()
        log = Path(folder, "ministack.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [EXECUTABLE],
                env=emulator.environment(port, Path(folder)),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_ready(url, process, log)
            yield url
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def ministack(ministack_server: str) -> str:
    """The endpoint URL of a ministack that holds nothing yet."""
    reset = urllib.request.Request(f"{ministack_server}/_ministack/reset", method="POST")
    with urllib.request.urlopen(reset, timeout=READY_WITHIN_S):
        return ministack_server


def _await_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"ministack ended with {process.returncode}: {log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/_ministack/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.05)  # polling another process: there is nothing to wait on
    pytest.fail(f"ministack was not ready after {READY_WITHIN_S:.0f} s: {log.read_text()}")
