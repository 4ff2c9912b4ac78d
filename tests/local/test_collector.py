"""The receiver empties a real queue, and deletes what it has received."""

import asyncio

import aiohttp

from processor.local.calls import Calls
from processor.local.collector import Collector


async def test_everything_in_the_queue_is_received_once_and_deleted(ministack: str) -> None:
    async with aiohttp.ClientSession() as session:
        calls = Calls(session, ministack)
        url = (await calls("sqs", "CreateQueue", {"QueueName": "derived"}))["QueueUrl"]
        sent = {f"body {i}" for i in range(25)}
        for body in sent:
            await calls("sqs", "SendMessage", {"QueueUrl": url, "MessageBody": body})
        collector = Collector(url, calls)
        task = asyncio.create_task(collector.run(receivers=2))
        while await waiting(calls, url):
            pass
        task.cancel()
        await asyncio.wait([task])
    assert sorted(collector.bodies) == sorted(body.encode() for body in sent)
    assert collector.quiet_s() >= 0


async def waiting(calls: Calls, url: str) -> int:
    """Messages that are in the queue or received but not yet deleted."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    request = {"QueueUrl": url, "AttributeNames": names}
    answer = await calls("sqs", "GetQueueAttributes", request)
    return sum(int(answer["Attributes"][name]) for name in names)
