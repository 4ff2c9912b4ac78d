"""`json`: one JSON object a record, decoded straight to a Struct of just the fields in use.

Fields that no rule reads are skipped unseen. Of duplicate keys the last wins. A field that is
absent or null is ABSENT; whether that matters is for the rules to say. Where an object belongs
nothing else does, if a rule needs a key or a number of it; patterns take what they find.

A page is decoded in one go, as lines, where no payload can be taken for a part of another (see
`_as_lines`): a call for each costs a third of all. What is wrong with which is then found one by
one, if anything is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import numpy as np
from msgspec import UNSET, Struct

from processor.codecs.base import Decoded, Fault

ABSENT = UNSET
# Half of Python's recursion limit: the verdict must not depend on how deep the caller stands.
DEPTH_MAX = 500
_QUOTE = ord('"')
_OPEN, _SHUT, _LINE = map(ord, "{}\n")
_LINES_MIN = 32  # of fewer records, to join and check them costs more than the calls do
_LINES_BYTES_MAX = 8 * 1024 * 1024  # joined they are a copy; of larger payloads a call is nothing
# What each byte outside of texts adds to the depth, as int8.
_STEPS = bytes({"[": 1, "{": 1, "]": 255, "}": 255}.get(chr(byte), 0) for byte in range(256))
_EXCERPT_MAX = 200
_NO_OBJECT = list[Any] | str | int | float | bool | None


class Elements(Struct, frozen=True, gc=False):
    """The value of a field whose objects are an array's elements: `items: [{sku: a}, {sku: b}]`."""

    array_path: str  # `items`, of the field `items.sku`
    array: list[Any]


class Fields:
    """The Struct that holds the fields in use, compiled from dotted paths and their types."""

    def __init__(self, types: Mapping[str, Any]):
        """`types`: dotted path → a type that msgspec decodes."""
        tree: dict[str, Any] = {}
        for path, type_ in types.items():
            *parents, leaf = path.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = type_
        self.paths: dict[str, tuple[str, ...]] = {}
        self.row_type = self._compile(tree, "", ())

    def _compile(self, tree: dict[str, Any], prefix: str, attributes: tuple[str, ...]) -> Any:
        members: list[tuple[str, Any, Any]] = []
        names: dict[str, str] = {}
        for i, (name, node) in enumerate(tree.items()):
            attribute = f"f{i}"  # a JSON name need not be a Python identifier
            names[attribute] = name
            path, here = prefix + name, (*attributes, attribute)
            if isinstance(node, dict):
                inner = self._compile(node, f"{path}.", here)
                type_ = inner | (_NO_OBJECT if _is_any(node) else None)
                members.append((attribute, type_, inner()))
            else:
                self.paths[path] = here
                members.append((attribute, node | None | msgspec.UnsetType, ABSENT))
        # Rows are in no cycle, and a page of them would only make the collector run.
        name = f"Row_{'_'.join(attributes)}"
        return msgspec.defstruct(name, members, frozen=True, gc=False, rename=names)

    def column(self, rows: Sequence[Any], path: str) -> list[Any]:
        """One field of all rows; ABSENT or None where it, or an object around it, is missing.

        `Elements` where an array of objects leads to it, and only patterns look inside.
        """
        attributes = self.paths[path]
        try:
            return list(map(attrgetter(".".join(attributes)), rows))
        except AttributeError:  # something on the way is no object
            return [_descend(row, attributes, path) for row in rows]


def _is_any(tree: Mapping[str, Any]) -> bool:
    """Whether only patterns look at the fields of this tree: they take any type."""
    return all(_is_any(node) if isinstance(node, dict) else node is Any for node in tree.values())


def _descend(value: Any, attributes: Sequence[str], path: str) -> Any:
    for depth, attribute in enumerate(attributes):
        if isinstance(value, list):
            return Elements(".".join(path.split(".")[:depth]), value)
        if not isinstance(value, Struct):
            return ABSENT
        value = getattr(value, attribute)
    return value


