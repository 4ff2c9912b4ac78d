"""The command line: exit codes, what goes to stdout and what to stderr, no traceback ever."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from processor import __version__, cli, config

FOLDER = Path(__file__).parent / "pipelines"
SHOP = str(FOLDER / "shop.yaml")
BAD = "app: shop\nsource: {strem: orders}\n"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROCESSOR_CONFIG", "PROCESSOR_HTTP_HOST", "PROCESSOR_HTTP_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bad_file(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return str(path)


@pytest.fixture
def lonely_file(tmp_path: Path) -> str:
    """Legal, but nobody uses its sink."""
    path = tmp_path / "lonely.yaml"
    path.write_text(Path(SHOP).read_text().replace("sinks: {", "sinks: {unused: {stdout: json}, "))
    return str(path)


@pytest.mark.parametrize("value", ["yes", "true", "01"])
def test_a_rollback_is_asked_for_by_1_and_by_nothing_that_only_looks_so(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCESSOR_ROLLBACK", value)
    assert cli.main(["run", "-c", SHOP]) == 64
    assert f"PROCESSOR_ROLLBACK: found {value!r}, expected 1" in capsys.readouterr().err


def out_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def err_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# ---- usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [[], ["fly"], ["version", "--fast"], ["config", "hide"], ["--output", "xml", "version"]]
    + [["health", "--port", port] for port in ("0", "65536", "http", "-1")],
)
def test_a_wrong_command_line_ends_with_64_and_a_hint(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 64
    assert "--help" in err_of(capsys)


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "validate" in out_of(capsys)


def test_without_a_pipeline_file_the_ways_to_name_one_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in (["config", "show"], ["validate"], ["run"]):
        assert cli.main(verb) == 64
        assert "-c FILE or in PROCESSOR_CONFIG" in err_of(capsys)


def test_version_is_told_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert out_of(capsys) == f"processor {__version__}\n"
    assert cli.main(["version", "--output", "json"]) == 0
    assert json.loads(out_of(capsys))["version"] == __version__


# ---- validate -------------------------------------------------------------------------------


def test_a_good_file_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", SHOP, "--deny-warnings"]) == 0
    assert out_of(capsys) == f"{SHOP}: ok\n"


def test_each_error_is_a_line_on_stderr_and_the_code_is_78(
    bad_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", bad_file]) == 78
    lines = err_of(capsys).splitlines()
    assert len(lines) > 2
    assert all(line.startswith(f"{bad_file}:") for line in lines)
    assert any(f"{bad_file}:2: source.strem: found" in line for line in lines)


def test_one_bad_file_does_not_hide_the_others(
    bad_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", bad_file, SHOP]) == 78
    assert f"{SHOP}: ok" in capsys.readouterr().out


def test_warnings_are_errors_only_if_asked_for(
    lonely_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", lonely_file]) == 0
    assert "sinks.unused: warning: no rule" in capsys.readouterr().err
    assert cli.main(["validate", lonely_file, "--deny-warnings"]) == 78


def test_the_report_as_json_has_every_field(
    bad_file: str, lonely_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", "--output", "json", bad_file, lonely_file]) == 78
    bad, lonely = json.loads(out_of(capsys))
    error = next(e for e in bad["errors"] if e["path"] == "source.strem")
    assert error["file"] == bad_file
    assert error["line"] == 2
    assert error["found"] == "an unknown key"
    assert error["expected"].endswith("did you mean stream?")
    assert [w["path"] for w in lonely["warnings"]] == ["sinks.unused"]


# ---- config ---------------------------------------------------------------------------------


def test_the_images_address_stands_above_the_file_and_below_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCESSOR_HTTP_HOST", "0.0.0.0")
    monkeypatch.setenv("PROCESSOR_HTTP_PORT", "1234")
    argv = ["--output", "json", "--set", "http.port=9", "config", "show", "-c", SHOP]
    assert cli.main(argv) == 0
    assert json.loads(out_of(capsys))["http"] == {"host": "0.0.0.0", "port": 9}


def test_global_options_count_before_and_after_the_verb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--set", "app=first", "--output", "json", "config", "show", "-c", SHOP]
    assert cli.main([*argv, "--set", "http.port=9"]) == 0
    shown = json.loads(out_of(capsys))
    assert (shown["app"], shown["http"]["port"]) == ("first", 9)


def test_the_pipeline_file_may_be_named_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCESSOR_CONFIG", SHOP)
    assert cli.main(["config", "show"]) == 0
    assert config.loads(out_of(capsys), {}).pipeline == config.load(SHOP, {})


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    assert json.loads(out_of(capsys)) == config.schema()


def test_a_bad_file_starts_nothing(bad_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["config", "show"], ["run"]):
        assert cli.main([*verb, "-c", bad_file]) == 78
        assert "source.strem" in err_of(capsys)


# ---- health ---------------------------------------------------------------------------------


class Health(BaseHTTPRequestHandler):
    """/healthz answers with the server's status."""

    def do_GET(self) -> None:
        body = b"shard 1 stands still"
        self.send_response(self.server.status if self.path == "/healthz" else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        server.status = 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_healthy_service_is_0_and_silent(
    service: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["health", "--port", str(service.server_port)]) == 0
    assert out_of(capsys) == ""


def test_health_finds_its_port_in_the_environment_and_asks_no_proxy(
    service: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCESSOR_HTTP_PORT", str(service.server_port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert cli.main(["health"]) == 0


def test_a_port_of_the_environment_that_is_none_is_a_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCESSOR_HTTP_PORT", "http")
    assert cli.main(["health"]) == 64
    assert "PROCESSOR_HTTP_PORT: found 'http'" in err_of(capsys)


def test_a_sick_service_is_1_with_its_reason(
    service: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    service.status = 503  # type: ignore[attr-defined]
    assert cli.main(["health", "--port", str(service.server_port)]) == 1
    assert "503: shard 1 stands still" in err_of(capsys)


def test_no_service_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        assert cli.main(["health", "--port", str(unused.getsockname()[1])]) == 1
    assert "no answer" in err_of(capsys)


def test_an_answer_that_is_no_http_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert cli.main(["health", "--port", str(server.getsockname()[1])]) == 1
        thread.join()
    assert "no answer: hello" in err_of(capsys)


# ---- ends that are no errors of ours --------------------------------------------------------


def start(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "processor.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_reader_that_goes_away_gives_no_traceback() -> None:
    with start("config", "schema") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_gives_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with start("health", "--port", str(server.getsockname()[1])) as process:
            assert process.stderr is not None
            connection, _ = server.accept()  # it is now waiting for an answer that never comes
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b""
        connection.close()
    assert process.returncode == 130
