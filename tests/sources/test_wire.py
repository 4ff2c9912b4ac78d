"""One request at a time, and what becomes of each way in which it fails."""

import pytest

from processor.errors import IteratorExpired, Missing, Throttled, Unavailable
from processor.sources.wire import RequestFailed, failure_of

GOOD = b"{}"


def refusal(kind: str) -> bytes:
    return b'{"__type":"%b","message":"as it is"}' % kind.encode()


@pytest.mark.parametrize(
    ("kind", "status", "error", "text"),
    [
        ("ProvisionedThroughputExceededException", 400, Throttled, "as it is"),
        ("LimitExceededException", 400, Throttled, "as it is"),
        ("KMSThrottlingException", 400, Throttled, "as it is"),
        ("ExpiredIteratorException", 400, IteratorExpired, "as it is"),
        ("ExpiredTokenException", 400, RequestFailed, "credentials: HTTP 400"),
        ("InternalFailure", 500, RequestFailed, "server: HTTP 500 InternalFailure: as it is"),
        ("ServiceUnavailable", 503, RequestFailed, "server"),
        ("ResourceInUseException", 400, RequestFailed, "server"),
        ("ResourceNotFoundException", 400, Missing, "make it"),
        (
            "com.amazonaws.kinesis#AccessDeniedException",
            400,
            Unavailable,
            "allow kinesis:GetRecords",
        ),
        ("KMSAccessDeniedException", 400, Unavailable, "allow kms:Decrypt"),
        ("KMSDisabledException", 400, Unavailable, "enable the stream's KMS key"),
        ("UnrecognizedClientException", 400, Unavailable, "check the credentials"),
        ("InvalidSignatureException", 403, Unavailable, "this machine's clock"),
        ("SomethingNew", 400, Unavailable, "see what the service says .*SomethingNew"),
    ],
)
def test_each_refusal_becomes_the_error_that_says_what_to_do(kind, status, error, text):
    found = failure_of("stream orders", "GetRecords", status, refusal(kind))
    assert type(found) is error
    with pytest.raises(error, match=text):
        raise found


@pytest.mark.parametrize("status", [302, 403, 407, 413, 502])
def test_what_a_proxy_says_may_be_tried_again(status):
    found = failure_of("stream orders", "GetRecords", status, b"<html>no</html>")
    assert isinstance(found, RequestFailed)
    assert f"HTTP {status} b'<html>no</html>'" in str(found)


async def test_an_answer_carries_the_services_date(scripted):
    scripted.script.add(GOOD, Date="Tue, 14 Nov 2023 22:13:20 GMT")
    answer = await scripted.wire().call("GetRecords", b"{}")
    assert answer == (GOOD, 1_700_000_000_000)


async def test_a_date_that_can_not_be_read_is_replaced_by_our_own(scripted):
    scripted.clock.now = 7.0
    scripted.script.add(GOOD, Date="yesterday")
    assert (await scripted.wire().call("GetRecords", b"{}")).date_ms == 1_700_000_007_000


async def test_each_request_is_signed_with_the_credentials_of_its_moment(scripted):
    class Keys:
        secret_key, token = "secret", "session"

        def __init__(self, name: str) -> None:
            self.access_key = name

    async def rotating() -> Keys:
        return Keys(f"key-{len(scripted.script.requests)}")

    wire = scripted.wire(credentials=rotating)
    for _ in range(2):
        scripted.script.add(GOOD)
        await wire.call("ListShards", b"{}")
    signed = [headers["Authorization"] for _, _, headers in scripted.script.requests]
    assert "Credential=key-0/20231114/us-east-1/kinesis/aws4_request" in signed[0]
    assert "Credential=key-1/20231114/us-east-1/kinesis/aws4_request" in signed[1]


async def test_nothing_is_sent_that_is_not_expected(scripted):
    scripted.script.add(GOOD)
    await scripted.wire().call("ListShards", b'{"a":1}')
    operation, body, headers = scripted.script.requests[0]
    assert (operation, body) == ("ListShards", b'{"a":1}')
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert headers["Accept-Encoding"] == "identity"


async def test_a_redirect_is_not_followed(scripted):
    scripted.script.add(b"", 307, Location="http://127.0.0.1:1/")
    with pytest.raises(RequestFailed, match="HTTP 307"):
        await scripted.wire().call("GetRecords", b"{}")


async def test_an_answer_that_no_memory_was_planned_for_is_not_read(scripted):
    scripted.script.add(b"x" * (32 * 1024 * 1024 + 1))
    with pytest.raises(RequestFailed, match="garbled: an answer of 33554433 bytes"):
        await scripted.wire().call("GetRecords", b"{}")


async def test_a_refused_connection_is_an_outage(unreachable):
    with pytest.raises(RequestFailed, match="Kinesis GetRecords: connection: ") as caught:
        await unreachable.wire().call("GetRecords", b"{}")
    assert caught.value.kind == "connection"
