"""Membership as transcripts that a person can read: who covers what, and how far all are together.

A file of `transcripts/` is a story: lines that begin with `>` are what happens, the line after each
is what is known then. The hash space has sixteen parts, 0 to f. To write all of them anew, and see
what changed in a diff:  python -m tests.core.merge.test_members

    > a 0-7 at 10      a closing of shard a, which holds eight parts, with its watermark; then
                       quiet, ended, life X, seeks N, since T, told-until T, gap,
                       parents X
    > stall a 10       a mark: go on without shard a, if it is still at 10 (`nobody`: without those
                       that never came)
    > idle 90          a mark: time passed to 90 while nothing came
    > behind 20        who holds back a window that ends at 20
    > restart          all state is saved and read again
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from processor.core.merge import members, partials
from processor.core.merge.members import NEVER_MS, Members, Report
from processor.core.merge.partials import Teller
from processor.model import Shard

FOLDER = Path(__file__).parent / "transcripts"
STORIES = sorted(FOLDER.glob("*.txt"))
PART = 2**128 // 16


class Story:
    def __init__(self) -> None:
        self.members = Members()

    def play(self, line: str) -> str:
        what, *words = line.split()
        act: Callable[..., str | None] | None = getattr(self, f"on_{what}", None)
        told = self.report(what, words) if act is None else act(*words)
        return told if told is not None else self.told()

    def on_stall(self, name: str, at: str) -> None:
        self.members.stall("" if name == "nobody" else name, int(at))

    def on_idle(self, to: str) -> None:
        self.members.advance(int(to))

    def on_behind(self, end: str) -> str:
        behind = self.members.behind(int(end))
        return "  nobody" if behind is None else f"  {behind.shard_id or 'nobody knows who'}"

    def on_restart(self) -> None:
        saved = msgspec.msgpack.encode(self.members.snapshot())
        self.members = Members()
        self.members.restore(msgspec.msgpack.decode(saved, type=members.Saved))
        assert msgspec.msgpack.encode(self.members.snapshot()) == saved

    def report(self, name: str, words: list[str]) -> str | None:
        options = dict(zip(words[1::2], words[2::2], strict=False))
        flags = {word for word in words if word in ("quiet", "ended", "gap")}
        teller = _teller(name, words[0], options)
        if self.members.standing(teller) == "stale":
            return "  stale"
        at = options.get("at", "-")
        reach = int(options.get("told-until", NEVER_MS))
        self.members.report(
            Report(
                teller,
                None if at == "-" else int(at),
                "quiet" in flags,
                "ended" in flags,
                reach,
                "gap" in flags,
            )
        )
        return None

    def told(self) -> str:
        saved = self.members.snapshot()
        by_id = {member.teller.shard_id: member for member in saved.members}
        parts = [
            (_parts(cover.first, cover.last), cover.shard_id, by_id[cover.shard_id])
            for cover in saved.covers
        ]
        shown = [f"{where} {name} {_at(m.watermark_ms)}{_state(m)}" for where, name, m in parts]
        shown += [f"{_parts(hole.first, hole.last)} nobody" for hole in self.members.holes()]
        line = f"  all {_at(self.members.watermark_ms)}: {', '.join(sorted(shown))}"
        if self.members.since_ms != NEVER_MS:
            line += f"; partial before {self.members.since_ms}"
        return line if self.members.is_complete else f"{line}; incomplete"


def _teller(name: str, where: str, options: dict[str, str]) -> Teller:
    first, _, last = where.partition("-")
    parents = tuple(options.get("parents", "").split())
    held = Shard(name, int(first, 16) * PART, (int(last or first, 16) + 1) * PART - 1, parents)
    since = options.get("since")
    incarnation = f"1.{options.get('seeks', 0)}"
    return partials.teller(
        held, incarnation, None if since is None else int(since), options.get("life", "")
    )


def _parts(first: bytes, last: bytes) -> str:
    one, other = first.hex()[0], last.hex()[0]
    return one if one == other else f"{one}-{other}"


def _at(watermark_ms: int) -> str:
    return "-" if watermark_ms == NEVER_MS else str(watermark_ms)


def _state(member: members.Member) -> str:
    states = {"quiet": member.is_idle, "ended": member.is_ended, "stalled": member.is_stalled}
    return "".join(f" {name}" for name, holds in states.items() if holds)


def replayed(text: str) -> str:
    """The same story with what is known now."""
    story, lines = Story(), list[str]()
    for line in text.splitlines():
        if line.startswith(">"):
            lines += [line, story.play(line[1:])]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_members_are_as_the_transcript_says(path: Path) -> None:
    text = path.read_text()
    assert replayed(text) == text


def test_a_parent_that_was_held_until_its_child_had_begun_takes_nothing_from_it() -> None:
    story = Story()
    story.play("b 0-7 at 10 parents a")
    story.play("c 8-f at 12 parents a")
    held = Report(_teller("a", "0-f", {}), 9, False, True, is_after_gap=True)
    story.members.report(held)
    assert story.told() == "  all 10: 0-7 b 10, 8-f c 12; partial before 9"


def test_there_are_transcripts() -> None:
    assert len(STORIES) >= 8


if __name__ == "__main__":
    for story_path in STORIES:
        story_path.write_text(replayed(story_path.read_text()))
