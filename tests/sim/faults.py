"""What goes wrong: a schedule drawn from the seed, and what it does to the calls of processes.

weather     for a while, calls of some services by some processes are lost, late, throttled, cut
outage      for a while, a service answers nobody
crash       a process is gone, and another starts a little later
pause       a process stands still for longer than its leases live (a zombie), or shortly
aim         the next call of a kind (a claim, a commit, a mark …) meets its fault: it is lost
            before or after it took effect, or its process crashes or freezes at that moment
damage      a stored state that a row names is made unreadable
deploy      processes are replaced one after the other
deafness    a process hears late that its heartbeat was taken, and the next ones are lost
refusal     for a while, the bus refuses some events for good
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from processor.core.leases.rows import ShardRow
from tests.sim.history import FAULTS_UNTIL_S, History
from tests.sim.loop import Host, SimLoop
from tests.sim.network import Fate, Garble, Service

Kind = Literal[
    "weather", "outage", "crash", "pause", "aim", "damage", "deploy", "deafness", "refusal"
]
Act = Literal[
    "lost before",
    "lost after",
    "lost with its sender",
    "crash before",
    "crash after",
    "freeze",
    "late",
    "overtaken",
    "deafen",
    "deafen later",
]

KINDS: tuple[Kind, ...] = (
    *("weather", "weather", "outage", "crash", "crash", "pause", "pause", "damage", "deploy"),
    *("refusal", "deafness", "deafness", "aim", "aim", "aim", "aim", "aim", "aim"),
)
AIMS = (
    *("commit", "commit", "commit", "mark", "mark", "claim", "end", "release", "put", "heartbeat"),
    *("put_events", "put_events", "read_workers", "delete", "bury", "read_shards", "join"),
)
AIMS_OF_GLOBAL_RULES = ("PutRecords", "PutRecords", "PutRecords", "GetRecords")
AT_RESHARDS = ("end", "end", "claim", "commit", "GetRecords")
ACTS: tuple[Act, ...] = get_args(Act)[:-2]  # the last two come by deafness alone
SERVICES: tuple[Service, ...] = ("table", "items", "objects", "kinesis", "bus", "letters")
OUT: tuple[frozenset[Service], ...] = (
    frozenset(("table", "items")),
    frozenset(("table", "items")),
    frozenset(("objects",)),
    frozenset(("kinesis",)),
    frozenset(("bus",)),
    frozenset(("bus", "letters")),
    frozenset(("table", "items", "objects", "kinesis", "bus", "letters")),
)
# Longer than a dead worker's burial takes; and a pause that outlives nothing.
ZOMBIE_S = (12.5, 26.0)
SHORT_S = (1.0, 9.0)


class Fault(NamedTuple):
    """One line of the schedule; `draw` feeds whatever its kind still has to choose."""

    at_s: float
    kind: Kind
    draw: int
    at: str = ""  # what an aim is for; else any


def schedule(history: History) -> tuple[Fault, ...]:
    """At least five, from when all shards are owned until the faults stop; some of them wait for
    the moments at which protocols break: an idle shard's mark, the end of a parent."""
    rng = random.Random(f"faults/{history.seed}")
    until_s = FAULTS_UNTIL_S - 30
    made = [
        Fault(rng.uniform(15, until_s), rng.choice(KINDS), rng.getrandbits(32))
        for _ in range(rng.randrange(6, 12))
    ]
    moments = [(lull.from_s + 20, "mark") for lull in history.lulls]
    moments += [(one.at_s - 0.1, rng.choice(AT_RESHARDS)) for one in history.reshards]
    made += [
        Fault(at_s, "aim", rng.getrandbits(32), at) for at_s, at in moments if rng.random() < 0.5
    ]
    return tuple(sorted(made))


@dataclass
class Weather:
    """Chances, a call."""

    services: frozenset[Service]
    hosts: frozenset[Host] | None  # None: all
    until_s: float
    lost_before: float = 0.0
    lost_after: float = 0.0
    throttled: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.0
    garbled: float = 0.0
    kind: str = ""  # of calls; else all

    def __str__(self) -> str:
        whom = ", ".join(sorted(host.name for host in self.hosts)) if self.hosts else "all"
        chances = ("lost_before", "lost_after", "throttled", "slow", "slow_s", "garbled")
        what = (f"{name} {getattr(self, name):g}" for name in chances if getattr(self, name))
        return f"{'+'.join(sorted(self.services))} for {whom}: {', '.join(what) or 'nothing'}"

    def covers(self, host: Host, service: Service, kind: str) -> bool:
        is_of_it = service in self.services and self.kind in ("", kind)
        return is_of_it and (self.hosts is None or host in self.hosts)


@dataclass
class Aim:
    """The next call of that kind, by whomever or by one process."""

    kind: str
    act: Act
    skip: int = 0  # so many are let pass first
    by: Host | None = None
    after_s: float = 0.0  # from the call to what happens, where that waits


