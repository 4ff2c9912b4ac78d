"""The emulator as a child process: it answers, forgets, and leaves nothing behind."""

from pathlib import Path

import aiohttp
import pytest

from processor.errors import Unavailable
from processor.local.calls import Calls
from processor.local.emulator import Emulator, interpreter


async def queues(emulator: Emulator) -> list[str]:
    async with aiohttp.ClientSession() as session:
        answer = await Calls(session, emulator.url)("sqs", "ListQueues", {})
    return [url.rpartition("/")[2] for url in answer.get("QueueUrls", [])]


async def create_queue(emulator: Emulator, name: str) -> None:
    async with aiohttp.ClientSession() as session:
        await Calls(session, emulator.url)("sqs", "CreateQueue", {"QueueName": name})


async def test_it_answers_on_loopback_forgets_on_reset_and_may_be_stopped_twice(
    tmp_path: Path,
) -> None:
    emulator = Emulator(tmp_path, ["sqs"])
    async with emulator:
        assert emulator.url.startswith("http://127.0.0.1:")
        await create_queue(emulator, "first")
        assert await queues(emulator) == ["first"]
        await emulator.reset()
        assert await queues(emulator) == []
    await emulator.stop()
    with pytest.raises(OSError, match="Connect"):
        await reach(emulator)


async def reach(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as session, session.get(emulator.url):
        pass


def test_a_missing_environment_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"run make \.venv-emulator"):
        interpreter([tmp_path])


def test_an_environment_is_found_where_it_is(tmp_path: Path) -> None:
    python = tmp_path / ".venv-emulator" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter([tmp_path / "elsewhere", tmp_path]) == python
