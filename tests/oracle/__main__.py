"""`python -m tests.oracle FILE`: our engine on cases of the oracle's, and where it differs."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.oracle.adapter import run

SHOWN_MAX = 10


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The cases of a file, one a line; it may be compressed."""
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    yield from (json.loads(line) for line in text.splitlines() if line.strip())


def difference(case: dict[str, Any]) -> str | None:
    """What a reader needs to see where we differ; None where we agree."""
    found = run(case["spec"], case["ops"])
    if found == case["panes"]:
        return None
    lines = [json.dumps(case["spec"])]
    for op, expected, ours in zip(case["ops"], case["panes"], found, strict=True):
        mark = " " if expected == ours else "!"
        lines.append(f"{mark} {json.dumps(op)}")
        if expected != ours:
            lines += [f"    expected {pane}" for pane in expected if pane not in ours]
            lines += [f"    found    {pane}" for pane in ours if pane not in expected]
    return "\n".join(lines)


def main(file: str) -> int:
    agree = differ = 0
    for number, case in enumerate(read(Path(file)), 1):
        told = difference(case)
        if told is None:
            agree += 1
            continue
        differ += 1
        if differ <= SHOWN_MAX:
            print(f"line {number}: {told}\n")
        elif differ == SHOWN_MAX + 1:
            print("and more\n")
    print(f"{agree} agree, {differ} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.oracle FILE")
    sys.exit(main(sys.argv[1]))
