"""Empties a queue into a list, while the traffic still runs: the demo's receiver."""

from __future__ import annotations

import asyncio

from processor.local.calls import Calls

BATCH_MAX = 10  # ReceiveMessage's own limit
WAIT_S = 1  # long poll: an idle queue costs one call a second
VISIBILITY_S = 30  # a message whose deletion failed comes again, as SQS may


class Collector:
    """The bodies received so far, and when the last one came (the loop's seconds)."""

    def __init__(self, queue_url: str, calls: Calls) -> None:
        self.bodies: list[bytes] = []
        self.last_at = asyncio.get_running_loop().time()
        self._queue_url, self._calls = queue_url, calls

    def __repr__(self) -> str:
        return f"<Collector of {self._queue_url}: {len(self.bodies)} bodies>"

    async def run(self, receivers: int) -> None:
        """Receive for ever; cancelling may leave a batch received but not deleted."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(receivers):
                tasks.create_task(self._receive())

    def quiet_s(self) -> float:
        """Seconds since anything came."""
        return asyncio.get_running_loop().time() - self.last_at

    async def _receive(self) -> None:
        request = {
            "QueueUrl": self._queue_url,
            "MaxNumberOfMessages": BATCH_MAX,
            "WaitTimeSeconds": WAIT_S,
            "VisibilityTimeout": VISIBILITY_S,
        }
        while True:
            answer = await self._calls("sqs", "ReceiveMessage", request)
            messages = answer.get("Messages", [])
            if not messages:
                continue
            entries = [
                {"Id": str(i), "ReceiptHandle": one["ReceiptHandle"]}
                for i, one in enumerate(messages)
            ]
            self.bodies.extend(one["Body"].encode() for one in messages)
            self.last_at = asyncio.get_running_loop().time()
            await self._calls(
                "sqs", "DeleteMessageBatch", {"QueueUrl": self._queue_url, "Entries": entries}
            )