class Air:
    """`network.Faults`: what happens to each call, by what is in the air."""

    def __init__(
        self,
        loop: SimLoop,
        seed: int,
        act: Callable[[Aim, Host, float], None],
        on_mark: Callable[[ShardRow], None],
    ) -> None:
        self._loop = loop
        self._rng = random.Random(f"air/{seed}")
        self._act, self._on_mark = act, on_mark
        self.weather: list[Weather] = []
        self.aims: list[Aim] = []
        self.counts: Counter[str] = Counter()

    def clear(self) -> None:
        self.weather.clear()
        self.aims.clear()

    def fate(self, host: Host, service: Service, kind: str, args: tuple[Any, ...]) -> Fate:
        fate = Fate(0.002 + 0.02 * self._rng.random())
        if kind == "mark":
            self._on_mark(args[1])
        if self.aims:
            self._take_aim(host, kind, fate)
        for weather in self.weather:
            if self._loop.now >= weather.until_s:
                self.weather = [one for one in self.weather if self._loop.now < one.until_s]
            elif weather.covers(host, service, kind):
                self._blow(weather, service, kind, fate)
        return fate

    def _deafen(self, host: Host, fate: Fate) -> None:
        """An answer that comes just in time to count, and then none for longer than it counts."""
        fate.back_s = self._rng.uniform(1.3, 1.95)
        until_s = self._loop.now + self._rng.uniform(8, 14)
        hosts = frozenset((host,))
        lost = Weather(frozenset(("table",)), hosts, until_s, lost_before=1.0, kind="heartbeat")
        self._loop.in_the_world(0.0, self.weather.append, lost)  # this one is only late

    def _blow(self, weather: Weather, service: Service, kind: str, fate: Fate) -> None:
        rng = self._rng
        draw = rng.random()
        if draw < weather.lost_before:
            fate.how = "lost before"
        elif (draw := draw - weather.lost_before) < weather.lost_after:
            fate.how = "lost after"
        elif (draw := draw - weather.lost_after) < weather.throttled:
            fate.how = "throttled"
        elif (draw - weather.throttled) < weather.garbled:
            fate.garble = _garble(rng, service, kind)
        if fate.how in ("lost before", "lost after") or rng.random() < weather.slow:
            slow_s = weather.slow_s * rng.random()
            if rng.random() < 0.5:
                fate.there_s += slow_s
            else:
                fate.back_s += slow_s
            self.counts["delayed"] += 1
        if fate.garble == "torn":
            fate.back_s = rng.uniform(0.05, 2.0)
        if fate.how or fate.garble:
            self.counts[f"{service} {fate.how or fate.garble}"] += 1

    def _take_aim(self, host: Host, kind: str, fate: Fate) -> None:
        for aim in self.aims:
            if aim.kind != kind or aim.by not in (None, host):
                continue
            if aim.skip:
                aim.skip -= 1
                continue
            self.aims.remove(aim)
            self.counts[f"{aim.act} at a {kind}"] += 1
            self._bring(aim, host, fate)
            return

    def _bring(self, aim: Aim, host: Host, fate: Fate) -> None:
        duration_s = self._rng.uniform(*ZOMBIE_S)
        match aim.act:
            case "lost before" | "lost after":
                fate.how = aim.act
                fate.back_s = self._rng.choice((0.0, 1.5, 9.0))
            case "crash before":
                fate.how = "lost before"
                fate.at_arrival = lambda: self._act(aim, host, 0.0)
            case "lost with its sender":  # who still has time to do something else before
                fate.how = "lost before"
                self._loop.in_the_world(self._rng.uniform(0.05, 4), self._act, aim, host, 0.0)
            case "deafen":
                self._deafen(host, fate)
            case "deafen later":
                then = Aim("heartbeat", "deafen", by=host)
                self._loop.in_the_world(aim.after_s, self.aims.append, then)
            case "crash after":
                fate.at_effect = lambda: self._act(aim, host, 0.0)
            case "freeze":
                fate.at_arrival = lambda: self._act(aim, host, duration_s)
            case "overtaken":  # its sender gives it up and sends it again before it arrives
                fate.there_s = self._rng.uniform(5.1, 9.0)
            case "late":  # the process stands still, and its request arrives when it is long over
                fate.there_s = duration_s - 0.5
                self._act(aim, host, duration_s)


def _garble(rng: random.Random, service: Service, kind: str) -> Garble | None:
    if service == "kinesis":
        if kind == "ListShards":
            return rng.choice(("cut", "empty", "stale", "stale"))
        if kind == "PutRecords":
            return rng.choice(("cut", "empty", "partial", "partial"))
        return rng.choice(("cut", "empty", "expired") if kind == "GetRecords" else ("cut", "empty"))
    if kind == "read_shards":
        return "torn"
    return "partial" if kind == "put_events" else None


def weather(rng: random.Random, hosts: list[Host], now: float) -> Weather:
    """Bad for 5 to 40 s, for some services, for everybody or for one."""
    services = frozenset(rng.sample(SERVICES, rng.randrange(1, 4)))
    whom = frozenset((rng.choice(hosts),)) if hosts and rng.random() < 0.5 else None
    return Weather(
        services,
        whom,
        now + rng.uniform(5, 40),
        lost_before=rng.choice((0.0, 0.05, 0.3)),
        lost_after=rng.choice((0.0, 0.05, 0.3)),
        throttled=rng.choice((0.0, 0.1, 0.4)),
        slow=rng.choice((0.0, 0.2, 0.6)),
        slow_s=rng.choice((0.3, 1.9, 6.0)),
        garbled=rng.choice((0.0, 0.1, 0.3)),
    )


def outage(rng: random.Random, hosts: list[Host], now: float) -> Weather:
    """Nothing arrives for 3 to 30 s; or nothing that one process sends."""
    whom = frozenset((rng.choice(hosts),)) if hosts and rng.random() < 0.3 else None
    return Weather(
        rng.choice(OUT),
        whom,
        now + rng.choice((rng.uniform(3, 9), rng.uniform(9, 30))),
        lost_before=1.0,
        slow_s=rng.choice((0.0, 1.0, 5.0)),
    )
