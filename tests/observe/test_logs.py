"""Log lines: their schema, what becomes of secrets, and how libraries' lines join ours."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from processor.observe.logs import FIELDS, MASK, VALUE_CHARS_MAX, make_logger, masked


def lines_of(log_it: Callable[[Any], object], level: str = "info", **constants: str) -> list[str]:
    out = io.StringIO()
    log_it(make_logger("json", out, level, **constants))
    return out.getvalue().splitlines()


def line_of(log_it: Callable[[Any], object], **constants: str) -> dict[str, Any]:
    (line,) = lines_of(log_it, **constants)
    told: dict[str, Any] = json.loads(line)
    return told


def text_of(log_it: Callable[[Any], object]) -> str:
    out = io.StringIO()
    log_it(make_logger("text", out))
    return out.getvalue()


# The schema


def test_a_line_is_json_in_the_order_of_the_schema_with_only_what_applies() -> None:
    told = line_of(
        lambda log: log.warning(
            "read_failed", error="slow", rule=None, shard_id="shard-0", message="again"
        ),
        service="shop",
        worker_id="w-1",
    )
    assert list(told) == [
        *("@timestamp", "level", "event", "message", "service", "worker_id", "shard_id", "error")
    ]
    assert told["level"] == "warning"
    assert told["@timestamp"].endswith("Z")


def test_a_field_that_the_schema_does_not_know_comes_last_and_is_not_lost() -> None:
    told = line_of(lambda log: log.info("x", seconds=0.5, shard_id="shard-0"))
    assert list(told)[-1] == "seconds"
    assert "seconds" not in FIELDS


def test_lines_below_the_level_are_not_written() -> None:
    def both(log: Any) -> None:
        log.debug("small")
        log.info("large")

    assert [json.loads(line)["event"] for line in lines_of(both)] == ["large"]
    assert len(lines_of(both, level="debug")) == 2


def test_an_error_is_told_by_kind_and_text() -> None:
    told = line_of(lambda log: log.warning("x", error=TimeoutError("5 s")))
    assert (told["error_kind"], told["error"]) == ("TimeoutError", "5 s")


def test_an_exception_brings_its_traceback_on_the_same_line() -> None:
    def fail(log: Any) -> None:
        try:
            raise ValueError("no such slot")
        except ValueError:
            log.exception("shard_failed")

    told = line_of(fail)
    assert told["level"] == "error"
    assert told["error_kind"] == "ValueError"
    assert told["error"].startswith("Traceback")
    assert told["error"].endswith("ValueError: no such slot")


@pytest.mark.parametrize(
    "value", [2**70, "\ud800 half a pair", {"a": {1, 2}}, [object()], float("nan"), b"\xff"]
)
def test_a_value_that_json_has_no_word_for_is_still_a_line(value: object) -> None:
    assert line_of(lambda log: log.info("x", message="m", extra=value))["message"] == "m"


def test_a_huge_value_is_cut_in_the_middle() -> None:
    told = line_of(lambda log: log.info("x", error="a" + "b" * 10 * VALUE_CHARS_MAX + "c"))
    assert len(told["error"]) < VALUE_CHARS_MAX + 50
    assert told["error"].startswith("ab")
    assert told["error"].endswith("bc")


# Text for people


def test_text_has_time_level_event_message_and_the_rest_by_name() -> None:
    told = text_of(lambda log: log.warning("read_failed", message="again", shard_id="shard-0"))
    assert told[2] == told[5] == ":"
    assert told[13:] == "WARNING  read_failed: again  shard_id=shard-0\n"


def test_no_value_can_forge_a_line_or_reach_the_terminal() -> None:
    told = text_of(lambda log: log.info("x", message="a\n12:00:00 ERROR forged\x1b[2J\r"))
    assert told.count("\n") == 2
    assert told.splitlines()[1] == r"    12:00:00 ERROR forged\x1b[2J\r"


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db_password", "PASSPHRASE", "client_secret", "aws_secret_access_key"),
        *("token", "session_token", "X-Amz-Security-Token", "Authorization", "api_key"),
        *("apiKey", "private-key", "accessKey", "credentials", "signature"),
    ],
)
def test_a_field_with_a_credentials_name_is_masked(name: str) -> None:
    told = line_of(
        lambda log: log.info("x", message="m", extra={name: "s3cr3t"}, **{name: "s3cr3t"})
    )
    assert "s3cr3t" not in json.dumps(told)
    assert told[name] == MASK


@pytest.mark.parametrize("name", ["key", "partition_key", "sequence_number", "access_key_id"])
def test_names_that_only_look_like_it_are_not(name: str) -> None:
    assert line_of(lambda log: log.info("x", **{name: "store-7"}))[name] == "store-7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://bob:pw@host/db", "postgres://***@host/db"),
        ("http://u:p@ss@host/", "http://***@host/"),
        ("https://key@sentry.io/1", "https://***@sentry.io/1"),
        ("password=hunter2, try again", "password=***, try again"),
        ('{"secret": "a b", "x": 1}', '{"secret": ***, "x": 1}'),
        ("{'Token': 'a'}", "{'Token': ***}"),
        (r"{\"token\": \"abc\"}", r"{\"token\": ***}"),
        ("Authorization: Bearer abc.def next", "Authorization: *** next"),
        ("sent Bearer abcdefgh.ijk", "sent Bearer ***"),
        (
            "AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=dead",
            "AWS4-HMAC-SHA256 Credential=***, SignedHeaders=host, Signature=***",
        ),
        (
            "?X-Amz-Security-Token=a%2F&X-Amz-Signature=b&n=1",
            "?X-Amz-Security-Token=***&X-Amz-Signature=***&n=1",
        ),
        ("the security token included in the request is invalid", None),
        ("http://127.0.0.1:4566/q 'http://a' b@c", None),
        ("store=7 key=milk partition_key=5", None),
    ],
)
def test_a_secret_in_a_text_is_masked_and_the_rest_stays(text: str, expected: str | None) -> None:
    assert masked(text) == (expected or text)


def test_a_secret_in_an_exception_is_masked_too() -> None:
    error = ConnectionError("could not reach https://bob:pw@proxy:3128")
    assert "pw" not in line_of(lambda log: log.error("x", exc_info=error))["error"]


# The whole process: what `configure` does is global, so each case is a process of its own


def run(code: str) -> tuple[list[str], str]:
    """Lines on standard error, and standard output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    return done.stderr.splitlines(), done.stdout


