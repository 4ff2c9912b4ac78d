"""The refusals of our Kinesis: one exception, in the service's own words and status codes."""


class ServiceError(Exception):
    """A refusal as the service puts it: `kind` is the answer's `__type`, `status` that of HTTP."""

    def __init__(self, kind: str, message: str, status: int = 400) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.status = status


def not_found(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message)


def in_use(message: str) -> ServiceError:
    return ServiceError("ResourceInUseException", message)


def invalid_argument(message: str) -> ServiceError:
    return ServiceError("InvalidArgumentException", message)


def invalid_value(message: str) -> ServiceError:
    return ServiceError("ValidationException", f"1 validation error detected: {message}")


def limit_exceeded(message: str) -> ServiceError:
    return ServiceError("LimitExceededException", message)


def throttled(shard_id: str, stream: str, account: str) -> ServiceError:
    return ServiceError(
        "ProvisionedThroughputExceededException", throttle_text(shard_id, stream, account)
    )


def throttle_text(shard_id: str, stream: str, account: str) -> str:
    return f"Rate exceeded for shard {shard_id} in stream {stream} under account {account}."
