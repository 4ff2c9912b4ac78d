"""Our signatures against botocore's own code, byte for byte."""

import time
from typing import NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from processor.sources.sigv4 import CONTENT_TYPE, Signer

DAY_MS = 86_400_000


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None = None


def botocore_headers(
    url: str, region: str, target: str, body: bytes, keys: Keys, wall_ms: int
) -> dict[str, str]:
    """The steps of `SigV4Auth.add_auth`, with the time given instead of taken from the clock."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ms // 1000))
    request = AWSRequest("POST", url, data=body)
    request.headers["Content-Type"] = CONTENT_TYPE
    request.headers["X-Amz-Target"] = target
    request.context["timestamp"] = stamp
    auth = SigV4Auth(keys, "kinesis", region)
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    auth._inject_signature_to_request(request, signature)
    return {name: value for name, value in request.headers.items() if name != "Host"}


words = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789+/=", min_size=1, max_size=40)
hosts = st.sampled_from(
    ["localhost", "127.0.0.1", "[::1]", "Kinesis.eu-west-1.amazonaws.com", "vpce-0a.example"]
)
ports = st.sampled_from(["", ":80", ":443", ":4566", ":65535"])
paths = st.sampled_from(["", "/", "/kinesis/", "/a b~c/d%20e"])
urls = st.builds("{}://{}{}{}".format, st.sampled_from(["http", "https"]), hosts, ports, paths)
keys = st.builds(Keys, words, words, st.none() | words)
midnights = st.builds(
    lambda day, around_ms: day * DAY_MS + around_ms,
    st.integers(1, 40_000),
    st.integers(-2_500, 2_500),
)


@given(
    url=urls,
    region=st.sampled_from(["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"]),
    target=st.sampled_from(["Kinesis_20131202.GetRecords", "Kinesis_20131202.ListShards"]),
    requests=st.lists(
        st.tuples(st.binary(max_size=2_000), keys, midnights), min_size=1, max_size=4
    ),
)
def test_one_signer_signs_every_request_as_botocore_does(url, region, target, requests):
    signer = Signer(url, region, "kinesis")
    for body, credentials, wall_ms in requests:
        ours = signer.headers(target, body, credentials, wall_ms)
        theirs = botocore_headers(url, region, target, body, credentials, wall_ms)
        assert {name: value for name, value in ours.items() if name != "Host"} == theirs


def test_the_host_is_sent_as_it_was_signed():
    signer = Signer("https://Kinesis.example:443", "us-east-1", "kinesis")
    assert signer.headers("t", b"", Keys("a", "s"), 0)["Host"] == "kinesis.example"


def test_a_new_day_and_new_credentials_take_a_new_key():
    signer = Signer("http://localhost:4566", "us-east-1", "kinesis")
    signatures = [
        signer.headers("t", b"{}", credentials, wall_ms)["Authorization"]
        for credentials in (Keys("a", "one"), Keys("a", "two"))
        for wall_ms in (DAY_MS - 1, DAY_MS)
    ]
    assert len(set(signatures)) == 4


def test_each_second_has_its_own_stamp():
    signer = Signer("http://localhost:4566", "us-east-1", "kinesis")
    stamps = [
        signer.headers("t", b"", Keys("a", "s"), ms)["X-Amz-Date"] for ms in (0, 999, 1_000, 59_000)
    ]
    assert [stamp[-3:-1] for stamp in stamps] == ["00", "00", "01", "59"]
