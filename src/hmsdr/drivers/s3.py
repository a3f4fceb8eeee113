"""The object store with the backups (S3): what is newest, put, get. Thin; decides nothing about backups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
_PASSING = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling"})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object: its key, its size in bytes, when it was last written (UTC)."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """Buckets of one account."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="hmsdr-s3")
        self._client: S3Client | None = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Let go of the threads; a request that hangs ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def newest(
        self, bucket: str, prefix: str, *, deadline: float, at_least: int = 1
    ) -> StoredObject | None:
        """The object written last under `prefix`; those of fewer than `at_least` bytes do not count: they restore nothing."""
        listed = await self.listing(bucket, prefix, deadline=deadline)
        found = [item for item in listed if item.size >= at_least]
        return max(found, key=lambda item: item.modified, default=None)

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

    async def put_file(self, bucket: str, key: str, path: Path, *, deadline: float) -> None:
        """Upload a file; in parts when it is large."""
        await self._call(
            f"writing s3://{bucket}/{key}",
            lambda client: client.upload_file(str(path), bucket, key),
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
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline):
                async with self._making:
                    if self._client is None:
                        self._client = await loop.run_in_executor(self._threads, self._make)
                return await loop.run_in_executor(self._threads, call, self._client)
        except TimeoutError as error:
            kind = OutcomeUnknownError if writes else TemporaryError
            raise kind(doing, f"no answer within {deadline:g} s", "Try again, or with more time") from error
        except Exception as error:
            known = _translate(doing, error, writes=writes)
            if known is None:
                raise
            raise known from error

    def _make(self) -> S3Client:
        import boto3  # noqa: PLC0415 - a quarter of a second, paid only where S3 is used
        from botocore.config import Config  # noqa: PLC0415

        aws = self._aws
        client: S3Client = boto3.session.Session().client(
            "s3",
            region_name=aws.region,
            endpoint_url=aws.endpoint_url,
            aws_access_key_id=aws.access_key_id.get_secret_value() if aws.access_key_id else None,
            aws_secret_access_key=aws.secret_access_key.get_secret_value() if aws.secret_access_key else None,
            config=Config(connect_timeout=3, read_timeout=30, retries={"total_max_attempts": 3}),
        )
        return client


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
