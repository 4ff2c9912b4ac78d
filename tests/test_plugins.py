"""A plug-in is found by its place in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor import aggregators, codecs, derived, detectors, plugins


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A package of its own name, so that no test sees another's modules."""
    package = tmp_path / f"plugins_{abs(hash(request.node.name))}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("class Base:\n    kind = 'base'\n")
    (package / "helper.py").write_text("LIMIT = 5\nclass Helper:\n    pass\n")
    (package / "fast.py").write_text(
        f"from {package.name}.base import Base\nclass Fast(Base):\n    kind = 'fast'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return package


def test_a_module_registers_the_class_that_it_defines_with_a_kind(folder: Path) -> None:
    found = plugins.discover(folder.name, [str(folder)])
    assert list(found) == ["fast"]
    assert found["fast"].__name__ == "Fast"


def test_two_plug_ins_of_one_kind_are_a_mistake_of_ours(folder: Path) -> None:
    (folder / "again.py").write_text("class Again:\n    kind = 'fast'\n")
    with pytest.raises(AssertionError, match="'fast'"):
        plugins.discover(folder.name, [str(folder)])


def test_two_plug_ins_in_one_file_are_a_mistake_of_ours(folder: Path) -> None:
    (folder / "two.py").write_text("class A:\n    kind = 'a'\nclass B:\n    kind = 'b'\n")
    with pytest.raises(AssertionError, match="one plug-in a file"):
        plugins.discover(folder.name, [str(folder)])


def test_the_shipped_plug_ins_are_named_by_their_kind() -> None:
    for package in (aggregators, codecs, derived, detectors):
        assert package.kinds() == tuple(sorted(package.kinds()))
        for kind in package.kinds():
            assert package.get(kind).kind == kind
        with pytest.raises(KeyError):
            package.get("no-such-kind")
