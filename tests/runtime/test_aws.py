"""The SDK's session, as the environment configures it: to local servers, over real sockets."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from processor.errors import Outage, Unavailable
from processor.local.kinesis_server import KinesisServer
from processor.runtime.aws import Aws, memory_limit_bytes, open_aws, read_budget_bytes

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's AWS settings, and static credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_") or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def opened(region: str | None = "eu-west-1"):
    return open_aws(region, connections_max=20)


async def test_credentials_are_those_of_the_sdk(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    async with opened() as aws:
        assert await aws.credentials() == ("AKID", "secret", "token")


async def test_missing_credentials_stop_the_start(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Unavailable, match="AWS: finding credentials failed; give this process"):
        async with opened():
            pass


@pytest.mark.parametrize("variable", ["AWS_DEFAULT_REGION", "AWS_REGION"])
async def test_the_region_is_the_environments_unless_given(monkeypatch, variable):
    monkeypatch.setenv(variable, "ap-south-1")
    async with opened(None) as aws:
        assert aws.region == "ap-south-1"
    async with opened() as aws:
        assert aws.region == "eu-west-1"


async def test_of_both_variables_aws_default_region_is_taken(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    async with opened(None) as aws:
        assert aws.region == "eu-north-1"


async def test_the_region_of_a_profile_comes_before_aws_region(monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[profile p]\nregion = sa-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "p")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    async with opened(None) as aws:
        assert aws.region == "sa-east-1"


async def test_a_missing_region_stops_the_start():
    with pytest.raises(
        Unavailable, match=r"AWS region: .* set source.region, AWS_DEFAULT_REGION or AWS_REGION; "
    ):
        async with opened(None):
            pass


async def test_a_profile_that_is_not_there_stops_the_start(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Unavailable, match=r"AWS configuration: .*nobody"):
        async with opened():
            pass


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "https://kinesis.eu-west-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://localhost:1"}, "http://localhost:1"),
        (
            {
                "AWS_ENDPOINT_URL": "http://localhost:1",
                "AWS_ENDPOINT_URL_KINESIS": "http://[::1]:2",
            },
            "http://[::1]:2",
        ),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "https://kinesis-fips.eu-west-1.amazonaws.com"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://kinesis.eu-west-1.api.aws"),
    ],
)
async def test_the_endpoint_is_the_one_that_the_sdk_would_call(monkeypatch, settings, url):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with opened() as aws:
        assert await aws.endpoint("kinesis") == url


async def test_a_client_is_made_once_and_works(monkeypatch):
    async with KinesisServer() as server, opened() as aws:
        server.create_stream("orders", 2)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client = await aws.client("kinesis")
        assert await aws.client("kinesis") is client
        assert len((await client.list_shards(StreamName="orders"))["Shards"]) == 2


@pytest.mark.parametrize(("service", "attempts"), [("dynamodb", 1), ("events", 1), ("s3", 3)])
async def test_only_calls_that_change_nothing_are_repeated_behind_our_back(service, attempts):
    async with opened() as aws:
        config = (await aws.client(service)).meta.config
        assert config.retries["total_max_attempts"] == attempts
        assert (config.connect_timeout, config.read_timeout) == (2.0, 10.0)
        assert config.max_pool_connections == 20


async def test_every_session_and_client_is_closed_at_the_end():
    async with opened() as aws:
        http = await aws.http("https://kinesis.eu-west-1.amazonaws.com")
        assert not http.closed
    assert http.closed


# ---- the read path's own session ------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".amazonaws.com"}, None),
    ],
)
async def test_it_takes_the_proxy_that_the_sdk_takes(monkeypatch, settings, proxy):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with opened() as aws:
        http = await aws.http("https://kinesis.eu-west-1.amazonaws.com")
        assert (str(http._default_proxy) if http._default_proxy else None) == proxy


async def test_a_proxy_carries_its_requests(monkeypatch):
    seen: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append(request.raw_path)
        return web.Response(text="through")

    runner = web.ServerRunner(web.Server(proxy))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{runner.addresses[0][1]}")
    url = "http://kinesis.invalid/"
    try:
        async with opened() as aws, (await aws.http(url)).get(url) as response:
            assert await response.text() == "through"
    finally:
        await runner.cleanup()
    assert seen == ["http://kinesis.invalid/"]


async def test_a_ca_bundle_that_is_not_there_stops_the_start(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    async with opened() as aws:
        with pytest.raises(Unavailable, match=r"CA bundle /nowhere/ca.pem: .* AWS_CA_BUNDLE"):
            await aws.http("https://kinesis.eu-west-1.amazonaws.com")


# ---- rotation -------------------------------------------------------------------------------


class Vault:
    """A credential process as an SDK profile names it; what it gives ends within a minute."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, key: str) -> None:
        expires = datetime.now(UTC) + timedelta(seconds=60)
        keys = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t"}
        self._path.write_text(json.dumps({**keys, "Expiration": expires.isoformat()}))

    def fail(self) -> None:
        self._path.unlink()


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vault:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    keys = tmp_path / "keys.json"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {keys}\n")
    vault = Vault(keys)
    vault.hold("first")
    return vault


async def key_of(aws: Aws) -> str:
    return (await aws.credentials()).access_key


async def test_credentials_that_end_soon_are_renewed_while_it_runs(vault):
    async with opened() as aws:
        assert await key_of(aws) == "first"
        vault.hold("second")
        assert await key_of(aws) == "second"


async def test_credentials_that_can_not_be_renewed_are_an_outage_that_ends(vault):
    async with opened() as aws:
        vault.fail()
        with pytest.raises(Outage, match=r"credentials custom-process: .*keys.json"):
            await aws.credentials()
        vault.hold("second")
        assert await key_of(aws) == "second"


# ---- memory ---------------------------------------------------------------------------------


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": f"MemTotal: {8 * GIB // 1024} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        (  # the tightest on the way up counts
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "sys/fs/cgroup/pod/app/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": f"{2 * GIB}\n",
            },
            2 * GIB,
        ),
        (  # a container that sees its host's path but its own mount
            {"proc/self/cgroup": "0::/docker/4af3\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"},
            GIB,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{GIB}\n",
            },
            GIB,
        ),
        (  # version 1 writes no limit as a very large one
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            8 * GIB,
        ),
    ],
)
def test_memory_is_what_the_tightest_cgroup_leaves(tmp_path, files, limit):
    assert memory_limit_bytes(machine(tmp_path, files)) == limit


def test_without_cgroups_and_meminfo_the_system_is_asked(tmp_path):
    assert memory_limit_bytes(tmp_path) > 64 * MIB


@pytest.mark.parametrize(
    ("memory", "budget"), [(256 * MIB, 64 * MIB), (2 * GIB, 512 * MIB), (64 * GIB, 512 * MIB)]
)
def test_pages_may_take_a_quarter_of_it_up_to_half_a_gibibyte(memory, budget):
    assert read_budget_bytes(memory) == budget
