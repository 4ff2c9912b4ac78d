"""What is read of recordings, whatever they lie in, and what becomes of bad lines."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from backports import zstd

from processor import history
from processor.errors import UsageError
from processor.history import Recorded, sources
from processor.history.lines import envelope
from processor.model import EventSpec
from tests.support import aws_client

EVENT = EventSpec(time="at", partition_key="order.customer")


def line(n: int) -> bytes:
    return json.dumps({"at": 1_000 * n, "order": {"customer": f"c-{n}"}}).encode()


def record(n: int) -> Recorded:
    return Recorded(line(n), f"c-{n}", 1_000 * n)


def read(*paths: Path | str, **more: object) -> list[Recorded]:
    return list(history.read([str(path) for path in paths], EVENT, **more))  # type: ignore[arg-type]


def test_an_event_a_line_arrives_when_it_happens_under_its_partition_key(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(line(1) + b"\n\r\n" + line(2) + b"\r\n" + line(3))
    assert read(file) == [record(1), record(2), record(3)]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_what_is_compressed_is_told_by_its_bytes_not_by_its_name(
    tmp_path: Path, compress: "type[bytes]"
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(compress(line(1) + b"\n") + compress(line(2) + b"\n"))
    assert read(file) == [record(1), record(2)]


def test_files_come_in_the_order_given_those_of_a_folder_or_glob_by_their_paths(
    tmp_path: Path,
) -> None:
    for n, name in enumerate(["b/2.jsonl", "b/1/9.jsonl", "a.jsonl", "b/.hidden", "b/_SUCCESS"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(line(n))
    assert read(tmp_path / "b", tmp_path / "a.jsonl") == [record(1), record(0), record(2)]
    assert read(tmp_path / "**" / "*.jsonl") == [record(2), record(1), record(0)]


def test_a_path_that_leads_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("none.jsonl", "none/*.jsonl", "empty"):
        with pytest.raises(UsageError, match=r"--from .*" + path.replace("*", r"\*")):
            read(tmp_path / path)


def test_an_envelope_says_how_a_record_came_and_holds_its_payload_to_the_byte(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.jsonl"
    binary = base64.b64encode(b"\x00\xff").decode()
    file.write_text(
        '{"partition_key": "k", "arrival": "1970-01-01T00:00:07Z", "data": {"at":1e3,  "x": 1.0}}\n'
        '{"partition_key": "k", "arrival": 7001, "data": "text"}\n'
        f'{{"partition_key": "k", "arrival": 7002, "data_base64": "{binary}"}}\n'
        '{"arrival": 7003, "data": {"order": {"customer": "c-1"}}}\n'
        f'{{"Data": "{binary}", "PartitionKey": "k", "ApproximateArrivalTimestamp": 7.004}}\n'
        '{"at": 7005, "data": 1, "order": {"customer": "no envelope"}}\n'
    )
    assert read(file) == [
        Recorded(b'{"at":1e3,  "x": 1.0}', "k", 7_000),
        Recorded(b"text", "k", 7_001),
        Recorded(b"\x00\xff", "k", 7_002),
        Recorded(b'{"order": {"customer": "c-1"}}', "c-1", 7_003),
        Recorded(b"\x00\xff", "k", 7_004),
        Recorded(file.read_bytes().splitlines()[-1], "no envelope", 7_005),
    ]


def test_a_record_is_read_back_from_the_envelope_that_it_was_written_in(tmp_path: Path) -> None:
    records = [record(1), Recorded(b"\x00\xff", "", 5), Recorded('{"ä": 1}'.encode(), "k", 6)]
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(map(envelope, records)))
    assert read(file) == records


def test_bad_lines_are_counted_told_with_their_place_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    bad = [b"{", b"[1]", b'{"partition_key": 1, "data": {}}', b'{"arrival": "noon", "data": {}}']
    file.write_bytes(b"\n".join([b'{"x": 1}', line(1), *bad, line(2)]))
    told: list[history.Bad] = []
    recording = history.read([str(file)], EVENT, on_bad=told.append)
    assert list(recording) == [record(1), record(2)]
    assert (recording.records, recording.bad_lines) == (2, 5)
    assert [each.line for each in told] == [1, 3, 4, 5, 6]
    assert str(told[0]) == f"{file}:1: no time: neither an arrival nor at"
    assert "partition_key: found the number 1, expected a text" in str(told[3])


def test_of_a_damaged_file_the_rest_is_left_out_and_the_next_one_read(tmp_path: Path) -> None:
    whole = gzip.compress(b"\n".join(map(line, range(80_000))), 1)
    (tmp_path / "a.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jsonl").write_bytes(line(1))
    recording = history.read([str(tmp_path)], EVENT)
    records = list(recording)
    assert records[0] == record(0)
    assert records[-1] == record(1)
    assert 1 < len(records) < 80_000
    assert recording.bad_lines == 1
    assert recording.bad[0].line == len(records)  # those of the first file, and the next


def test_a_line_longer_than_any_record_is_left_out_without_holding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LINE_BYTES_MAX", 64)
    file = tmp_path / "a.jsonl"
    file.write_bytes(line(1) + b"\n" + b"x" * 1_000 + b"\n" + line(2))
    recording = history.read([str(file)], EVENT)
    assert list(recording) == [record(1), record(2)]
    assert [bad.line for bad in recording.bad] == [2]


def test_a_clock_that_runs_ahead_moves_no_arrival_past_now(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(line(9_000))
    assert [each.arrival_ms for each in read(file, now_ms=5_000)] == [5_000]


async def put_objects(url: str, bodies: dict[str, bytes]) -> None:
    async with aws_client("s3", url) as client:
        await client.create_bucket(Bucket="captures")
        for key, body in bodies.items():
            await client.put_object(Bucket="captures", Key=key, Body=body)


@pytest.fixture
def s3(ministack: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return ministack


def test_objects_below_a_prefix_come_in_order_of_their_keys(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from processor.history import s3 as reading

    monkeypatch.setattr(reading, "RANGE_BYTES", 100)  # several requests an object
    bodies = {
        "2026/10/b.jsonl.gz": gzip.compress(b"\n".join(map(line, range(5, 40)))),
        "2026/10/a.jsonl": b"\n".join(map(line, range(5))),
        "2026/10/empty": b"",
        "2025/x.jsonl": line(99),
    }
    asyncio.run(put_objects(s3, bodies))
    recording = history.read(["s3://captures/2026/"], EVENT)
    assert list(recording) == [record(n) for n in range(40)]
    assert list(recording) == [record(n) for n in range(40)]  # as often as one likes
    assert recording.read_bytes == sum(map(len, bodies.values())) - len(bodies["2025/x.jsonl"])
    with pytest.raises(UsageError, match="s3://captures/2027/: no object"):
        history.read(["s3://captures/2027/"], EVENT)


def test_an_object_that_changes_while_it_is_read_is_not_read_on(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from processor.errors import Unavailable
    from processor.history import s3 as reading

    monkeypatch.setattr(reading, "RANGE_BYTES", 100)
    monkeypatch.setattr(sources, "BUFFER_BYTES", 100)
    asyncio.run(put_objects(s3, {"a": b"\n".join(map(line, range(100)))}))
    records = iter(history.read(["s3://captures/a"], EVENT))
    assert next(records) == record(0)
    asyncio.run(put_objects(s3, {"a": b"\n".join(map(line, range(100, 200)))}))
    with pytest.raises(Unavailable, match="changed or deleted meanwhile"):
        list(records)