def test_libraries_and_warnings_are_lines_like_ours() -> None:
    lines, out = run(
        """
        import logging, warnings, structlog
        from processor.observe import logs

        logs.configure("json", service="shop", worker_id="w-1")
        structlog.get_logger().info("started", message="here we are")
        logging.getLogger("aiobotocore.credentials").info("Found credentials")
        logging.getLogger("aiobotocore.httpsession").warning("pool of %s is full", "http://a:b@h")
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
        warnings.warn("old", stacklevel=1)
        """
    )
    told = [json.loads(line) for line in lines]
    assert [(line["level"], line["event"]) for line in told] == [
        ("info", "started"),
        ("warning", "aiobotocore.httpsession"),
        ("error", "asyncio"),
        ("warning", "py.warnings"),
    ]
    assert {line["worker_id"] for line in told} == {"w-1"}
    assert told[1]["message"] == "pool of http://***@h is full"
    assert told[2]["error_kind"] == "ZeroDivisionError"
    assert out == ""


def test_logs_are_configured_once() -> None:
    lines, _ = run(
        """
        from processor.observe import logs
        logs.configure("json")
        logs.configure("text")
        """
    )
    assert lines[-1] == "AssertionError: logs are configured once, by the command line"


def test_a_library_line_that_cannot_be_formatted_does_not_end_the_process() -> None:
    lines, out = run(
        """
        import logging
        from processor.observe import logs
        logs.configure("json")
        logging.getLogger("x").warning("%d", "not a number")
        print("alive")
        """
    )
    assert "--- Logging error ---" in lines
    assert out == "alive\n"


def test_importing_the_module_configures_nothing() -> None:
    before = list(logging.getLogger().handlers)
    _, out = run(
        """
        import logging, structlog, processor.observe.logs, processor.observe.http
        print(structlog.is_configured(), logging.getLogger().handlers)
        """
    )
    assert out == "False []\n"
    assert logging.getLogger().handlers == before


def test_a_line_that_nobody_can_read_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    make_logger("json", gone).info("draining")
    make_logger("json", gone).warning("still here")
    with contextlib.suppress(BrokenPipeError):  # what is still in its buffer
        gone.close()
