"""A value as MessagePack in parts, so that large columns are neither copied nor encoded in one go.

The parts' concatenation is what `msgspec.msgpack.encode` gives, and decodes as such. A part has a
path (`rules/5f2c/scorer/0.state.mean`), by which it is found again in the next encoding: a column
of bytes is a part of its own, and so is a list's content, for both grow at their end. What is short
joins what stands around it.

Structs and dicts are walked to whatever depth; of lists only those of Structs, dicts or bytes: one
of a hundred thousand keys is encoded at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

_encode = msgspec.msgpack.Encoder().encode
_BYTES = (bytes, bytearray, memoryview)
_WALKED = (Struct, dict, *_BYTES)
_PLAIN = (int, float, str, bool, type(None))
# A column up to here is copied: a quarter of a microsecond, less than a part of its own takes.
SHORT_BYTES_MAX = 1024


class Part(NamedTuple):
    """A piece of a MessagePack message; `data` is one-dimensional bytes, perhaps a live view."""

    path: str
    data: bytes | bytearray | memoryview


def parts(value: Any, path: str = "") -> Iterator[Part]:
    """The message that `value` makes, lazily, and in an order that depends on `value` only."""
    if isinstance(value, Struct) and _is_a_map(value):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        yield from _map({encoded: getattr(value, name) for encoded, name in names}, path)
    elif isinstance(value, dict):
        yield from _map(value, path)
    elif isinstance(value, _BYTES):
        yield Part(path, _header(len(value), _BIN))
        yield Part(path, value)
    elif isinstance(value, list | tuple):
        yield from _array(value, path)
    else:
        yield Part(path, _encode(value))


def whole(message: bytes) -> list[Part]:
    """A message that is in one piece."""
    return [Part("", message)]


def joined(message: Iterator[Part]) -> bytes:
    return b"".join(part.data for part in message)


def _is_a_map(value: Struct) -> bool:
    config = value.__struct_config__
    return not (config.array_like or config.tag or config.omit_defaults)


def _map(fields: Mapping[Any, Any], path: str) -> Iterator[Part]:
    joined = bytearray(_header(len(fields), _MAP))
    for name, value in fields.items():
        joined += _encode(name)
        if _is_short(value):
            joined += _encode(value)
            continue
        yield Part(path, joined)
        yield from parts(value, f"{path}/{name}" if path else str(name))
        joined = bytearray()
    yield Part(path, joined)


def _array(values: list[Any] | tuple[Any, ...], path: str) -> Iterator[Part]:
    header = _header(len(values), _ARRAY)
    if not (isinstance(values, tuple) or (values and isinstance(values[0], _WALKED))):
        yield Part(path, header)
        yield Part(path, memoryview(_encode(values))[len(header) :])
        return
    joined = bytearray(header)
    for i, value in enumerate(values):
        if _is_short(value):
            joined += _encode(value)
            continue
        yield Part(path, joined)
        yield from parts(value, f"{path}/{i}")
        joined = bytearray()
    yield Part(path, joined)


def _is_short(value: Any) -> bool:
    """Whether it is encoded with what stands around it: a scalar, or a column of few bytes."""
    if isinstance(value, _BYTES):
        return len(value) <= SHORT_BYTES_MAX
    return isinstance(value, _PLAIN)


# By the MessagePack specification: (short form's tag, its limit), then (tag, bytes of length).
_MAP = ((0x80, 16), (0xDE, 2), (0xDF, 4))
_ARRAY = ((0x90, 16), (0xDC, 2), (0xDD, 4))
_BIN = ((0, 0), (0xC4, 1), (0xC5, 2), (0xC6, 4))


def _header(n: int, forms: tuple[tuple[int, int], ...]) -> bytes:
    (short, limit), *longer = forms
    if n < limit:
        return bytes([short | n])
    tag, size = next((tag, size) for tag, size in longer if n < 256**size)
    return bytes([tag]) + n.to_bytes(size, "big")
