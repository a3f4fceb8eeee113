"""The object store with the backups (S3): list, put, get, copy, read to the end. Thin; decides nothing about backups."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.playbook.topology import Aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_T = TypeVar("_T")
_THREADS = 4
_READ_SECONDS = 30
"""Longest silence within one answer, however long a transfer may take."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_CHUNK = 1 << 20
_PASSING = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object: its key, its size in bytes, when it was last written (UTC)."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Content:
    """What an object was found to hold: bytes, SHA-256, and how much it is when unpacked (itself, when it is not packed)."""

    size: int
    sha256: str
    unpacked: int


class ObjectStore:
    """Buckets of one account."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="hmsdr-s3")
        self._clients: dict[int, S3Client] = {}
        """By the longest silence that each bears, in seconds: a client's own patience cannot be changed afterwards."""
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the threads; a request that hangs ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def listing(self, bucket: str, prefix: str, *, deadline: float) -> list[StoredObject]:
        """Every object under `prefix`, over all pages."""

        def call(client: S3Client) -> list[StoredObject]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [
                StoredObject(item["Key"], item["Size"], item["LastModified"])
                for page in pages
                for item in page.get("Contents", [])
            ]

        return await self._call(f"listing s3://{bucket}/{prefix}", call, deadline)

    async def names(self, bucket: str, prefix: str, *, deadline: float) -> list[StoredObject]:
        """The objects directly below `prefix`, nothing further down; their keys are whole."""

        def call(client: S3Client) -> list[StoredObject]:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter="/"
            )
            return [
                StoredObject(item["Key"], item["Size"], item["LastModified"])
                for page in pages
                for item in page.get("Contents", [])
            ]

        return await self._call(f"listing s3://{bucket}/{prefix}", call, deadline)

    async def read(self, bucket: str, key: str, *, limit: int, deadline: float) -> bytes:
        """A small object's content.

        Raises:
            PermanentError: it is not there, or has more than `limit` bytes.
        """
        doing = f"reading s3://{bucket}/{key}"

        def call(client: S3Client) -> bytes:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                return body.read(limit + 1)
            finally:
                body.close()

        content = await self._call(doing, call, deadline)
        if len(content) > limit:
            raise PermanentError(doing, f"it has more than {limit} bytes", "It is not what it is taken for")
        return content

    async def put(
        self,
        bucket: str,
        key: str,
        content: bytes,
        *,
        deadline: float,
        kind: str = "binary/octet-stream",
        cache: str = "",
    ) -> StoredObject:
        """Write a small object, and give it as the store then has it; `kind` and `cache` are what browsers are told of it."""
        doing = f"writing s3://{bucket}/{key}"

        def call(client: S3Client) -> StoredObject:
            if cache:
                client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=kind, CacheControl=cache)
            else:
                client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=kind)
            found = client.head_object(Bucket=bucket, Key=key)
            return StoredObject(key, found["ContentLength"], found["LastModified"])

        return await self._call(doing, call, deadline, writes=True)

    async def inspect(self, bucket: str, key: str, *, deadline: float) -> Content:
        """Read an object to its end, without keeping it.

        Raises:
            PermanentError: it is not there, or is packed (gzip) and cannot be unpacked.
        """
        doing = f"reading s3://{bucket}/{key}"
        packed = key.endswith(".gz")
        return await self.consume(
            bucket, key, lambda chunks: _content(doing, chunks, packed=packed), deadline=deadline
        )

    async def consume(
        self, bucket: str, key: str, use: Callable[[Iterator[bytes]], _T], *, deadline: float
    ) -> _T:
        """Read an object piece by piece, in a thread: gives what `use` makes of the pieces."""

        def call(client: S3Client) -> _T:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                return use(body.iter_chunks(_CHUNK))
            finally:
                body.close()

        return await self._call(f"reading s3://{bucket}/{key}", call, deadline)

    async def copy(self, source: str, key: str, target: str, *, deadline: float) -> None:
        """Copy an object under the same key from the bucket `source` to the bucket `target`, inside the store."""
        await self._call(
            f"copying s3://{source}/{key} to s3://{target}",
            lambda client: client.copy({"Bucket": source, "Key": key}, target, key),
            deadline,
            writes=True,
        )

    async def delete(self, bucket: str, key: str, *, deadline: float) -> None:
        """Remove an object; one that is not there is no error."""
        await self._call(
            f"removing s3://{bucket}/{key}",
            lambda client: client.delete_object(Bucket=bucket, Key=key),
            deadline,
            writes=True,
        )

    async def get_file(self, bucket: str, key: str, path: Path, *, deadline: float) -> None:
        """Download an object beside `path`, and move it there when it is whole."""
        part = path.with_name(path.name + ".part")

        def call(client: S3Client) -> None:
            client.download_file(bucket, key, str(part))
            part.replace(path)

        await self._call(f"reading s3://{bucket}/{key}", call, deadline)

    async def _call(
        self, doing: str, call: Callable[[S3Client], _T], deadline: float, *, writes: bool = False
    ) -> _T:
        loop, ends = asyncio.get_running_loop(), time.monotonic() + deadline
        # The thread is joined when the process ends: it must not outlive by much who asked.
        silence = min(_READ_SECONDS, max(1, math.ceil(deadline)))
        try:
            async with asyncio.timeout(deadline):
                async with self._making:
                    if silence not in self._clients:
                        self._clients[silence] = await loop.run_in_executor(
                            self._threads, self._make, silence
                        )
                return await loop.run_in_executor(
                    self._threads, _patiently, call, self._clients[silence], ends
                )
        except TimeoutError as error:
            kind = OutcomeUnknownError if writes else TemporaryError
            raise kind(doing, f"no answer within {deadline:g} s", "Try again, or with more time") from error
        except DriverError:
            raise
        except Exception as error:
            known = _translate(doing, error, writes=writes)
            if known is None:
                raise
            raise known from error

    def _make(self, silence: int) -> S3Client:
        import boto3  # noqa: PLC0415 - a quarter of a second, paid only where S3 is used
        from botocore.config import Config  # noqa: PLC0415

        aws = self._aws
        client: S3Client = boto3.session.Session().client(
            "s3",
            region_name=aws.region,
            endpoint_url=aws.endpoint_url,
            aws_access_key_id=aws.access_key_id.get_secret_value() if aws.access_key_id else None,
            aws_secret_access_key=aws.secret_access_key.get_secret_value() if aws.secret_access_key else None,
            config=Config(
                connect_timeout=min(3, silence), read_timeout=silence, retries={"total_max_attempts": 1}
            ),
        )
        return client


