"""What the documents say is true: tables, examples, commands and paths are held to the code."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor import aggregators, cli, codecs, config, detectors, errors
from processor.config import reference, shape
from processor.config.options import options_of
from processor.core import events, patterns
from processor.observe import metrics
from processor.stores.dynamodb import create_command

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md")
PAGES += ("docs/testing.md", "bench/README.md")
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z.][a-z.-]*):", MAKEFILE, re.MULTILINE))

every_page = pytest.mark.parametrize("page", PAGES)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def inline(text: str) -> list[str]:
    """What stands between single backquotes, outside of blocks."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", outside)


def joined(block: str) -> list[str]:
    """A block's lines, those that end in a backslash with what follows."""
    return block.replace("\\\n", " ").splitlines()


def commands(text: str) -> Iterator[list[str]]:
    """Every command that a page tells to type, as words."""
    lines = [line for block in blocks(text, "sh") for line in joined(block)]
    lines += [
        line.removeprefix("$ ").partition(";")[0]
        for block in blocks(text, "text")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    lines += [
        each for each in inline(text) if re.match(r"(\S*/)?(make|processor|python)( |$)", each)
    ]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words:
            yield words


def verbs() -> dict[str, argparse.ArgumentParser]:
    parser = cli.build_parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


# ---- the first screen -----------------------------------------------------------------------


def test_the_readme_opens_with_the_two_commands() -> None:
    first = README.partition("```sh\n")[2].partition("```")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
    chapters = re.split(r"^## ", README, flags=re.MULTILINE)
    assert first in chapters[0]
    assert chapters[1].startswith("What one sees")


# ---- what is generated ----------------------------------------------------------------------


def test_the_page_of_settings_is_what_the_code_generates() -> None:
    assert (ROOT / "docs" / "pipeline.md").read_text() == reference.document(), "run make docs"


def test_the_page_of_metrics_is_what_the_code_generates() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page.endswith("\n\n" + metrics.document()), "run make docs"


def test_every_setting_detector_option_and_plug_in_is_in_the_reference() -> None:
    page = reference.document()
    keys = [
        *shape.source(),
        *shape.EVENT,
        *shape.RULE,
        *(key for keys in shape.WINDOWS.values() for key in keys),
        shape.LATENESS,
        *shape.PANES,
        *shape.EARLY,
        *shape.LATE,
        *shape.EMIT,
    ]
    keys += [*shape.STATE, *shape.DEAD_LETTERS, *shape.HTTP]
    names = {key.name for key in keys} | set(shape.SINKS)
    names |= {name for kind in detectors.kinds() for name in options_of(detectors.get(kind).params)}
    assert [name for name in sorted(names) if f"| `{name}` |" not in page] == []
    assert [
        kind for kind in aggregators.kinds() if f"{kind}`" not in page and f"{{{kind}: " not in page
    ] == []
    assert [kind for kind in codecs.kinds() if kind not in page] == []


def test_every_row_of_the_reference_says_what_it_means() -> None:
    rows = [line for line in reference.document().splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") in ("", reference.NONE)] == []


def test_the_reference_tells_of_every_operator_of_a_pattern() -> None:
    page = reference.document()
    assert [name for name in patterns.OPERATORS if f"{{{name}: " not in page] == []
    assert f"`{patterns.OR}: [" in page


# ---- examples -------------------------------------------------------------------------------


def test_every_pipeline_in_the_readme_is_valid() -> None:
    examples = blocks(README, "yaml")
    assert examples
    for example in examples:
        assert config.loads(example, {}).warnings == []


def test_the_messages_in_the_readme_are_those_of_validate() -> None:
    shown = [line for line in README.splitlines() if line.startswith("wrong.yaml:")]
    wrong = """app: shop
source: {stream: orders, start: yesterday}
event: {partition_key: store}
rules:
  orders:
    group_by: [store]
    aggregates: {orders: count}
    window: {tumbling: 10}
    aggregats: {}
"""
    with pytest.raises(config.ConfigErrors) as found:
        config.loads(wrong, {}, file="wrong.yaml")
    assert str(found.value).splitlines() == shown


def test_the_event_in_the_readme_has_the_fields_of_an_event() -> None:
    (example,) = blocks(README, "json")
    event = json.loads(example)
    assert event["detail-type"] in events.ANOMALY_TYPES.values()
    assert len(event["detail"]["id"]) == events.ID_LENGTH
    for kind in (events.WINDOW_RESULT, *events.ANOMALY_TYPES.values()):
        assert f"`{kind}`" in README
    window = events.Window(0, 1, (("store", "oslo"),), {}, 0, correlation_ids=("c",))
    identity = events.Identity("demo", "0.0", "orders", "v")
    made = json.loads(events.window_event(identity, window, sink="bus").detail)
    assert list(event["detail"]) == [*list(made)[:-1], "anomaly", list(made)[-1]]


# ---- commands, paths, codes -----------------------------------------------------------------


@every_page
def test_every_command_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    missing = [" ".join(words) for words in commands(text) if not is_known(words)]
    assert missing == []


def is_known(words: list[str]) -> bool:
    program = words[0].rpartition("/")[2]
    arguments = [word for word in words[1:] if word != "…"]
    if program == "make":
        targets = [word for word in arguments if "=" not in word]
        return set(targets) <= TARGETS
    if program == "processor":
        return not arguments or arguments[0].startswith("-") or arguments[0] in verbs()
    if program == "python":
        module = arguments[arguments.index("-m") + 1].replace(".", "/")
        return (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file()
    return program == "aws"  # the commands that make what a start lacks


def test_every_verb_of_the_command_line_is_in_the_readme() -> None:
    assert [verb for verb in verbs() if f"`processor {verb}" not in README] == []


def test_the_command_that_makes_the_table_is_what_a_start_prints() -> None:
    shown = [" ".join(words) for words in commands(README) if words[0] == "aws"]
    assert create_command("processor-shop") in shown


@every_page
def test_every_path_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    folders = "processor|tests|docs|bench|requirements"
    named = [each for each in inline(text) if re.fullmatch(rf"({folders})/[\w./-]*", each)]
    named += re.findall(r"\]\(([^)#:]+)\)", text)
    assert named or page in ("CHANGELOG.md", "docs/design.md", "docs/testing.md")
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    table = README.partition("| exit | meaning |")[2].partition("\n\n")[0]
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for code in row.split(",")
    }
    raised = {kind.exit_code for kind in descendants(errors.ProcessorError)}
    signals = {cli.EXIT_INTERRUPTED, cli.EXIT_BROKEN_PIPE, 128 + 15}
    assert told == raised | signals | {0}


def descendants(kind: type[errors.ProcessorError]) -> Iterator[type[errors.ProcessorError]]:
    if kind.__module__ == errors.__name__:
        yield kind
        for child in kind.__subclasses__():
            yield from descendants(child)


@every_page
def test_every_metric_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = [re.match(r"processor_(\w+)", each) for each in inline(text)]
    assert [m[0] for m in named if m and m[1] not in metrics.BY_NAME] == []
