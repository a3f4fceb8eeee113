"""Keeps the status page in every region's bucket as the log has it: each bucket by itself, within a deadline, again until it took it (CM-3).

Several may do it at once, and write the same. A bucket of a lost region is asked again after a pause, and keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hmsdr.decide.statuspage import public_status
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import HmsdrError
from hmsdr.incident.desk import Desk
from hmsdr.incident.statusfiles import File, files
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import StatusPage

WRITE_SECONDS = 8.0
"""For one file in one bucket."""
_AGAIN_SECONDS = (2.0, 5.0, 15.0, 30.0)
"""Before a bucket that did not take it is asked again."""


@dataclass(slots=True)
class _Bucket:
    region: str
    name: str
    objects: ObjectStore
    written: dict[str, bytes] = field(default_factory=dict)
    failures: int = 0
    not_before: float = 0.0
    found: str = ""


class Publisher:
    """The status page of one playbook.

    Args:
        playbook: the hospital's.
        page: its status page.
        desk: its incidents; this publisher's own.
    """

    def __init__(self, playbook: Playbook, page: StatusPage, desk: Desk) -> None:
        self._playbook = playbook
        self._page = page
        self._desk = desk
        # Each by its own region's API: no bucket may depend on another region's.
        self._buckets = [
            _Bucket(region, name, ObjectStore(playbook.aws.model_copy(update={"region": region})))
            for region, name in page.buckets.items()
        ]

    async def files(self) -> tuple[File, ...]:
        """The page as it is now.

        Raises:
            StoreError: the log does not answer.
        """
        book = await self._desk.book()
        status = public_status(book, self._playbook, self._page, datetime.now(UTC))
        return files(status, self._playbook, self._page)

    async def publish(self) -> dict[str, str]:
        """Write what each bucket does not have; by region, what went wrong, empty where nothing did.

        Raises:
            StoreError: the log does not answer.
        """
        made = await self.files()
        await asyncio.gather(*(self._write(each, made) for each in self._buckets))
        return {each.region: each.found for each in self._buckets}

    async def run(self, stop: asyncio.Event, interval: float, report: Callable[[str], None]) -> None:
        """Again and again until `stop`, no bucket waiting for another; each new trouble is reported once."""
        said: dict[str, str] = {}
        writing: dict[str, asyncio.Task[None]] = {}
        try:
            while not stop.is_set():
                found = await self._begin(writing)
                for where, trouble in found.items():
                    if trouble and trouble != said.get(where):
                        report(f"the status page in {where}: {trouble}")
                said |= found
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), interval)
        finally:
            for task in writing.values():
                task.cancel()
            await asyncio.gather(*writing.values(), return_exceptions=True)

    async def _begin(self, writing: dict[str, asyncio.Task[None]]) -> dict[str, str]:
        """Begin to write the page as it is now to every bucket that is not being written; what is known to be wrong, by region."""
        try:
            made = await self.files()
        except HmsdrError as error:
            return {"log": str(error)}
        for each in self._buckets:
            before = writing.get(each.region)
            if before is not None and not before.done():
                continue  # a bucket that hangs has its deadline, and keeps nobody else waiting
            if before is not None:
                before.result()  # what is no trouble of a bucket is an error of ours, and ends this
            writing[each.region] = asyncio.create_task(self._write(each, made))
        return {"log": "", **{each.region: each.found for each in self._buckets}}

    async def close(self) -> None:
        """Let go of the connections."""
        for each in self._buckets:
            await each.objects.close()

    async def _write(self, bucket: _Bucket, made: tuple[File, ...]) -> None:
        fresh = [each for each in made if bucket.written.get(each.name) != each.content]
        if not fresh or time.monotonic() < bucket.not_before:
            return
        try:
            for each in fresh:
                key = f"{self._page.prefix}{each.name}"
                await bucket.objects.put(
                    bucket.name, key, each.content, deadline=WRITE_SECONDS, kind=each.kind, cache=each.cache
                )
                bucket.written[each.name] = each.content
        except DriverError as error:
            pause = _AGAIN_SECONDS[min(bucket.failures, len(_AGAIN_SECONDS) - 1)]
            bucket.failures, bucket.not_before = bucket.failures + 1, time.monotonic() + pause
            bucket.found = str(error)
            return
        bucket.failures, bucket.found = 0, ""
