"""`processor test`: cases beside a pipeline file, run through the production code itself."""

from __future__ import annotations

import argparse
import os
import sys

from processor.cli import Parser, overrides, write_json
from processor.config import ConfigErrors
from processor.errors import UsageError
from processor.testing import reading, report, running
from processor.testing.suite import Suite

DIFFERS = 1


def add_arguments(parser: Parser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="*", help="files of cases, in YAML")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases with this in their name")
    parser.add_argument("--schema", action="store_true", help="print a JSON Schema of such files")


def test(args: argparse.Namespace) -> int:
    """0, or 1 if anything was told that is not expected; a bad file raises ConfigErrors."""
    if args.schema:
        from processor.testing.schema import schema

        write_json(schema())
        return 0
    if not args.files:
        raise UsageError("no file of cases; name one or more: processor test FILE…")
    told = [(suite, running.run(suite, args.only)) for suite in _load(args)]
    verdicts = [verdict for _, each in told for verdict in each]
    if not verdicts:
        raise UsageError(f"--only {args.only!r}: no case has this in its name")
    if args.output == "json":
        write_json([report.as_json(suite, each) for suite, each in told])
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for suite, each in told:
            if each:
                sys.stdout.writelines(
                    f"{line}\n" for line in report.as_text(suite, each, coloured=coloured)
                )
        sys.stdout.write(f"{report.summary(verdicts)}\n")
    return DIFFERS if any(verdict.wrong for verdict in verdicts) else 0


def _load(args: argparse.Namespace) -> list[Suite]:
    """All files, or what is wrong with any."""
    suites, errors = [], []
    for file in args.files:
        try:
            suites.append(reading.load(file, os.environ, overrides(args), args.config))
        except ConfigErrors as found:
            errors += list(found.errors)
    if errors:
        raise ConfigErrors(errors)
    return suites
