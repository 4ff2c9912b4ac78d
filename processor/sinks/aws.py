"""What an error of the SDK means to a sink that is running, and to one that starts.

While running, only an error that blames the request itself is held against its entries. All else,
a lost permission or a deleted bus included, is an outage: somebody can mend it, so we wait, and
the retry's reason says which it is. An unknown code is taken for an outage too: waiting can be
seen and mended, a wrong refusal moves good events to the dead letters.
"""

from __future__ import annotations

from processor.aws_errors import Subject, code_of, is_malformed, translated
from processor.errors import ProcessorError
from processor.sinks.delivery import Failed, Rejected


def outcome(error: Exception) -> Failed | Rejected:
    """What the error of a request says while the service runs."""
    return Rejected(code_of(error), str(error)) if is_malformed(error) else Failed(code_of(error))


def at_start(error: Exception, what: str, action: str, create: str) -> ProcessorError:
    """The same error before anything started, as one of ours, with what to do.

    `action` is the IAM action (`events:DescribeEventBus`), `create` how to make what is missing.
    """
    service, _, operation = action.partition(":")
    subject = Subject(service, what, create, "correct the name in the pipeline file")
    return translated(error, subject, operation)
