"""Large states in a folder, for the demo and single machines: whole files or none."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from processor.errors import Outage, Unavailable

T = TypeVar("T")


class FolderObjects:
    """An `ObjectStore`; keys are paths below `root`, which is made when it is first needed.

    Cancelling a call does not stop the thread that carries it out; it may still take effect.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()

    def __repr__(self) -> str:
        return f"<FolderObjects {self._root}>"

    async def put(self, key: str, body: bytes) -> None:
        await self._in_thread("write", lambda: self._write(self._path(key), body))

    async def get(self, key: str) -> bytes | None:
        return await self._in_thread("read", lambda: _content(self._path(key)))

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        await self._in_thread("delete", lambda: _remove(paths))

    def _path(self, key: str) -> Path:
        path = self._root.joinpath(key)
        assert path.is_relative_to(self._root), f"key {key!r} leads out of {self._root}"
        assert ".." not in path.parts, f"key {key!r} leads out of {self._root}"
        return path

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _names(self, prefix: str) -> Iterator[str]:
        folder = self._path(prefix.rpartition("/")[0])
        for path in sorted(folder.rglob("*")):
            key = path.relative_to(self._root).as_posix()
            if key.startswith(prefix) and path.is_file() and not path.name.startswith("."):
                yield key

    async def _in_thread(self, action: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (PermissionError, NotADirectoryError) as error:
            remedy = f"make it a folder that this user may write to ({error})"
            raise Unavailable(f"folder {self._root}", action, remedy) from error
        except OSError as error:
            raise Outage(f"folder {self._root}", action, str(error)) from error

    async def list(self, prefix: str) -> list[str]:
        return await self._in_thread("list", lambda: list(self._names(prefix)))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