class Json:
    kind: ClassVar[str] = "json"

    def __init__(self, row_type: Any):
        decoder = msgspec.json.Decoder(row_type)
        self._decode = decoder.decode
        self._decode_lines = decoder.decode_lines

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        lines = _as_lines(payloads) if len(payloads) >= _LINES_MIN else None
        if lines is not None:
            try:
                rows = self._decode_lines(lines)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                rows = []  # to find out which, and why
            if len(rows) == len(payloads):
                return _judged(payloads, rows, {})
        return self._one_by_one(payloads)

    def _one_by_one(self, payloads: Sequence[bytes]) -> Decoded:
        rows: list[Any] = []
        faults: dict[int, Fault] = {}
        rest = iter(payloads)
        while len(rows) < len(payloads):
            try:
                # Runs at C speed up to the first bad payload; what came before it stays in rows.
                rows.extend(map(self._decode, rest))
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                faults[len(rows)] = _fault(payloads[len(rows)], error)
                rows.append(None)
        return _judged(payloads, rows, faults)


def _as_lines(payloads: Sequence[bytes]) -> bytes | None:
    """The payloads as lines, if each begins with `{` and ends with `}` (or `}` and a line's end).

    Then none reaches into the next: where one ends, a parser that stands in a text refuses the end
    of the line, as JSON has no bare control characters in texts; one that stands inside an object
    or an array expects a comma or a bracket after that `}`, and finds `{`. So each payload holds
    whole values, and it is one value each if there are as many as payloads.
    """
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    if int(lengths.min()) < 2 or int(lengths.sum()) > _LINES_BYTES_MAX:
        return None
    lines = b"\n".join(payloads)
    each = np.frombuffer(lines, np.uint8)
    stops = np.cumsum(lengths + 1) - 1
    lasts = each[stops - 1]
    is_line = lasts == _LINE
    if is_line.any():
        lasts = np.where(is_line, each[stops - 2], lasts)
    are_whole = (each[stops - lengths] == _OPEN) & (lasts == _SHUT)
    return lines if are_whole.all() else None


def _judged(payloads: Sequence[bytes], rows: list[Any], faults: dict[int, Fault]) -> Decoded:
    if max(map(len, payloads), default=0) > 2 * DEPTH_MAX:
        _refuse_deep(payloads, rows, faults)
    return Decoded(rows, faults)


def _fault(payload: bytes, error: Exception) -> Fault:
    """Names what is wrong with a payload that the parser refused."""
    match error:
        case _ if not payload:
            return Fault("empty", "the record has no bytes, expected a JSON object")
        case RecursionError():
            return _too_deep()
        case UnicodeError():
            return Fault("not_utf8", str(error)[:_EXCERPT_MAX])
        case msgspec.ValidationError():
            reason = "out_of_range" if "out of range" in str(error) else "wrong_type"
            return Fault(reason, str(error)[:_EXCERPT_MAX])
    try:
        payload.decode()
    except UnicodeDecodeError as not_text:
        return Fault("not_utf8", f"{not_text.reason} at byte {not_text.start}")
    return Fault("malformed", str(error)[:_EXCERPT_MAX])


def _too_deep() -> Fault:
    return Fault("too_deep", f"nested deeper than {DEPTH_MAX} levels")


def _refuse_deep(payloads: Sequence[bytes], rows: list[Any], faults: dict[int, Fault]) -> None:
    """Refuse what is nested so deeply that the parser's own limit could come into play."""
    for i, payload in enumerate(payloads):
        if len(payload) <= 2 * DEPTH_MAX or i in faults:
            continue  # too short to be that deep, or refused already
        brackets = payload.count(b"[") + payload.count(b"{")
        if brackets > DEPTH_MAX and _depth(payload) > DEPTH_MAX:
            rows[i], faults[i] = None, _too_deep()


def _depth(payload: bytes) -> int:
    """How deeply well-formed JSON is nested; for 10 MB it takes 0.1 s and 80 MB."""
    plain = payload.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes left are all real
    quotes = np.cumsum(np.frombuffer(plain, dtype=np.uint8) == _QUOTE, dtype=np.uint8)
    is_outside = 1 - (quotes & 1).view(np.int8)  # the count may wrap: odd stays odd
    steps = np.frombuffer(plain.translate(_STEPS), dtype=np.int8)
    return int(np.max(np.cumsum(steps * is_outside, dtype=np.int32)))
