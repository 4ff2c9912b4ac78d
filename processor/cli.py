"""The command line. One small function a verb adds its parser; results go to stdout, all else not.

Exit codes: 0, 1, 64 usage, 69 unavailable, 75 refused, 78 configuration; 130 and 141 are what a
shell reports of a program ended by Ctrl-C or by a reader that went away.

Modules are imported where they are needed: `health` runs every few seconds in a container.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from processor import __version__
from processor.errors import ProcessorError, UsageError

if TYPE_CHECKING:
    from processor.model import Pipeline

    Verbs: TypeAlias = argparse._SubParsersAction["Parser"]

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
HEALTH_TIMEOUT_S = 3.0  # of one socket operation; an orchestrator's own limit is 5 s as a rule

Do = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Raises instead of ending the process with argparse's own 2."""

    prepare: Callable[[Parser], None] | None = None  # adds what is costly to import, when asked

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.prepare is not None:
            prepare, self.prepare = self.prepare, None
            prepare(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
        do: Do = args.do
        code = do(args)
        sys.stdout.flush()
    except ProcessorError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except SystemExit as end:  # --help has printed what it was asked for
        return int(end.code or 0)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at its end; what is left must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_BROKEN_PIPE
    return code


def build_parser() -> Parser:
    parser = Parser(prog="processor", description="Windows and anomalies over Kinesis streams.")
    _add_global_options(parser, is_root=True)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in VERBS:
        add(verbs)
    return parser


def add_verb(verbs: Verbs, name: str, about: str, do: Do) -> Parser:
    """A verb's parser; global options may stand before or after the verb."""
    parser = verbs.add_parser(name, help=about, description=about)
    _add_global_options(parser, is_root=False)
    parser.set_defaults(do=do)
    return parser


def _add_global_options(parser: Parser, *, is_root: bool) -> None:
    """A verb's parser has no defaults: they would overwrite what stood before the verb."""

    def default(value: Any) -> Any:
        return value if is_root else argparse.SUPPRESS

    options = parser.add_argument_group("global options")
    options.add_argument(
        "-c", "--config", metavar="FILE", default=default(None), help="pipeline file"
    )
    options.add_argument(
        "--set",
        metavar="a.b=value",
        action="append",
        dest="overrides_before" if is_root else "overrides_after",
        default=default([]),
        help="set a key of the pipeline file; may be repeated",
    )
    options.add_argument("--output", choices=("table", "json"), default=default("table"))
    options.add_argument("--log-format", choices=("json", "text"), default=default("json"))


# ---- what verbs share -----------------------------------------------------------------------


def config_path(args: argparse.Namespace) -> str:
    path: str | None = args.config or os.environ.get("PROCESSOR_CONFIG")
    if not path:
        raise UsageError("no pipeline file; name one with -c FILE or in PROCESSOR_CONFIG")
    return path


def overrides(args: argparse.Namespace) -> list[str]:
    """What stands above the file: the image's own address, then what the command line sets."""
    image = {"http.host": "PROCESSOR_HTTP_HOST", "http.port": "PROCESSOR_HTTP_PORT"}
    given = [f"{key}={os.environ[name]}" for key, name in image.items() if os.environ.get(name)]
    return [*given, *args.overrides_before, *getattr(args, "overrides_after", [])]


def load_pipeline(args: argparse.Namespace) -> Pipeline:
    from processor import config

    return config.load(config_path(args), os.environ, overrides(args))


def write_json(value: Any) -> None:
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.write(text.decode())


# ---- verbs ----------------------------------------------------------------------------------


def add_run(verbs: Verbs) -> None:
    parser = add_verb(verbs, "run", "Run the service.", run)
    parser.add_argument(
        "--rollback",
        action="store_true",
        help="go back to this file from a newer one that the app has run; or PROCESSOR_ROLLBACK=1",
    )


def run(args: argparse.Namespace) -> int:
    pipeline = load_pipeline(args)  # a wrong file ends it before anything heavy is imported
    is_rollback = args.rollback or _is_set("PROCESSOR_ROLLBACK")

    import uvloop

    from processor import app

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        serving = app.serve(pipeline, log_format=args.log_format, is_rollback=is_rollback)
        runner.run(serving)
    return 0


def _is_set(name: str) -> bool:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{name}: found {value!r}, expected 1, or 0 for no")
    return value == "1"


def add_demo(verbs: Verbs) -> None:
    about = "Everything on this machine, with traffic and anomalies."
    add_verb(verbs, "demo", about, demo).prepare = _add_demo_arguments


def _add_demo_arguments(parser: Parser) -> None:
    from processor.local.demo import add_arguments

    add_arguments(parser)


def demo(args: argparse.Namespace) -> int:
    from processor.local.demo import main

    return main(args)


def add_validate(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "validate", "Check pipeline files without starting anything.", validate
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="default: -c or PROCESSOR_CONFIG")
    parser.add_argument("--deny-warnings", action="store_true", help="a warning is an error")


def validate(args: argparse.Namespace) -> int:
    files = args.files or [config_path(args)]
    reports = [_report(file, overrides(args)) for file in files]
    if args.output == "json":
        write_json(reports)
    else:
        for report in reports:
            _write_report(report)
    has_failed = any(r["errors"] or (args.deny_warnings and r["warnings"]) for r in reports)
    return 78 if has_failed else 0


def _report(file: str, sets: list[str]) -> dict[str, Any]:
    from processor import config

    try:
        checked = config.check(file, os.environ, sets)
    except config.ConfigErrors as found:
        errors = [
            {"file": e.file, "line": e.line, "path": e.path, "found": e.found, "text": str(e)}
            | {"expected": e.expected}
            for e in found.errors
        ]
        return {"file": file, "errors": errors, "warnings": []}
    warnings = [
        {"file": w.file, "line": w.line, "path": w.path, "message": w.message, "text": str(w)}
        for w in checked.warnings
    ]
    return {"file": file, "errors": [], "warnings": warnings}


def _write_report(report: dict[str, Any]) -> None:
    for finding in (*report["errors"], *report["warnings"]):
        sys.stderr.write(f"{finding['text']}\n")
    if not report["errors"]:
        sys.stdout.write(f"{report['file']}: ok\n")


def add_config(verbs: Verbs) -> None:
    about = "Show the resolved pipeline file, or the JSON Schema of such files."
    parser = add_verb(verbs, "config", about, show_config)
    parser.add_argument("what", choices=("show", "schema"))


def show_config(args: argparse.Namespace) -> int:
    from processor import config

    if args.what == "schema":
        write_json(config.schema())
        return 0
    resolved = config.show(load_pipeline(args))
    if args.output == "json":
        write_json(resolved)
    else:
        sys.stdout.write(config.to_yaml(resolved))
    return 0


def add_diff(verbs: Verbs) -> None:
    about = "What a changed pipeline file does to the state of each rule."
    add_verb(verbs, "diff", about, diff).prepare = _add_diff_arguments


def _add_diff_arguments(parser: Parser) -> None:
    from processor.cli_diff import add_arguments

    add_arguments(parser)


def diff(args: argparse.Namespace) -> int:
    from processor.cli_diff import diff

    return diff(args)


def add_test(verbs: Verbs) -> None:
    about = "Try a pipeline file on cases: records and time, and what is told after them."
    add_verb(verbs, "test", about, test).prepare = _add_test_arguments


def _add_test_arguments(parser: Parser) -> None:
    from processor.cli_test import add_arguments

    add_arguments(parser)


def test(args: argparse.Namespace) -> int:
    from processor.cli_test import test

    return test(args)


def add_explain(verbs: Verbs) -> None:
    about = "What each rule does, in words; its memory, its events a day, and what they cost."
    add_verb(verbs, "explain", about, explain).prepare = _add_explain_arguments


def _add_explain_arguments(parser: Parser) -> None:
    from processor.cli_explain import add_arguments

    add_arguments(parser)


def explain(args: argparse.Namespace) -> int:
    from processor.cli_explain import explain

    return explain(args)


def add_leases(verbs: Verbs) -> None:
    about = "See, release and move leases; take over the positions of a KCL application."
    add_verb(verbs, "leases", about, _no_verb).prepare = _add_leases_verbs


def _add_leases_verbs(parser: Parser) -> None:
    from processor.cli_leases import add_verbs

    add_verbs(parser)


def _no_verb(args: argparse.Namespace) -> int:
    raise AssertionError("what `prepare` adds comes in its place")


def add_detect(verbs: Verbs) -> None:
    """Verbs of one word, so each is added by itself."""
    from_ = {
        "mark-expected": "Say that what an event told was no surprise: the like stays silent.",
        "mute": "Keep the alarms of a rule, or of some of its keys, untold until a time.",
        "unmute": "End a mute before its time.",
        "mutes": "What people asked for, and which shards took it.",
    }
    for name, about in from_.items():
        add_verb(verbs, name, about, _no_verb).prepare = partial(_add_detect_arguments, name)


def _add_detect_arguments(name: str, parser: Parser) -> None:
    from processor.cli_detect import add_arguments

    add_arguments(name, parser)


def add_tune(verbs: Verbs) -> None:
    about = "What each detector would have raised on a recording, at each sensitivity."
    add_verb(verbs, "tune", about, tune).prepare = _add_tune_arguments


def _add_tune_arguments(parser: Parser) -> None:
    from processor.cli_tune import add_arguments

    add_arguments(parser)


def tune(args: argparse.Namespace) -> int:
    from processor.cli_tune import tune

    return tune(args)


def add_warm(verbs: Verbs) -> None:
    about = "Learn from history into the first checkpoint, before the first worker runs."
    add_verb(verbs, "warm", about, warm).prepare = _add_warm_arguments


def _add_warm_arguments(parser: Parser) -> None:
    from processor.cli_warm import add_arguments

    add_arguments(parser)


def warm(args: argparse.Namespace) -> int:
    from processor.cli_warm import warm

    return warm(args)


def add_health(verbs: Verbs) -> None:
    parser = add_verb(verbs, "health", "Ask the service on this machine whether it lives.", health)
    about = "default: PROCESSOR_HTTP_PORT, else 8080"
    parser.add_argument("--port", type=_port, default=None, help=about)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65_535:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a port from 1 to 65535")
    return int(text)


def health(args: argparse.Namespace) -> int:
    """0 if /healthz answers 200. No proxy of the environment is asked."""
    from http.client import HTTPConnection, HTTPException

    port = args.port or _port_of_environment()
    connection = HTTPConnection("127.0.0.1", port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        status, body = answer.status, answer.read(4096).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        status, body = 0, str(error) or type(error).__name__
    finally:
        connection.close()
    if args.output == "json":
        write_json({"healthy": status == 200, "status": status, "answer": body})
    if status != 200:
        sys.stderr.write(f"127.0.0.1:{port}/healthz: {status or 'no answer'}: {body}\n")
    return 0 if status == 200 else 1


def _port_of_environment() -> int:
    try:
        return _port(os.environ.get("PROCESSOR_HTTP_PORT") or "8080")
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"PROCESSOR_HTTP_PORT: {error}") from None


def add_version(verbs: Verbs) -> None:
    add_verb(verbs, "version", "Print the version.", version)


def version(args: argparse.Namespace) -> int:
    if args.output == "json":
        from processor.model import ENGINE_VERSION

        write_json({"version": __version__, "engine_version": ENGINE_VERSION})
    else:
        sys.stdout.write(f"processor {__version__}\n")
    return 0


VERBS: tuple[Callable[[Verbs], None], ...] = (
    add_run,
    add_demo,
    add_validate,
    add_config,
    add_diff,
    add_test,
    add_explain,
    add_warm,
    add_tune,
    add_leases,
    add_detect,
    add_health,
    add_version,
)

if __name__ == "__main__":
    sys.exit(main())
