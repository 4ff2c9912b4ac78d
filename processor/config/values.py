"""The kinds of single values in a pipeline file: how each is read, and its JSON Schema.

`read` takes a scalar or list of the document's tree and raises `Wrong` with what was expected.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from processor import zones
from processor.config.document import Expanded, plain
from processor.model import BudgetSpec, CollapseSpec
from processor.wording import NAME, describe, did_you_mean, is_field_path, one_of

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION_MS_MAX = 3_650 * UNITS_MS["d"]  # ten years of milliseconds are far from int64's end
UNITS_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
UNITS_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
VARIABLE = r"\$\{"  # an editor sees the file before its variables have values

_DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
_SIZE = r"[0-9]+(\.[0-9]+)?(B|KB|MB|GB|KiB|MiB|GiB)"
_ARN = r"arn:aws[a-z-]*:{service}:[a-z0-9-]+:[0-9]{{12}}:{resource}"


class Wrong(Exception):
    """A value that is not what its place needs."""

    def __init__(self, expected: str, found: str | None = None):
        super().__init__(expected, found)
        self.expected, self.found = expected, found


def _as_is(value: Any) -> Any:
    return value


class Type(NamedTuple):
    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    show: Callable[[Any], Any] = _as_is  # the inverse of `read`, for the resolved file


def _as_text(tree: Any, expected: str) -> str:
    if isinstance(tree, Expanded):
        return tree.text
    if not isinstance(tree, str):
        raise Wrong(expected)
    return tree


def text(expected: str, is_valid: Callable[[str], bool], schema: Mapping[str, Any]) -> Type:
    def read(tree: Any) -> str:
        if isinstance(tree, int | float):  # not guessed at: 007 would lose its zeros
            raise Wrong(f"{expected} (a text: write it in quotes)")
        value = _as_text(tree, expected)
        if not is_valid(value):
            raise Wrong(expected, describe(value))
        return value

    return Type(read, {"type": "string", **schema})


def pattern(expected: str, regex: str) -> Type:
    compiled = re.compile(regex)
    schema = {"pattern": f"^({regex})$|{VARIABLE}"}
    return text(expected, lambda value: compiled.fullmatch(value) is not None, schema)


def choice(options: tuple[str, ...]) -> Type:
    def read(tree: Any) -> str:
        value = _as_text(tree, one_of(options))
        if value not in options:
            raise Wrong(one_of(options) + did_you_mean(value, options), describe(value))
        return value

    return Type(read, {"anyOf": [{"enum": list(options)}, _VARIABLE_SCHEMA]})


def integer(low: int, high: int) -> Type:
    def read(tree: Any) -> int:
        value = tree.value if isinstance(tree, Expanded) else tree
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"a whole number from {low} to {high}", describe(value))
        return value

    number = {"type": "integer", "minimum": low, "maximum": high}
    return Type(read, {"anyOf": [number, _VARIABLE_SCHEMA]})


def _read_boolean(tree: Any) -> bool:
    value = tree.value if isinstance(tree, Expanded) else tree
    if type(value) is not bool:
        raise Wrong("true or false", describe(plain(tree)))
    return value


def _read_zone(tree: Any) -> str:
    expected = "a time zone's IANA name, such as Europe/Berlin"
    value = _as_text(tree, expected)
    if value not in zones.names():
        raise Wrong(expected + did_you_mean(value, zones.names()), describe(value))
    return value


def duration(low_ms: int = 0, high_ms: int = DURATION_MS_MAX) -> Type:
    """Milliseconds, from `10s`, `1h30m` or `250ms`."""

    def read(tree: Any) -> int:
        value = _as_text(tree, "a duration with a unit, such as 10s, 5m or 1h30m")
        ms = parse_duration(value)
        if not low_ms <= ms <= high_ms:
            bounds = f"{show_duration(low_ms)} to {show_duration(high_ms)}"
            raise Wrong(f"a duration from {bounds}", describe(value))
        return ms

    schema = {"type": "string", "pattern": f"^{_DURATION}$|{VARIABLE}"}
    return Type(read, schema, show_duration)


def parse_duration(value: str) -> int:
    if len(value) > 40 or not re.fullmatch(_DURATION, value):
        raise Wrong("a duration with a unit, such as 10s, 5m or 1h30m", describe(value))
    parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", value)
    ms = sum(Decimal(number) * UNITS_MS[unit] for number, unit in parts)
    if ms != int(ms):
        raise Wrong("a duration of whole milliseconds", describe(value))
    return int(ms)


def show_duration(ms: int) -> str:
    """The shortest way to write it: 90000 is 90s, 600000 is 10m."""
    unit = next(u for u, size in reversed(UNITS_MS.items()) if ms % size == 0 and (ms or u == "s"))
    return f"{ms // UNITS_MS[unit]}{unit}"


def size(low: int, high: int) -> Type:
    """Bytes, from `256KiB` or `1MB`."""

    def read(tree: Any) -> int:
        expected = f"a size with a unit, such as 256KiB, from {show_size(low)} to {show_size(high)}"
        value = _as_text(tree, expected)
        match = re.fullmatch(_SIZE, value) if len(value) <= 40 else None
        if match is None:
            raise Wrong(expected, describe(value))
        number = Decimal(value.removesuffix(match[2])) * UNITS_BYTES[match[2]]
        if number != int(number) or not low <= number <= high:
            raise Wrong(expected, describe(value))
        return int(number)

    schema = {"type": "string", "pattern": f"^{_SIZE}$|{VARIABLE}"}
    return Type(read, schema, show_size)


def show_size(number: int) -> str:
    unit = next(u for u in ("GiB", "MiB", "KiB", "B") if number % UNITS_BYTES[u] == 0)
    return f"{number // UNITS_BYTES[unit]}{unit}"


def listed(item: Type, expected: str, *, least: int = 1) -> Type:
    """A list of at least so many, without repeats."""

    def read(tree: Any) -> tuple[Any, ...]:
        if not isinstance(tree, list) or len(tree) < least:
            raise Wrong(expected, describe(plain(tree)))
        values = tuple(item.read(each) for each in tree)
        for value in values:
            if values.count(value) > 1:
                raise Wrong(f"{expected}, each once", f"{value} {values.count(value)} times")
        return values

    schema = {"type": "array", "items": item.schema, "minItems": least, "uniqueItems": True}
    return Type(read, schema, list)


_PERIODS_MS = {"hour": UNITS_MS["h"], "day": UNITS_MS["d"], "week": 7 * UNITS_MS["d"]}
_BUDGET = r"([1-9][0-9]{0,5})/(hour|day|week)"


def _read_budget(tree: Any) -> BudgetSpec:
    expected = "so many a period, such as 5/day: 1 to 999999 an hour, day or week"
    match = re.fullmatch(_BUDGET, _as_text(tree, expected))
    if match is None:
        raise Wrong(expected, describe(plain(tree)))
    return BudgetSpec(int(match[1]), _PERIODS_MS[match[2]])


def _show_budget(budget: BudgetSpec) -> str:
    period = next(name for name, ms in _PERIODS_MS.items() if ms == budget.period_ms)
    return f"{budget.openings}/{period}"


_OVER_MAX = 1_000_000


def _read_collapse(tree: Any) -> CollapseSpec:
    expected = "{by: FIELD, over: N}, or one of the two; N from 1 to 1000000"
    known = plain(tree)
    if not isinstance(tree, dict) or not tree or not tree.keys() <= {"by", "over"}:
        raise Wrong(expected, describe(known))
    try:
        over = integer(1, _OVER_MAX).read(tree.get("over", CollapseSpec().over))
        by = FIELD.read(tree["by"]) if "by" in tree else None
    except Wrong as wrong:
        key = "over" if wrong.expected.startswith("a whole") else "by"
        raise Wrong(f"{key}: {wrong.expected}", describe(known)) from wrong
    return CollapseSpec(over, by)


def _show_collapse(collapse: CollapseSpec) -> dict[str, Any]:
    by = {} if collapse.by is None else {"by": collapse.by}
    return {**by, "over": collapse.over}


def _is_start(value: str) -> bool:
    if value in ("trim_horizon", "latest"):
        return True
    try:
        return datetime.datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _read_local(tree: Any) -> int:
    """Milliseconds since 1970-01-01T00:00 of a clock without a zone."""
    expected = "a local time without a zone, such as 2026-12-24T18:00"
    value = _as_text(tree, expected)
    try:
        if re.fullmatch(_LOCAL, value):
            return (datetime.datetime.fromisoformat(value) - _LOCAL_EPOCH) // _MS
    except ValueError:  # no such day
        pass
    raise Wrong(expected, describe(value))


def _show_local(ms: int) -> str:
    return (_LOCAL_EPOCH + ms * _MS).isoformat(timespec="minutes" if ms % 60_000 == 0 else "auto")


def _is_queue(value: str) -> bool:
    if "://" not in value:
        return re.fullmatch(_QUEUE, value) is not None and len(value) <= 80
    return _is_http_url(value)


def _is_http_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.path != ""
    except ValueError:
        return False


def _is_objects(value: str) -> bool:
    if "://" not in value:
        is_slip = re.match("[A-Za-z0-9]+:", value)  # s3:/bucket/x would become a folder
        return bool(value) and value.isprintable() and not is_slip
    return re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s]+)*/?", value) is not None


_LOCAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?"
_LOCAL_EPOCH, _MS = datetime.datetime(1970, 1, 1), datetime.timedelta(milliseconds=1)
_QUEUE = r"[A-Za-z0-9_-]+(\.fifo)?"
_VARIABLE_SCHEMA = {"type": "string", "pattern": VARIABLE}

BOOLEAN = Type(_read_boolean, {"anyOf": [{"type": "boolean"}, _VARIABLE_SCHEMA]})
ZONE = Type(_read_zone, {"type": "string", "minLength": 1})
NAMED = pattern("a name: letters, digits, _ . - and at most 64 of them", NAME)
FIELD = text(
    "a field's dotted path, such as order.store",
    is_field_path,
    {"minLength": 1, "pattern": r"^[^\[\]]+$"},
)
GROUPING = listed(FIELD, "a list of fields, such as [store]", least=0)
STREAM = pattern(
    "a stream's name or ARN",
    r"[a-zA-Z0-9_.-]{1,128}|"
    + _ARN.format(service="kinesis", resource="stream/[a-zA-Z0-9_.-]{1,128}"),
)
START = text(
    "trim_horizon, latest or a time with its zone, such as 2026-01-31T12:00:00Z",
    _is_start,
    {"minLength": 1},
)
LOCAL_TIME = Type(
    _read_local, {"type": "string", "pattern": rf"^{_LOCAL}$|{VARIABLE}"}, _show_local
)
RECURRING = pattern(
    'mon to sun or day, and a time, such as "sun 02:00"',
    r"(mon|tue|wed|thu|fri|sat|sun|day) ([01][0-9]|2[0-3]):[0-5][0-9]",
)
REGION = pattern("a region, such as eu-central-1", r"[a-z0-9]+(-[a-z0-9]+)+")
BUS = pattern(
    "an event bus's name or ARN",
    r"[a-zA-Z0-9_./-]{1,256}|"
    + _ARN.format(service="events", resource="event-bus/[a-zA-Z0-9_./-]{1,256}"),
)
QUEUE = text("a queue's name or URL", _is_queue, {"minLength": 1})
TABLE = pattern("a table's name: 3 to 255 of letters, digits, _ . -", r"[a-zA-Z0-9_.-]{3,255}")
OBJECTS = text(
    "s3://bucket/prefix or a folder's path (./a:b if a colon is in it)",
    _is_objects,
    {"minLength": 1},
)
HOST = pattern("an address or a host's name to listen on", r"[a-zA-Z0-9.:_-]{1,255}")
BUDGET = Type(_read_budget, {"type": "string", "pattern": f"^{_BUDGET}$|{VARIABLE}"}, _show_budget)
COLLAPSE = Type(
    _read_collapse,
    {
        "type": "object",
        "properties": {
            "by": {**FIELD.schema, "description": "A field of group_by."},
            "over": {**integer(1, _OVER_MAX).schema, "description": "Alarms in one window."},
        },
        "additionalProperties": False,
        "minProperties": 1,
    },
    _show_collapse,
)
