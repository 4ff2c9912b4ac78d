"""Large states in an S3 bucket, under a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from processor.aws_errors import FOREIGN, Subject, code_of, translated, translation
from processor.errors import Outage, Unavailable

DELETED_AT_ONCE = 1_000  # DeleteObjects takes no more
_CHANGED = frozenset({"PreconditionFailed", "412", "NoSuchKey", "InvalidRange", "416"})


class Listed(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size: int
    etag: str


class S3Objects:
    """An `ObjectStore`; `location` is `s3://bucket/prefix`."""

    def __init__(self, client: Any, location: str) -> None:
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        create = f"aws s3api create-bucket --bucket {bucket}"
        self._subject = Subject("s3", f"bucket {bucket}", create, "check the bucket's name")

    def __repr__(self) -> str:
        return f"<S3Objects s3://{self._bucket}/{self._prefix}>"

    async def put(self, key: str, body: bytes) -> None:
        with translation(self._subject, "PutObject"):
            await self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body)

    async def get(self, key: str) -> bytes | None:
        try:
            answer = await self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            async with answer["Body"] as stream:
                body: bytes = await stream.read()
        except FOREIGN as error:
            if isinstance(error, ClientError) and code_of(error) == "NoSuchKey":
                return None
            raise translated(error, self._subject, "GetObject") from error
        return body

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            names = [{"Key": self._prefix + key} for key in keys[start : start + DELETED_AT_ONCE]]
            with translation(self._subject, "DeleteObject"):
                answer = await self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": names, "Quiet": True}
                )
            for error in answer.get("Errors", ()):
                cause = f"{error.get('Key')}: {error.get('Code')}"
                raise Outage("s3", "DeleteObjects", cause)

    async def list(self, prefix: str) -> list[str]:
        return [entry.key for entry in await self.list_sizes(prefix)]

    async def list_sizes(self, prefix: str) -> Sequence[Listed]:
        """What is below the prefix, in order of keys, with sizes in bytes."""
        found = []
        more: dict[str, str] = {}
        while True:
            with translation(self._subject, "ListBucket"):
                answer = await self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, **more
                )
            found += [
                Listed(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["ETag"])
                for entry in answer.get("Contents", ())
            ]
            if not answer.get("IsTruncated"):
                return found
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    async def get_range(self, listed: Listed, start: int, size: int) -> bytes:
        """A part of an object; Unavailable if it is not what was listed any more."""
        last = start + size - 1
        try:
            answer = await self._client.get_object(
                Bucket=self._bucket,
                Key=self._prefix + listed.key,
                Range=f"bytes={start}-{last}",
                IfMatch=listed.etag,
            )
            async with answer["Body"] as stream:
                body: bytes = await stream.read()
        except FOREIGN as error:
            if isinstance(error, ClientError) and code_of(error) in _CHANGED:
                what = f"object {listed.key} of {self._subject.name}"
                remedy = "it was changed or deleted meanwhile: run the command again"
                raise Unavailable(what, "reading on", remedy) from error
            raise translated(error, self._subject, "GetObject") from error
        return body
