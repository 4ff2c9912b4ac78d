"""One attempt at one request to Kinesis over aiohttp, its failures translated into ours.

Nothing here retries. What an answer means is `kinesis_api`'s matter; that one came, when the
service says it came, and what kind of failure it was, is this module's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import lru_cache
from io import BytesIO
from typing import Literal, NamedTuple

import aiohttp
import msgspec
from yarl import URL

from processor.errors import (
    IteratorExpired,
    Missing,
    Outage,
    ProcessorError,
    Throttled,
    Unavailable,
)
from processor.ports import Clock
from processor.sources.sigv4 import Credentials, Signer

FailureKind = Literal["timeout", "connection", "server", "garbled", "credentials"]

# 2 s are four SYN attempts within a region's few ms. A good answer starts within 1 s; 10 s without
# a byte is a hung connection. 30 s in all lets a page of 16 MB through at half a MB/s.
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=2, sock_read=10)
# 10 MiB of records are 13.4 MB of base64, and 10,000 records have 2 MB of JSON around them.
BODY_BYTES_MAX = 32 * 1024 * 1024
# Up to here aiohttp sends a body whole; more would hold up the loop, so it goes in pieces.
WHOLE_BYTES_MAX = 1024 * 1024

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
    }
)
# Temporary credentials that ran out: the SDK's chain brings new ones.
_STALE_CREDENTIALS = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired"})
_KEY_POLICY = "allow kms:Decrypt on the stream's key to this role"
_KEY_STATE = "enable the stream's KMS key"
_CREDENTIALS = "check the credentials, and this machine's clock"
_REMEDIES = {
    "ResourceNotFoundException": "make it (aws kinesis create-stream --stream-name {name}), or"
    " correct its name, region or account",
    "AccessDeniedException": "allow kinesis:{operation} on it to this role",
    "KMSAccessDeniedException": _KEY_POLICY,
    "KMSDisabledException": _KEY_STATE,
    "KMSInvalidStateException": _KEY_STATE,
    "KMSNotFoundException": "give the stream a KMS key that exists",
    "KMSOptInRequired": "sign this account up for KMS",
    "UnrecognizedClientException": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "MissingAuthenticationTokenException": _CREDENTIALS,
    "IncompleteSignatureException": _CREDENTIALS,
}
_OTHER_REMEDY = "see what the service says"


class RequestFailed(Outage):
    """A request that may be repeated; `kind` is fit for a metric's label."""

    def __init__(self, operation: str, kind: FailureKind, detail: str):
        super().__init__("Kinesis", operation, f"{kind}: {detail}")
        self.kind = kind


class Answer(NamedTuple):
    """A good answer, whatever its body holds."""

    body: bytes
    date_ms: int


class Wire:
    """One endpoint. `subject` is what its requests are about, for messages ("stream orders")."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        signer: Signer,
        credentials: Callable[[], Awaitable[Credentials]],
        clock: Clock,
        subject: str,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        self.subject = subject
        self._http = http
        self._signer = signer
        self._url = URL(signer.url, encoded=True)
        self._credentials = credentials
        self._clock = clock
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Wire {self.subject} at {self._url}>"

    async def call(self, operation: str, body: bytes) -> Answer:
        """Send one request. Cancelling is safe: what the request did is not undone.

        Raises RequestFailed, Throttled or IteratorExpired, which waiting or asking anew cures, and
        Unavailable (Missing where it is not found), which it doesn't.
        """
        credentials = await self._credentials()
        target = f"Kinesis_20131202.{operation}"
        headers = self._signer.headers(target, body, credentials, self._clock.wall_ms())
        headers["Accept-Encoding"] = "identity"  # inflating would cost more than it saves
        try:
            return await self._exchange(operation, body, headers)
        except TimeoutError as error:
            detail = str(error) or f"no whole answer within {self._timeout.total:g} s"
            raise RequestFailed(operation, "timeout", detail) from error
        except (aiohttp.ClientError, OSError) as error:
            detail = f"{type(error).__name__} {error}"
            raise RequestFailed(operation, "connection", detail) from error

    async def _exchange(self, operation: str, body: bytes, headers: dict[str, str]) -> Answer:
        data = body if len(body) <= WHOLE_BYTES_MAX else BytesIO(body)
        async with self._http.post(
            self._url, data=data, headers=headers, timeout=self._timeout, allow_redirects=False
        ) as response:
            if (response.content_length or 0) > BODY_BYTES_MAX:
                detail = f"an answer of {response.content_length} bytes"
                raise RequestFailed(operation, "garbled", detail)
            content = await response.read()
            if response.status != 200:
                raise failure_of(self.subject, operation, response.status, content)
            date = response.headers.get("Date", "")
            return Answer(content, _date_ms(date) or self._clock.wall_ms())


class _Refusal(msgspec.Struct):
    kind: str = msgspec.field(default="", name="__type")
    message: str = ""
    other_message: str = msgspec.field(default="", name="Message")


_refusals = msgspec.json.Decoder(_Refusal)


def failure_of(subject: str, operation: str, status: int, body: bytes) -> ProcessorError:
    """The error that an answer with another status than 200 stands for."""
    kind, said = _refusal(status, body)
    if kind in _THROTTLES:
        return Throttled("Kinesis", operation, said)
    if kind == "ExpiredIteratorException":
        return IteratorExpired(said)
    if kind in _STALE_CREDENTIALS:
        return RequestFailed(operation, "credentials", said)
    if status >= 500 or status in (408, 429) or kind in ("", "ResourceInUseException"):
        return RequestFailed(operation, "server", said)
    name = subject.replace("/", " ").rpartition(" ")[2]  # an ARN ends with it, too
    remedy = _REMEDIES.get(kind, _OTHER_REMEDY).format(operation=operation, name=name)
    raised = Missing if kind == "ResourceNotFoundException" else Unavailable
    return raised(subject, f"kinesis:{operation}", f"{remedy} ({said})")


def _refusal(status: int, body: bytes) -> tuple[str, str]:
    """The refusal's name and all it says; no name if the body is not the service's (a proxy's)."""
    try:
        refusal = _refusals.decode(body)
    except msgspec.MsgspecError:
        return "", f"HTTP {status} {body[:200]!r}"
    kind = refusal.kind.rpartition("#")[2]
    return kind, f"HTTP {status} {kind}: {refusal.message or refusal.other_message}"


@lru_cache(maxsize=64)  # answers of one second share a header
def _date_ms(header: str) -> int | None:
    try:
        return round(parsedate_to_datetime(header).timestamp() * 1000)
    except ValueError:
        return None
