"""The demo's broken records: one of each kind of bad input, made from a good event.

Each must become a dead letter: it is no JSON, or faulty in a field that rules read. Records of
megabytes are left out: a shard takes one megabyte a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from processor.local.check import DAY_MS, HOUR_MS

NESTING = 20_000  # deeper than any parser follows

Break = Callable[[dict[str, Any], int], bytes]  # from a good event and the end of the fortnight


def _with(**fields: Any) -> Break:
    return lambda body, _: orjson.dumps(body | fields)


def _without(field: str) -> Break:
    return lambda body, _: orjson.dumps({k: v for k, v in body.items() if k != field})


def _with_text(field: str, text: bytes) -> Break:
    """The event with a field in raw JSON at its end; the last of two equal keys wins."""
    return lambda body, _: orjson.dumps(body)[:-1] + f',"{field}":'.encode() + text + b"}"


def _at(after_end_ms: int) -> Break:
    return lambda body, end_ms: orjson.dumps(body | {"at": end_ms + after_end_ms})


BROKEN_KINDS: dict[str, Break] = {
    "cut short": lambda body, _: orjson.dumps(body)[:-9],
    "not JSON": lambda body, _: f"order of {body['store']}".encode(),
    "empty": lambda body, _: b"",
    "not UTF-8": lambda body, _: orjson.dumps(body).replace(b'"o', b'"\xff\xfe'),
    "not an object": lambda body, _: orjson.dumps([body["id"], body["at"]]),
    "amount of a wrong type": _with(amount="12.50"),
    "time of a wrong type": _with(at="yesterday"),
    "store of a wrong type": _with(store={"name": "sofia"}),
    "no amount": _without("amount"),
    "no time": _without("at"),
    "no store": _without("store"),
    # The fortnight ended two to three hours ago, so this is three hours ahead of now at least.
    "hours in the future": _at(6 * HOUR_MS),
    "far in the future": _at(30 * DAY_MS),
    "NaN": _with_text("amount", b"NaN"),
    "huge integer as amount": _with_text("amount", b"9" * 400),
    "huge integer as time": _with_text("at", b"1" + b"0" * 40),
    "deep nesting": _with_text("basket", b"[" * NESTING + b"]" * NESTING),  # where nobody reads
}
