"""A line of a recording → a record of the stream.

    an event       {"customer": "c-17", "amount": 12.5, …}      the line is the payload
    an envelope    {"partition_key": "c-17", "arrival": "2026-01-31T12:00:00Z", "data": {…}}
    … of binaries  {"partition_key": "c-17", "arrival": 1769860800000, "data_base64": "H4sI…"}
    GetRecords'    {"Data": "eyJ…", "PartitionKey": "c-17", "ApproximateArrivalTimestamp": …}

An envelope has no keys but its own, `data` or `data_base64`, and one of the others: so an event
that happens to have a field `data` is still an event. `data` is the payload as JSON, to the byte; a
text is sent as it is. What an envelope or an event does not say of itself is found in the event:
its partition key in `event.partition_key`, its arrival in `event.time`.
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec
import orjson
from msgspec import Raw, Struct

from processor.codecs.base import Fault
from processor.history import fields
from processor.model import EventSpec
from processor.wording import describe

_OWN = frozenset({"partition_key", "arrival", "data", "data_base64", "sequence_number", "shard"})
_SERVICE = frozenset(
    {"Data", "PartitionKey", "ApproximateArrivalTimestamp", "SequenceNumber", "EncryptionType"}
)
ENVELOPE = "data or data_base64, and partition_key (a text) and arrival (ISO 8601, or ms) if known"


class Recorded(Struct, frozen=True, gc=False):
    """A record: `partition_key` is "" where nothing tells it; `arrival_ms`: when it came."""

    payload: bytes
    partition_key: str
    arrival_ms: int


class _Envelope(Struct, frozen=True):
    data: Raw


class Reader:
    """Reads lines in their order."""

    def __init__(self, event: EventSpec, now_ms: int | None = None) -> None:
        """`now_ms`: no record arrived later, whatever its event says."""
        self._event = event
        self._now_ms = now_ms
        self._last_ms: int | None = None  # arrival of the record before

    def read(self, line: bytes) -> Recorded | Fault:
        try:
            tree = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return Fault("malformed", f"not JSON: {error}")
        if not isinstance(tree, dict):
            return Fault("malformed", f"found {describe(tree)}, expected an event or an envelope")
        if is_envelope(tree):
            return self._enveloped(line, tree, tree.get("partition_key"), tree.get("arrival"))
        if "Data" in tree and tree.keys() <= _SERVICE:
            return self._of_service(line, tree)
        return self._record(line, tree, None, None)

    def _enveloped(
        self, line: bytes, tree: dict[str, Any], key: Any, arrival: Any
    ) -> Recorded | Fault:
        if not isinstance(key, str | None):
            return Fault("envelope", f"partition_key: found {describe(key)}, expected a text")
        arrival_ms = _arrival_ms(arrival)
        if arrival is not None and arrival_ms is None:
            found = f"arrival: found {describe(arrival)}"
            return Fault("envelope", f"{found}, expected ISO 8601 with its zone, or milliseconds")
        payload = _payload(line, tree)
        if isinstance(payload, Fault):
            return payload
        is_whole = arrival_ms is not None and key is not None
        return self._record(payload, None if is_whole else _decoded(payload), key, arrival_ms)

    def _of_service(self, line: bytes, tree: dict[str, Any]) -> Recorded | Fault:
        """As the service's API and its command line give a record: times of it are seconds."""
        arrival = tree.get("ApproximateArrivalTimestamp")
        if isinstance(arrival, float | int):
            arrival = fields.of_field(arrival, "s")
        own = {"data_base64": tree["Data"]}
        return self._enveloped(line, own, tree.get("PartitionKey"), arrival)

    def _record(
        self, payload: bytes, event: Any, key: str | None, arrival_ms: int | None
    ) -> Recorded | Fault:
        if key is None:
            key = fields.partition_key(event, self._event)
        if arrival_ms is None:
            arrival_ms = fields.time_ms(event, self._event)
        if arrival_ms is None:
            arrival_ms = self._last_ms  # the pipeline says what it does without a time
        if arrival_ms is None:
            where = self._event.time or "event.time of the pipeline file, which is not set"
            return Fault("arrival", f"no time: neither an arrival nor {where}")
        if self._now_ms is not None:
            arrival_ms = min(arrival_ms, self._now_ms)
        self._last_ms = arrival_ms
        return Recorded(payload, key, arrival_ms)


def is_envelope(tree: dict[str, Any]) -> bool:
    """Whether it is one of ours, by its keys."""
    has_data = "data" in tree or "data_base64" in tree
    return has_data and tree.keys() <= _OWN and ("partition_key" in tree or "arrival" in tree)


def envelope(record: Recorded) -> bytes:
    """A record as a line of a capture; the inverse of `Reader.read`."""
    own: dict[str, Any] = {"partition_key": record.partition_key, "arrival": record.arrival_ms}
    try:
        own["data"] = record.payload.decode()
    except UnicodeDecodeError:
        own["data_base64"] = binascii.b2a_base64(record.payload, newline=False).decode()
    return orjson.dumps(own)


def _arrival_ms(value: Any) -> int | None:
    return fields.of_field(value, "iso8601" if isinstance(value, str) else "ms")


def _payload(line: bytes, tree: dict[str, Any]) -> bytes | Fault:
    if "data" in tree and "data_base64" in tree:
        return Fault("envelope", "found both data and data_base64, expected one of them")
    if "data" in tree:
        data = tree["data"]
        if isinstance(data, str):
            return data.encode()
        return bytes(msgspec.json.decode(line, type=_Envelope).data)
    try:
        return binascii.a2b_base64(tree["data_base64"], strict_mode=True)
    except (ValueError, TypeError) as error:
        return Fault("envelope", f"data_base64: {error}")


def _decoded(payload: bytes) -> Any:
    """Some payloads are no JSON: the pipeline's own decoding may be another."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
