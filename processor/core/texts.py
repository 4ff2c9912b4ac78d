"""What an event pattern asks of a text beyond equality, prefix and suffix: wildcard, case, address.

Payloads are untrusted, so each question takes time linear in the text. A wildcard looks for its
parts from left to right. A pattern that ignores case accepts each of its own letters in lower and
in upper case (as Event Ruler does: `ß` accepts `SS`, but `ss` not `ß`); the two forms of a letter
never begin alike, so its regular expression never has to try again.
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum

from msgspec import Struct

ESCAPE, ANY = "\\", "*"
ADDRESS_CHARACTERS_MAX = 64  # the longest in use has 39; some write leading zeros
V4_BITS, V6_BITS = 32, 128


class Wildcard(Struct, frozen=True):
    """`a*b*c`: texts that begin with a, end with c, and have b between."""

    parts: tuple[str, ...]

    def has(self, text: str) -> bool:
        first, *between, last = self.parts if len(self.parts) > 1 else (*self.parts, "")
        if len(self.parts) == 1:
            return text == first
        if not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in between:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return at <= end


def wildcard(operand: str) -> Wildcard:
    r"""Of `\*` and `\\` the second character counts; raises ValueError, saying what is expected."""
    parts, i, was_any = [""], 0, False
    while i < len(operand):
        is_any = operand[i] == ANY
        if is_any and was_any:
            raise ValueError("no two * side by side: one takes any text")
        if operand[i] == ESCAPE:
            i += 1
            if operand[i : i + 1] not in (ESCAPE, ANY):
                raise ValueError(r"after \ a * or another \, for which it then stands")
        if is_any:
            parts.append("")
        else:
            parts[-1] += operand[i]
        i, was_any = i + 1, is_any
    return Wildcard(tuple(parts))


class Place(Enum):
    """Which part of a text is compared."""

    WHOLE = "whole"
    START = "start"
    END = "end"


class IgnoreCase(Struct, frozen=True):
    """Texts that are, begin or end as the operand does, whatever the case of its letters."""

    regex: re.Pattern[str]
    place: Place
    length_max: int  # of what the operand accepts: `ß` may be `SS`

    def has(self, text: str) -> bool:
        if self.place is Place.WHOLE:
            return self.regex.fullmatch(text) is not None
        if self.place is Place.START:
            return self.regex.match(text) is not None
        return self.regex.search(text[-self.length_max :] if self.length_max else "") is not None


def ignore_case(operand: str, place: Place) -> IgnoreCase:
    forms = [tuple(dict.fromkeys((char.lower(), char.upper()))) for char in operand]
    body = "".join(f"(?:{'|'.join(map(re.escape, each))})" for each in forms)
    end = r"\Z" if place is Place.END else ""
    return IgnoreCase(re.compile(body + end), place, sum(max(map(len, each)) for each in forms))


class Cidr(Struct, frozen=True):
    """Addresses of `bits` bits whose number, without its last `rest` bits, is `block`."""

    bits: int
    rest: int
    block: int

    def has(self, text: str) -> bool:
        parsed = _address(text)
        return (
            parsed is not None and parsed[0] == self.bits and parsed[1] >> self.rest == self.block
        )


def cidr(operand: str) -> Cidr:
    """Bits past the mask don't count; raises ValueError, saying what is expected."""
    address, slash, mask = operand.partition("/")
    parsed = _address(address)
    if parsed is None or not slash or not (mask.isascii() and mask.isdigit()):
        raise ValueError("an address, a slash and the bits of the block, such as 10.0.0.0/24")
    bits, number = parsed
    if len(mask) > ADDRESS_CHARACTERS_MAX or int(mask) >= bits:
        raise ValueError(f"less than {bits} bits for the block, as EventBridge asks")
    rest = bits - int(mask)
    return Cidr(bits, rest, number >> rest)


def _address(text: str) -> tuple[int, int] | None:
    """How many bits it has, and which number it is; None for what is no address.

    Octets are decimal with leading zeros, as EventBridge reads them; no zones, no IPv6 with dots.
    """
    if len(text) > ADDRESS_CHARACTERS_MAX or not text.isascii():
        return None
    octets = text.split(".")
    if len(octets) == 4 and all(map(str.isdigit, octets)):
        numbers = list(map(int, octets))
        return (V4_BITS, int.from_bytes(numbers)) if max(numbers) <= 255 else None
    if ":" not in text or "." in text or "%" in text:
        return None
    try:
        return V6_BITS, int(ipaddress.IPv6Address(text))
    except ValueError:
        return None
