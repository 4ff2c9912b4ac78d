"""Positions from elsewhere: every listed shard has its place, or nothing is imported."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processor.core.leases.lineage import is_readable
from processor.core.leases.placing import (
    Place,
    changes,
    export,
    left_out,
    places,
    read_export,
    require_free,
)
from processor.core.leases.rows import StreamKey, fresh_row
from processor.core.leases.seeking import inherits
from processor.errors import ConfigError, UsageError
from processor.model import END, TRIM_HORIZON, Position, Shard

STREAM = StreamKey("orders", 1_700_000_000_123)
AT = Position("after", "7")
BEGIN = Position("at_time", "5")
#  a ─┬─ b ─┐
#     └─ c ─┴─ d          x
LISTING = [Shard("a"), Shard("b", parents=("a",)), Shard("c", parents=("a",))]
LISTING += [Shard("d", parents=("b", "c")), Shard("x")]


def placed(*known: Place, initial: Position | None = BEGIN) -> dict[str, Position]:
    return {place.shard_id: place.position for place in places(LISTING, known, initial)}


def test_a_shard_that_was_forgotten_has_ended_where_its_children_are_known() -> None:
    assert placed(Place("d", AT)) == {"a": END, "b": END, "c": END, "d": AT, "x": BEGIN}


def test_a_shard_that_was_not_come_to_begins_at_its_beginning() -> None:
    assert placed(Place("a", AT))["d"] == TRIM_HORIZON
    assert placed(Place("b", AT), Place("c", END))["d"] == TRIM_HORIZON


def test_a_shard_of_no_known_family_needs_a_word_on_where_to_begin() -> None:
    with pytest.raises(UsageError, match=r"x is not known there.*--initial"):
        placed(Place("d", AT), initial=None)
    assert placed(Place("d", AT), Place("x", AT), initial=None)["x"] == AT


def test_what_the_stream_no_longer_has_is_told() -> None:
    gone = Place("old", AT)
    assert left_out(LISTING, [gone, Place("a", END)]) == [gone]


def test_rows_are_made_so_that_parents_are_read_first() -> None:
    rows = {shard.id: fresh_row(STREAM, shard, TRIM_HORIZON) for shard in LISTING}
    found = places(LISTING, [Place("a", END), Place("b", AT, "", 4, 9), Place("c", END)], BEGIN)
    made = {change.after.id: change.after for change in changes(rows, found, "w")}
    assert {id_: row.position for id_, row in made.items()} == {
        "a": END,
        "b": AT,
        "c": END,
        "d": TRIM_HORIZON,
        "x": BEGIN,
    }
    assert [id_ for id_, row in made.items() if row.ended] == ["a", "c"]
    assert [id_ for id_, row in made.items() if is_readable(row, made)] == ["x", "b"]
    assert inherits(made["d"].pairs[-1]), "from b, which is read by us"
    assert not inherits(made["b"].pairs[-1])
    assert made["b"].caught_up_at_ms == 9
    assert (made["a"].seeks, made["b"].seeks) == (1, 5), "a new incarnation, also of the export's"


def test_progress_of_our_own_is_not_dropped_unasked() -> None:
    row = fresh_row(STREAM, LISTING[0], TRIM_HORIZON)
    found = [Place("a", AT)]
    require_free({"a": row}, found, overwrite=False)
    begun = {"a": replace(row, epoch=1)}
    require_free(begun, found, overwrite=True)
    with pytest.raises(UsageError, match=r"progress of its own on 1 shards \(a, …\).*--overwrite"):
        require_free(begun, found, overwrite=False)


# ---- our own file -----------------------------------------------------------------------------


def test_an_export_is_read_again() -> None:
    rows = {
        "b": replace(fresh_row(STREAM, Shard("b"), AT), seeks=2, caught_up_at_ms=9),
        "a": fresh_row(STREAM, Shard("a"), Position("at", "7", 3)),
        "c": replace(fresh_row(STREAM, Shard("c"), END), ended=True),
    }
    raw = export("shop", STREAM, rows, 1)
    assert read_export(raw, "f", STREAM) == [
        Place("a", Position("at", "7", 3)),
        Place("b", AT, seeks=2, caught_up_at_ms=9),
        Place("c", END),
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"processor positions", b"recipe"), "f: format: found recipe, version 1, expected"),
        ((b'"version": 1', b'"version": 2'), "f: format: found processor positions, version 2"),
        ((b'"orders"', b'"returns"'), "f: stream: found returns made at .* expected orders made"),
        ((b"1700000000123", b"9"), "f: stream: found orders made at 9, expected"),
        ((b"after:7", b"behind:7"), r"f: shards\[0\].position: found 'behind:7', expected after"),
        ((b"after:7", b"after:x"), r"shards\[0\].position"),
        ((b'"shards"', b'"shard"'), "missing required field `shards`"),
        ((b"}", b""), "f: found"),
    ],
)
def test_a_file_that_is_no_export_of_this_stream_is_refused(
    change: tuple[bytes, bytes], why: str
) -> None:
    raw = export("shop", STREAM, {"a": fresh_row(STREAM, Shard("a"), AT)}, 1)
    with pytest.raises(ConfigError, match=why):
        read_export(raw.replace(*change), "f", STREAM)
