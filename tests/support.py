"""What tests of adapters need: an observer that remembers, and clients of stand-ins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session


class Recorder:
    """A `SinkObserver` that counts; `when_retried(n, do)` acts after so many retried requests."""

    def __init__(self) -> None:
        self.requests = 0
        self.published: Counter[tuple[str, str]] = Counter()
        self.retried: list[tuple[str, str, int]] = []
        self.failed: Counter[tuple[str, str]] = Counter()
        self._acts: dict[int, Callable[[], Awaitable[None]]] = {}
        self._acting: set[asyncio.Future[None]] = set()

    def when_retried(self, n: int, do: Callable[[], Awaitable[None]]) -> None:
        self._acts[n] = do

    def on_request(self, sink: str, seconds: float) -> None:
        self.requests += 1

    def on_published(self, sink: str, kind: str, n: int) -> None:
        self.published[sink, kind] += n

    def on_retry(self, sink: str, reason: str, n: int) -> None:
        self.retried.append((sink, reason, n))
        if do := self._acts.pop(len(self.retried), None):
            self._acting.add(asyncio.ensure_future(do()))

    def on_failed(self, sink: str, code: str) -> None:
        self.failed[sink, code] += 1

    @property
    def reasons(self) -> set[str]:
        return {reason for _, reason, _ in self.retried}


def aws_client(service: str, url: str, *, read_timeout_s: float = 10) -> Any:
    """An aiobotocore client of a stand-in, as `async with`; it retries nothing by itself."""
    return get_session().create_client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=AioConfig(
            connect_timeout=5, read_timeout=read_timeout_s, retries={"total_max_attempts": 1}
        ),
    )
