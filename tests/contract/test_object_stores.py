"""What every object store promises, over each of them: ministack's S3 and DynamoDB over sockets."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from processor.errors import Outage, Unavailable
from processor.ports import ObjectStore
from processor.stores.dynamodb import DynamoTable, create_table
from processor.stores.folder import FolderObjects
from processor.stores.memory import MemoryObjects
from processor.stores.s3 import S3Objects
from tests.support import aws_client

STORES = ("memory", "folder", "s3", "dynamodb items")
FOLDER = "orders@1600000000000/shardId-000000000000/"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, stack: AsyncExitStack, tmp_path: Path
) -> ObjectStore:
    match request.param:
        case "memory":
            return MemoryObjects()
        case "folder":
            return FolderObjects(tmp_path / "objects")
        case "s3":
            url = request.getfixturevalue("ministack")
            client = await stack.enter_async_context(aws_client("s3", url))
            await client.create_bucket(Bucket="states")
            return S3Objects(client, "s3://states/some/prefix")
    url = request.getfixturevalue("ministack")
    client = await stack.enter_async_context(aws_client("dynamodb", url))
    await create_table(client, "leases")
    return DynamoTable(client, "leases").items


async def test_what_was_put_is_got_byte_for_byte(store: ObjectStore) -> None:
    body = bytes(range(256)) * 100
    await store.put(FOLDER + "1-1-a", body)
    assert await store.get(FOLDER + "1-1-a") == body


async def test_an_empty_body_is_not_a_missing_one(store: ObjectStore) -> None:
    await store.put(FOLDER + "1-1-a", b"")
    assert await store.get(FOLDER + "1-1-a") == b""


async def test_a_second_put_replaces_the_first(store: ObjectStore) -> None:
    await store.put(FOLDER + "1-1-a", b"first")
    await store.put(FOLDER + "1-1-a", b"second")
    assert await store.get(FOLDER + "1-1-a") == b"second"


async def test_what_was_never_put_is_none(store: ObjectStore) -> None:
    assert await store.get(FOLDER + "1-1-a") is None


async def test_a_folder_is_listed_without_its_neighbours(store: ObjectStore) -> None:
    names = [FOLDER + name for name in ("1-1-a", "1-2-b")]
    for name in (*names, FOLDER.replace("00/", "001/") + "1-1-a"):
        await store.put(name, b"x")
    assert sorted(await store.list(FOLDER)) == names


async def test_an_absent_folder_lists_as_nothing(store: ObjectStore) -> None:
    assert await store.list(FOLDER) == []


async def test_many_are_deleted_at_once_and_absent_ones_are_no_error(store: ObjectStore) -> None:
    names = [f"{FOLDER}1-{n}-a" for n in range(60)]
    for name in names:
        await store.put(name, b"x")
    await store.delete([*names[1:], FOLDER + "9-9-z"])
    assert await store.list(FOLDER) == names[:1]


async def test_a_missing_bucket_says_how_to_make_it(stack: AsyncExitStack, ministack: str) -> None:
    client = await stack.enter_async_context(aws_client("s3", ministack))
    with pytest.raises(Unavailable) as caught:
        await S3Objects(client, "s3://nowhere").put("key", b"x")
    assert "s3:PutObject" in str(caught.value)
    assert "aws s3api create-bucket --bucket nowhere" in str(caught.value)


async def test_a_bucket_that_does_not_answer_is_an_outage(stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(aws_client("s3", "http://127.0.0.1:1"))
    with pytest.raises(Outage, match="bucket states"):
        await S3Objects(client, "s3://states").get("key")


async def test_a_file_in_the_folders_place_says_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "objects"
    place.write_text("a file")
    with pytest.raises(Unavailable, match="make it a folder"):
        await FolderObjects(place).put(FOLDER + "1-1-a", b"x")


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../outside"])
async def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(AssertionError, match="leads out"):
        await FolderObjects(tmp_path / "objects").put(key, b"x")


async def test_a_crash_while_writing_leaves_no_file_to_list(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    await store.put(FOLDER + "1-1-a", b"whole")
    (tmp_path / FOLDER / ".half.part").write_bytes(b"ha")
    assert await store.list(FOLDER) == [FOLDER + "1-1-a"]
