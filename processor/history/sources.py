"""Where recordings lie: files, globs and folders of this machine, and objects in S3.

Each is read from its beginning to its end, a megabyte at a time; what is compressed by gzip or
Zstandard is told by its first bytes, whatever its name.
"""

from __future__ import annotations

import glob
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import Struct

from processor.errors import UsageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BUFFER_BYTES = 2**20
# A record of the service's largest size, 10 MiB, is 13.3 in base64; its envelope is small.
LINE_BYTES_MAX = 16 * 2**20
# What a damaged file raises as it is read.
DAMAGED = (OSError, EOFError, zlib.error, zstd.ZstdError)

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GLOB = frozenset("*?[")


class Piece(Struct, frozen=True):
    """A file or an object; `size` in bytes as it is stored.

    `open` may leave on the stack what the pieces after it use, too.
    """

    name: str
    size: int
    open: Callable[[ExitStack], BinaryIO]


def local(path: str) -> list[Piece]:
    """A file; a folder's files, in order of their paths; or what a glob finds, likewise.

    Raises UsageError where there is none.
    """
    place = Path(path)
    if place.is_dir():
        found = [each for each in sorted(place.rglob("*")) if _is_meant(each, place)]
    elif place.exists():
        found = [place]
    else:
        found = [Path(name) for name in sorted(glob.glob(path, recursive=True)) if _is_file(name)]
    if not found:
        what = "no file matches" if _GLOB & set(path) else "no such file, and no files below it"
        raise UsageError(f"--from {path}: {what}; expected recordings, one JSON event a line")
    return [Piece(str(each), each.stat().st_size, _opener(each)) for each in found]


def _is_meant(path: Path, folder: Path) -> bool:
    """Not what tools leave beside: `.crc` and `.part` files of dot names, `_SUCCESS`."""
    hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden


def _is_file(name: str) -> bool:
    return Path(name).is_file()


def _opener(path: Path) -> Callable[[ExitStack], BinaryIO]:
    return lambda _: path.open("rb", buffering=BUFFER_BYTES)


def lines(piece: Piece, stack: ExitStack) -> Iterator[bytes | None]:
    """Its lines without their ends; None for one that is too long. Raises `DAMAGED`."""
    with piece.open(stack) as raw, decompressed(raw) as file:
        while line := file.readline(LINE_BYTES_MAX):
            if len(line) < LINE_BYTES_MAX or line.endswith(b"\n"):
                yield line.rstrip(b"\r\n")
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_BYTES_MAX)
            yield None


def decompressed(raw: BinaryIO) -> BinaryIO:
    file = raw if isinstance(raw, io.BufferedReader) else _buffered(raw)
    start = file.peek(4)[:4]
    if start.startswith(_GZIP):
        return _buffered(gzip.GzipFile(fileobj=file, mode="rb"))
    if start == _ZSTD:
        return _buffered(zstd.ZstdFile(file, "rb"))
    return file


def _buffered(file: object) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, file), BUFFER_BYTES)


def total_bytes(pieces: Sequence[Piece]) -> int:
    return sum(piece.size for piece in pieces)
