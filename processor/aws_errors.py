"""What the SDK's errors mean: translated here, for all adapters that call AWS through it.

Something missing, or a lost permission, is Unavailable and says what to do; throttling is
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
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from processor.errors import Outage, ProcessorError, Throttled, Unavailable

# A TimeoutError is an OSError.
FOREIGN = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError)

_THROTTLED = (
    "Throttl",
    "ThroughputExceeded",
    "RequestLimitExceeded",
    "SlowDown",
    "TooManyReq",
    "429",
)
_MISSING = ("NotFound", "NonExistent", "DoesNotExist", "NoSuchBucket")
_DENIED = (
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignature",
    "KMS",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)
# Errors that name the request's own content.
MALFORMED = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "RequestEntityTooLarge",
        "RequestEntityTooLargeException",
        "SerializationException",
        "ValidationError",
        "ValidationException",
        "413",
    }
)


class Subject(NamedTuple):
    """What an adapter talks to: for sentences, and for the command that makes what is missing."""

    service: str  # as in an IAM action: dynamodb, s3, events, sqs
    name: str  # "table orders"
    create: str  # the command that makes it
    shape: str  # what to do about a request that it calls malformed


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
        remedy = (
            "set AWS_DEFAULT_REGION or AWS_REGION, and give credentials"
            " (a role, a profile, AWS_ACCESS_KEY_ID)"
        )
        return Unavailable(subject.name, action, f"{error}: {remedy}")
    if is_throttling(code):
        return Throttled(subject.service, operation, f"{subject.name}: {code}: {error}")
    if any(word in code for word in _MISSING):
        return Unavailable(subject.name, action, f"it does not exist: {subject.create}")
    if any(word in code for word in _DENIED):
        return Unavailable(subject.name, action, f"{code}: allow {action} on it for this role")
    if is_malformed(error):
        return Unavailable(subject.name, action, f"{error}: {subject.shape}")
    return Outage(subject.service, operation, f"{subject.name}: {code}: {error}")


def is_throttling(code: str) -> bool:
    """Whether the service's code says that we ask too often."""
    return any(word in code for word in _THROTTLED)


def is_malformed(error: Exception) -> bool:
    """Whether the error is held against the request itself."""
    return code_of(error) in MALFORMED or isinstance(error, ParamValidationError)


@contextmanager
def translation(subject: Subject, operation: str) -> Iterator[None]:
    """Around one call."""
    try:
        yield
    except FOREIGN as error:
        raise translated(error, subject, operation) from error
