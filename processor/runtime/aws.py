"""One SDK session for all that is AWS: credentials, region, endpoints, clients; closed in order.

Everything is resolved by the SDK's own chain (environment, profile, IRSA, Pod Identity, ECS, EC2),
for our own read path too: its credentials, endpoint, proxy and CA bundle are those of the SDK.
Also here, because containers hide it as well: how much memory this process may take.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from processor.errors import Outage, Unavailable

CONNECT_S = 2.0  # four SYN attempts within a region's few ms
READ_S = 10.0  # the services answer in tens of ms; a DynamoDB throttle takes up to a few seconds
# Our own code repeats calls, because it knows the deadline (a lease's validity), the order within a
# group, and what to count: a retry hidden in the SDK would outlive the first and double the last.
# S3 is excepted: a snapshot's key names epoch and commit, so repeating a call changes nothing.
ATTEMPTS = {"s3": 3}
MIB = 1024 * 1024
READ_BUDGET_MAX = 512 * MIB
# Page bodies run to megabytes; with aiohttp's 64 KiB the transport is paused for every few packets.
READ_BUFFER_BYTES = MIB


class Credentials(NamedTuple):
    """What signs a request at this moment."""

    access_key: str
    secret_key: str
    token: str | None


class Aws:
    """What `open_aws` gives. Clients are made once a service and closed with it."""

    def __init__(
        self,
        session: AioSession,
        credentials: Any,
        region: str,
        connections_max: int,
        stack: AsyncExitStack,
    ) -> None:
        self.region = region
        self._session = session
        self._credentials = credentials
        self._connections_max = connections_max
        self._stack = stack
        self._clients: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Aws {self.region}, clients: {', '.join(self._clients) or 'none'}>"

    async def credentials(self) -> Credentials:
        """Frozen ones, refreshed by the SDK before they expire; Outage if it can't."""
        try:
            frozen = await self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise Outage("credentials", self._credentials.method, str(error)) from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def client(self, service: str) -> Any:
        """The aiobotocore client of `service` (`dynamodb`, `events`, `sqs`, `s3` …)."""
        if service not in self._clients:
            client = await self._stack.enter_async_context(self._create(service))
            self._clients[service] = client
        return self._clients[service]

    async def endpoint(self, service: str) -> str:
        """The URL that the SDK would call: region, FIPS, dual stack, AWS_ENDPOINT_URL* heeded."""
        async with self._create(service) as client:
            url: str = client.meta.endpoint_url
            return url

    async def http(self, url: str) -> aiohttp.ClientSession:
        """A session for one endpoint, with the SDK's proxy and CA bundle and an unlimited pool."""
        proxy = get_environ_proxies(url).get(urlsplit(url).scheme)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls())
        session = aiohttp.ClientSession(
            connector=connector,
            proxy=proxy,
            read_bufsize=READ_BUFFER_BYTES,
            headers={"User-Agent": "processor"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return await self._stack.enter_async_context(session)

    def _create(self, service: str) -> Any:
        config = AioConfig(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            max_pool_connections=self._connections_max,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS.get(service, 1)},
        )
        return self._session.create_client(service, region_name=self.region, config=config)

    def _tls(self) -> ssl.SSLContext:
        bundle = get_cert_path(self._session.get_config_variable("ca_bundle") or True)
        try:
            return ssl.create_default_context(cafile=bundle)
        except OSError as error:
            raise Unavailable(
                f"CA bundle {bundle}", "reading it", f"correct AWS_CA_BUNDLE ({error})"
            ) from error


# In the order in which they are asked; a profile's own region comes before AWS_REGION.
_SET_REGION = "set source.region, AWS_DEFAULT_REGION or AWS_REGION; the first one set is taken"


@asynccontextmanager
async def open_aws(region: str | None, *, connections_max: int) -> AsyncIterator[Aws]:
    """The session, its clients closed in reverse order at the end.

    `region`: None for the environment's. `connections_max`: of one client; take shards + 10.
    Raises Unavailable where there are no credentials or no region.
    """
    session = get_session()
    try:
        found = region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        credentials = await session.get_credentials()
    except BotoCoreError as error:
        raise Unavailable("AWS configuration", "reading it", str(error)) from error
    if not found:
        raise Unavailable("AWS region", "finding it", _SET_REGION)
    if credentials is None:
        remedy = "give this process a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
        raise Unavailable("AWS", "finding credentials", remedy)
    async with AsyncExitStack() as stack:
        yield Aws(session, credentials, found, connections_max, stack)


# ---- memory ---------------------------------------------------------------------------------


def read_budget_bytes(memory_bytes: int) -> int:
    """What pages may take of the process's memory: a quarter, at most 512 MiB."""
    return min(memory_bytes // 4, READ_BUDGET_MAX)


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """What this process may take: the tightest limit of its cgroups, or the machine's memory.

    `root` is where /proc and /sys/fs/cgroup are looked for.
    """
    return min((*_cgroup_limits(root), _physical_bytes(root)))


def _cgroup_limits(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits_up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_up(mount: Path, path: str, name: str) -> Iterator[int]:
    """The limits from a group up to the mount's own; a container may see only the latter."""
    group = Path(path.lstrip("/"))
    for folder in (group, *group.parents):
        text = _text(mount / folder / name).strip()
        if text.isdigit():  # "max", or nothing there: no limit
            yield int(text)


def _physical_bytes(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _text(path: Path) -> str:
    """A file that some systems don't have."""
    try:
        return path.read_text()
    except OSError:
        return ""
