"""Children: started in sessions of their own, stopped in order, killed where they don't listen."""

import os
import sys
from pathlib import Path

import pytest

from processor.local.processes import Child, free_port, plain_environment, start

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


async def child(tmp_path: Path, code: str, *, piped: bool = True) -> Child:
    return await start(
        "child",
        [sys.executable, "-c", code],
        environment=plain_environment(),
        log=tmp_path / "child.log",
        piped=piped,
    )


async def test_a_child_has_a_session_of_its_own_and_works_in_its_log_s_folder(
    tmp_path: Path,
) -> None:
    code = "import os; print(os.getsid(0) == os.getpid(), os.getcwd())"
    one = await child(tmp_path, code)
    assert await one.first_line(30) == f"True {tmp_path}"
    assert await one.wait() == 0


async def test_a_child_that_listens_ends_on_sigterm(tmp_path: Path) -> None:
    one = await child(tmp_path, "import time; print('ready', flush=True); time.sleep(600)")
    await one.first_line(30)
    assert one.is_running
    assert await one.stop() == -15
    assert not one.is_running


async def test_a_child_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    one = await child(tmp_path, STUBBORN)
    await one.first_line(30)
    assert await one.stop(grace_s=0.1) == -9


async def test_stopping_what_has_ended_tells_how_it_ended(tmp_path: Path) -> None:
    one = await child(tmp_path, "raise SystemExit(3)")
    assert await one.wait() == 3
    assert await one.stop() == 3
    one.kill_now()


async def test_a_child_that_ends_before_it_says_anything_shows_its_log(tmp_path: Path) -> None:
    one = await child(tmp_path, "import sys; sys.exit('no such thing')")
    with pytest.raises(EOFError, match="no such thing"):
        await one.first_line(30)


async def test_output_that_nobody_reads_goes_to_the_log(tmp_path: Path) -> None:
    one = await child(tmp_path, "print('a'); print('b')", piped=False)
    await one.wait()
    assert one.tail(1) == "b"


def test_a_child_s_environment_has_none_of_our_aws_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    assert not [name for name in plain_environment() if name.startswith("AWS_")]
    assert plain_environment()["PATH"] == os.environ["PATH"]


def test_a_free_port_is_one_that_can_be_had() -> None:
    assert 1024 <= free_port() <= 65_535
