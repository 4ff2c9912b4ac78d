"""Imports point one way, and the ring touches neither clock, chance nor the world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "processor"

# A module imports from its own layer or an earlier one.
LAYERS = {
    1: ("errors", "model", "plugins", "wording"),
    2: ("codecs", "aggregators", "derived", "detectors"),
    3: ("core", "ports"),
    4: ("aws_errors", "sources", "stores", "sinks", "observe", "local", "charts"),
    5: ("config", "runtime", "explaining", "history", "testing", "tuning", "zones"),
    6: (
        *("assembly", "app", "cli", "cli_diff", "cli_explain", "cli_leases", "cli_positions"),
        *("cli_detect", "cli_test", "cli_tune", "cli_warm"),
        "__main__",
    ),
}
RING = ("core", "codecs", "aggregators", "derived", "detectors")
CLIENTS = {"aiobotocore", "aiohttp", "botocore", "prometheus_client", "structlog", "uvloop"}
FORBIDDEN = CLIENTS | {
    *("asyncio", "logging", "multiprocessing", "os", "random", "secrets", "socket"),
    *("subprocess", "threading", "time", "uuid", "zoneinfo"),
}
NOW = {"now", "utcnow", "today"}
WAYS_OUT = {"open", "print", "input", "__import__", "eval", "exec"}  # built in: no import tells
ADAPTERS = ("sources", "stores", "sinks", "local")

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def top_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(top: str) -> int:
    return next(layer for layer, names in LAYERS.items() if top in names)


def ours(path: Path) -> Iterator[str]:
    """Top-level parts of `processor` that a module imports."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "processor" and len(parts) > 1 and is_a_part(parts[1]):
            yield parts[1]


def is_a_part(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()


@pytest.mark.parametrize("path", [m for m in MODULES if m != ROOT / "__init__.py"], ids=name_of)
def test_a_module_imports_from_its_own_layer_or_an_earlier_one(path: Path) -> None:
    layer = layer_of(top_of(path))
    late = {top for top in ours(path) if layer_of(top) > layer}
    assert not late, f"{name_of(path)} (layer {layer}) imports {sorted(late)}"


@pytest.mark.parametrize(
    "path",
    [
        m
        for m in MODULES
        if top_of(m) in RING or top_of(m) in ("model", "errors", "explaining", "testing")
    ],
    ids=name_of,
)
def test_the_ring_has_no_clock_no_chance_and_no_io(path: Path) -> None:
    found = {name for name in imported(path) if name.split(".")[0] in FORBIDDEN}
    assert not found, f"{name_of(path)} imports {sorted(found)}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in NOW, f"{name_of(path)}:{node.lineno} reads a clock"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = node.func.id
            assert called not in WAYS_OUT, f"{name_of(path)}:{node.lineno} calls {called}"


@pytest.mark.parametrize("path", [m for m in MODULES if top_of(m) == "runtime"], ids=name_of)
def test_the_shell_knows_ports_but_no_adapter(path: Path) -> None:
    found = set(ours(path)) & set(ADAPTERS)
    assert not found, f"{name_of(path)} imports {sorted(found)}"


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_opens_with_a_sentence(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text.split("\n")[0].rstrip().endswith((".", ":", "?")), name_of(path)