def _patiently(call: Callable[[S3Client], _T], client: S3Client, ends: float) -> _T:
    """What `call` gives; answers that pass (throttling) are waited out until `ends` (monotonic seconds). Runs in a thread."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    pause = _FIRST_PAUSE
    while True:
        try:
            return call(client)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _PASSING or time.monotonic() + pause > ends:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _content(doing: str, chunks: Iterable[bytes], *, packed: bool) -> Content:
    size, unpacked, digest = 0, 0, hashlib.sha256()
    reader = zlib.decompressobj(wbits=31) if packed else None
    try:
        for chunk in chunks:
            size += len(chunk)
            digest.update(chunk)
            rest = chunk
            while reader is not None and rest:
                unpacked += len(reader.decompress(rest))
                rest = reader.unused_data
                if reader.eof and rest:  # one packed stream after the other is one file
                    reader = zlib.decompressobj(wbits=31)
    except zlib.error as error:
        raise PermanentError(
            doing, f"it cannot be unpacked ({error})", "Use another backup, or its copy"
        ) from error
    if reader is not None and not reader.eof:
        raise PermanentError(doing, "it is truncated", "Use another backup, or its copy")
    return Content(size, digest.hexdigest(), unpacked if packed else size)


def _translate(doing: str, error: BaseException, *, writes: bool) -> DriverError | None:
    """Our error for boto's; None when it is not one of its."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError  # noqa: PLC0415

    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in _PASSING:
            return TemporaryError(doing, f"S3 answered {code}", "Try again")
        remedy = (
            "Check the bucket's name in the playbook"
            if code == "NoSuchBucket"
            else "Check name and permissions"
        )
        return PermanentError(doing, f"S3 answered {code}", remedy)
    if isinstance(error, EndpointConnectionError):
        return TemporaryError(doing, "S3 is not reachable", "Check the network and aws.endpoint_url")
    if isinstance(error, BotoCoreError | Boto3Error):
        kind = OutcomeUnknownError if writes else TemporaryError
        return kind(doing, f"the request broke off ({type(error).__name__})", "Look, then try again")
    return None
