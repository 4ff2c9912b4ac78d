"""The lease protocol as transcripts that a person can read and review (after etcd raft's testdata).

A file of `transcripts/` is a story: lines that begin with `>` are what happens, the lines after
each are what workers then did, with the virtual second. What is not news is left out: heartbeats
that say what the last one said, and reads. To write all of them anew, and see what changed in a
diff:  python -m tests.core.leases.test_transcripts

    > shards 4              the table begins so; comes first
    > join a b              workers start
    > run 5                 seconds pass
    > stop a · kill a       a worker is told to leave · dies
    > cut a 5 · freeze a 5  its calls hang · it does nothing, for so many seconds
    > fetch b 9             what it fetches ahead takes it so long
    > stall a 1             its task of that shard does not get on
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.leases.world import World, shard_id

FOLDER = Path(__file__).parent / "transcripts"
STORIES = sorted(FOLDER.glob("*.txt"))
READS = ("ReadWorkers", "ReadShards", "ReadShard ", "Discover")


class Story:
    """Plays a story line by line; `told` is what is news since the last line."""

    def __init__(self) -> None:
        self.world = World(0)
        self._seen = 0
        self._said: dict[str, str] = {}

    def play(self, line: str) -> None:
        what, *words = line.split()
        act: Callable[..., None] = getattr(self, f"on_{what}")
        act(*words)

    def on_shards(self, count: str) -> None:
        self.world = World(int(count))

    def on_join(self, *names: str) -> None:
        for name in names:
            self.world.join(name)

    def on_run(self, seconds: str) -> None:
        self.world.run(float(seconds))

    def on_stop(self, name: str) -> None:
        self.world.stop(name)

    def on_kill(self, name: str) -> None:
        self.world.kill(name)

    def on_cut(self, name: str, seconds: str) -> None:
        self.world.cut_off(name, float(seconds))

    def on_freeze(self, name: str, seconds: str) -> None:
        self.world.freeze(name, float(seconds))

    def on_fetch(self, name: str, seconds: str) -> None:
        self.world.fetch_s[name] = float(seconds)

    def on_stall(self, name: str, number: str) -> None:
        assert self.world.machines[name].on_stalled(shard_id(int(number)), self.world.now)

    def told(self) -> list[str]:
        lines = self.world.log[self._seen :]
        self._seen = len(self.world.log)
        return [line for line in lines if self._is_news(line)]

    def _is_news(self, line: str) -> bool:
        _, name, what = line.split(maxsplit=2)
        if what.startswith("Heartbeat"):
            saying = what.split(maxsplit=2)[2]
            is_new = self._said.get(name) != saying
            self._said[name] = saying
            return is_new
        return not what.startswith(READS)


def replayed(text: str) -> str:
    """The same story with what workers do now."""
    story, lines = Story(), list[str]()
    for line in text.splitlines():
        if line.startswith(">"):
            story.play(line[1:])
            lines += [line, *story.told()]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_workers_do_what_the_transcript_says(path: Path) -> None:
    text = path.read_text()
    assert replayed(text) == text


def test_there_are_transcripts() -> None:
    assert len(STORIES) >= 8


if __name__ == "__main__":
    for story_path in STORIES:
        story_path.write_text(replayed(story_path.read_text()))
