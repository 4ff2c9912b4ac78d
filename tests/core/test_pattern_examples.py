"""Examples for each operator, after the EventBridge User Guide and Event Ruler's README."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processor.codecs.json import Fields, Json
from processor.core import patterns


def takes(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    compiled = patterns.compile(pattern, "where")
    fields = Fields(dict.fromkeys(compiled.fields, Any))
    rows, faults = Json(fields.row_type).decode([json.dumps(event).encode()])
    assert not faults
    return bool(compiled.mask({path: fields.column(rows, path) for path in compiled.fields}, 1)[0])


INSTANCE = "arn:aws:ec2:us-east-1:123456789012:instance/i-000000aaaaaa00000"
EVENT = {
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "time": "2017-10-02T16:24:49Z",
    "region": "us-east-1",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:volume/v-1", INSTANCE],
    "detail": {
        "c-count": 5,
        "d-count": 3,
        "x-limit": 301.8,
        "source-ip": "10.0.0.33",
        "source-ip6": "2001:db8::33",
        "state": "running",
        "FileName": "dir/sub/Photo.PNG",
        "eventVersion": "",
        "responseElements": None,
    },
    "employees": [
        [{"firstName": "John", "lastName": "Doe"}, {"firstName": "Anna", "lastName": "Smith"}],
        [{"firstName": "Peter", "lastName": "Jones"}],
    ],
}
EXAMPLES: list[tuple[str, dict[str, Any], bool]] = [
    ("equals", {"source": ["aws.ec2"]}, True),
    ("equals: the case counts", {"source": ["AWS.ec2"]}, False),
    ("one of several", {"detail": {"state": ["initializing", "running"]}}, True),
    ("all fields", {"source": ["aws.ec2"], "detail": {"state": ["stopped"]}}, False),
    ("an array shares an element", {"resources": ["x", INSTANCE]}, True),
    ("an array shares none", {"resources": ["x", "y"]}, False),
    ("the empty text", {"detail": {"eventVersion": [""]}}, True),
    ("null", {"detail": {"responseElements": [None]}}, True),
    ("null is not absent", {"detail": {"nonesuch": [None]}}, False),
    ("null is not empty", {"detail": {"eventVersion": [None]}}, False),
    ("prefix", {"time": [{"prefix": "2017-10-02"}]}, True),
    ("prefix of a number", {"detail": {"c-count": [{"prefix": "5"}]}}, False),
    ("prefix, any case", {"source": [{"prefix": {"equals-ignore-case": "AWS."}}]}, True),
    ("suffix", {"detail": {"FileName": [{"suffix": ".PNG"}]}}, True),
    ("suffix: the case counts", {"detail": {"FileName": [{"suffix": ".png"}]}}, False),
    (
        "suffix, any case",
        {"detail": {"FileName": [{"suffix": {"equals-ignore-case": ".png"}}]}},
        True,
    ),
    ("equals, any case", {"source": [{"equals-ignore-case": "AWS.EC2"}]}, True),
    ("anything-but a text", {"detail": {"state": [{"anything-but": "initializing"}]}}, True),
    ("anything-but that text", {"detail": {"state": [{"anything-but": "running"}]}}, False),
    ("anything-but a number", {"detail": {"x-limit": [{"anything-but": 123}]}}, True),
    ("anything-but numbers", {"detail": {"c-count": [{"anything-but": [5, 200]}]}}, False),
    ("anything-but texts", {"detail": {"state": [{"anything-but": ["stopped", "x"]}]}}, True),
    (
        "anything-but, any case",
        {"detail": {"state": [{"anything-but": {"equals-ignore-case": "RUNNING"}}]}},
        False,
    ),
    (
        "anything-but a list, any case",
        {"detail": {"state": [{"anything-but": {"equals-ignore-case": ["Stopped", "Off"]}}]}},
        True,
    ),
    ("anything-but a prefix", {"detail": {"state": [{"anything-but": {"prefix": "run"}}]}}, False),
    (
        "anything-but prefixes",
        {"region": [{"anything-but": {"prefix": ["eu-", "ap-"]}}]},
        True,
    ),
    (
        "anything-but suffixes",
        {"detail": {"FileName": [{"anything-but": {"suffix": [".txt", ".PNG"]}}]}},
        False,
    ),
    (
        "anything-but a wildcard",
        {"detail": {"FileName": [{"anything-but": {"wildcard": "*/lib/*"}}]}},
        True,
    ),
    (
        "anything-but wildcards",
        {"detail": {"FileName": [{"anything-but": {"wildcard": ["*/lib/*", "*/sub/*"]}}]}},
        False,
    ),
    ("anything-but of no field", {"detail": {"nonesuch": [{"anything-but": "a"}]}}, False),
    ("numeric range", {"detail": {"c-count": [{"numeric": [">", 0, "<=", 5]}]}}, True),
    ("numeric below", {"detail": {"d-count": [{"numeric": ["<", 3]}]}}, False),
    ("numeric equality", {"detail": {"x-limit": [{"numeric": ["=", 3.018e2]}]}}, True),
    ("numeric of a text", {"detail": {"eventVersion": [{"numeric": [">=", 0]}]}}, False),
    ("cidr", {"detail": {"source-ip": [{"cidr": "10.0.0.0/24"}]}}, True),
    ("cidr elsewhere", {"detail": {"source-ip": [{"cidr": "10.0.1.0/24"}]}}, False),
    ("cidr of IPv6", {"detail": {"source-ip6": [{"cidr": "2001:db8::/32"}]}}, True),
    ("exists", {"detail": {"c-count": [{"exists": True}]}}, True),
    ("exists of null", {"detail": {"responseElements": [{"exists": True}]}}, True),
    ("exists only for leaves", {"detail": [{"exists": True}]}, False),
    ("exists not, of an object", {"detail": [{"exists": False}]}, True),
    ("exists not", {"detail": {"nonesuch": [{"exists": False}]}}, True),
    ("wildcard", {"detail": {"FileName": [{"wildcard": "dir/*.PNG"}]}}, True),
    ("wildcard in the middle", {"detail-type": [{"wildcard": "*State*"}]}, True),
    ("wildcard to the end", {"detail": {"FileName": [{"wildcard": "dir/*.png"}]}}, False),
    ("or", {"$or": [{"source": ["aws.s3"]}, {"detail": {"c-count": [5]}}]}, True),
    (
        "or inside of a field",
        {"detail": {"$or": [{"c-count": [{"numeric": [">", 5]}]}, {"d-count": [3]}]}},
        True,
    ),
    (
        "or beside a field",
        {"source": ["aws.s3"], "$or": [{"region": ["us-east-1"]}, {"region": ["x"]}]},
        False,
    ),
    ("an array of objects", {"employees": {"firstName": ["Anna"]}}, True),
    (
        "fields of one object in an array",
        {"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}},
        True,
    ),
    (
        "fields of two objects in an array",
        {"employees": {"firstName": ["Anna"], "lastName": ["Jones"]}},
        False,
    ),
    (
        "fields of two objects, one in an $or",
        {"employees.firstName": ["Anna"], "$or": [{"employees.lastName": ["Doe"]}, {"x": ["y"]}]},
        False,
    ),
    ("a field of what is no object", {"source": {"x": [{"exists": False}]}}, True),
    (
        "the README's complex example",
        {
            "time": [{"prefix": "2017-10-02"}],
            "detail": {
                "state": [{"anything-but": "initializing"}],
                "c-count": [{"numeric": [">", 0, "<=", 5]}],
                "d-count": [{"numeric": ["<", 10]}],
                "x-limit": [{"anything-but": [100, 200, 300]}],
                "source-ip": [{"cidr": "10.0.0.0/8"}],
            },
        },
        True,
    ),
]


@pytest.mark.parametrize(
    ("pattern", "answer"), [example[1:] for example in EXAMPLES], ids=[e[0] for e in EXAMPLES]
)
def test_an_example_of_the_documentation_is_answered_as_it_says(
    pattern: dict[str, Any], answer: bool
) -> None:
    assert takes(pattern, EVENT) is answer
