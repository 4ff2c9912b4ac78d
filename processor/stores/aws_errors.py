"""What AWS errors mean to a store: translated here and nowhere else.

A missing table or bucket, or a lost permission, is Unavailable and says what to do; throttling is
Throttled; all else (the service's own failures, transport, hangs, garbled answers) is an Outage,
which leaves open whether a write was applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from processor.errors import Outage, ProcessorError, Throttled, Unavailable

FOREIGN = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError)

_THROTTLED = ("Throttl", "ThroughputExceeded", "RequestLimitExceeded", "SlowDown", "TooManyReq")
_MISSING = ("ResourceNotFound", "NoSuchBucket", "TableNotFound")
_DENIED = (
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignature",
    "KMS",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)


class Subject(NamedTuple):
    """What a store talks to: for sentences, and for the command that makes what is missing."""

    service: str  # as in an IAM action: dynamodb, s3
    name: str  # "table orders"
    create: str  # the command that makes it
    shape: str  # what it must look like, for a request that it can't be served with


def code_of(error: Exception) -> str:
    """The service's code without its name space, or the transport error's class."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code") or "Unknown")
        return code.replace("#", ".").rpartition(".")[2]
    return type(error).__name__


def translated(error: Exception, subject: Subject, operation: str) -> ProcessorError:
    """One of ours for one of theirs."""
    code = code_of(error)
    action = f"{subject.service}:{operation}"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, NoRegionError)):
        remedy = "set AWS_REGION and give credentials (a role, a profile, AWS_ACCESS_KEY_ID)"
        return Unavailable(subject.name, action, f"{error}: {remedy}")
    if any(word in code for word in _MISSING):
        return Unavailable(subject.name, action, f"it does not exist: {subject.create}")
    if any(word in code for word in _DENIED):
        return Unavailable(subject.name, action, f"{code}: allow {action} on it for this role")
    if code in ("ValidationException", "ValidationError"):
        return Unavailable(subject.name, action, f"{error}: {subject.shape}")
    kind = Throttled if any(word in code for word in _THROTTLED) else Outage
    return kind(subject.service, operation, f"{subject.name}: {code}: {error}")


@contextmanager
def translation(subject: Subject, operation: str) -> Iterator[None]:
    """Around one call."""
    try:
        yield
    except FOREIGN as error:
        raise translated(error, subject, operation) from error
