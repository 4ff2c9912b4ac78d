"""Plain JSON calls to the local stand-ins: unsigned, since none of them verifies a signature.

The demo's own traffic goes through here rather than through an SDK: a call costs a tenth, and
what feeds and judges the service shares no code with it.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from processor.errors import Outage

# Per service: the prefix of X-Amz-Target, and the version of the JSON protocol.
_PROTOCOLS = {
    "kinesis": ("Kinesis_20131202", "1.1"),
    "dynamodb": ("DynamoDB_20120810", "1.0"),
    "events": ("AWSEvents", "1.1"),
    "sqs": ("AmazonSQS", "1.0"),
}
CALL_S = 30.0  # far above any answer on loopback: something hangs


class Calls:
    """One endpoint's operations; raises Outage with the service's own words."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def __call__(self, service: str, operation: str, request: dict[str, Any]) -> Any:
        """The answer's JSON. Cancelling is safe, but the call may have taken effect."""
        prefix, version = _PROTOCOLS[service]
        headers = {
            "X-Amz-Target": f"{prefix}.{operation}",
            "Content-Type": f"application/x-amz-json-{version}",
        }
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(request),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=CALL_S),
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Outage(service, operation, f"{self._url}: {error!r}") from error
        if answer.status != 200:
            raise Outage(service, operation, f"{answer.status} {body[:500].decode()}")
        return orjson.loads(body) if body else {}
