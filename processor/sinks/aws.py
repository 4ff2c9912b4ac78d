"""What AWS errors mean to a sink: translated here and nowhere else.

While running, only an error that blames the request itself is held against its entries. All else,
a lost permission or a deleted bus included, is an outage: somebody can mend it, so we wait, and
the retry's reason says which it is.
"""

from __future__ import annotations

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
from processor.sinks.delivery import Failed, Rejected

FOREIGN = (BotoCoreError, ClientError, ResponseParserError, OSError, TimeoutError)

# Errors that name the request's own content. An unknown code is taken for an outage: waiting can
# be seen and mended, a wrong refusal moves good events to the dead letters.
_MALFORMED = frozenset(
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
_THROTTLED = ("Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "429")
_DENIED = (
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
)
_MISSING = ("NotFound", "NonExistent", "DoesNotExist")


def code_of(error: Exception) -> str:
    """A short name: the service's code without its name space, or the transport error's class."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code") or "Unknown")
        return code.replace("#", ".").rpartition(".")[2]
    return type(error).__name__


def outcome(error: Exception) -> Failed | Rejected:
    """What the error of a request says while the service runs."""
    code = code_of(error)
    if code in _MALFORMED or isinstance(error, ParamValidationError):
        return Rejected(code, str(error))
    return Failed(code)


def at_start(error: Exception, what: str, action: str, create: str) -> ProcessorError:
    """The same error before anything started, as one of ours, with what to do.

    `action` is the IAM action (`events:DescribeEventBus`), `create` how to make what is missing.
    """
    code = code_of(error)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, NoRegionError)):
        remedy = "set AWS_REGION and give credentials (a role, a profile, AWS_ACCESS_KEY_ID)"
        return Unavailable(what, action, f"{error}: {remedy}")
    if any(word in code for word in _MISSING):
        return Unavailable(what, action, f"it does not exist: {create}")
    if any(word in code for word in _DENIED):
        return Unavailable(what, action, f"{code}: allow {action} on it for this role")
    if code in _MALFORMED or isinstance(error, ParamValidationError):
        return Unavailable(what, action, f"{error}: correct the name in the pipeline file")
    service, _, operation = action.partition(":")
    kind = Throttled if any(word in code for word in _THROTTLED) else Outage
    return kind(service, operation, f"{what}: {error}")
