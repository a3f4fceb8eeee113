"""Keeping a cluster's objects, and bringing them back: read from the API, archived in both regions, restored in order.

A restore asks the API first whether it would take everything, and changes nothing that is there unless it was told to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hmsdr.backup import archive
from hmsdr.backup.archive import PACKED_LIMIT, Contents
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.decide.clusterbackup import (
    ORDER,
    RESOURCES,
    Object,
    cleaned,
    differences,
    kept,
    plural_of,
)
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.drivers.kubernetes import Kubernetes
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.model import Playbook

_API_SECONDS = 30.0
_STORE_SECONDS = 120.0
_NAME = re.compile(r"^kubernetes_backup_\d{8}\.tar\.gz$")
_SECRETS, _NAMESPACES = "secrets", "namespaces"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive that was made. ``problems`` in words: what is wrong all the same."""

    name: str
    size: int
    objects: int
    buckets: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One object to be restored: missing in the cluster, or different there (``over`` its resourceVersion)."""

    file: str
    item: Object
    over: str | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What a restore did."""

    created: tuple[str, ...]
    replaced: tuple[str, ...]
    same: int


class Cluster:
    """The objects of one region's cluster.

    Args:
        playbook: which kinds and namespaces, for whom secrets are encrypted, which buckets.
        region: whose.
        objects: the object store.
        api: the cluster.
        say: told about progress.
    """

    def __init__(
        self, playbook: Playbook, region: str, objects: ObjectStore, api: Kubernetes, say: Say
    ) -> None:
        settings, where = playbook.regions[region], playbook.regions[region].backups
        self._policy = playbook.backups.kubernetes
        self._region = region
        self._kinds = sorted(self._policy.kinds, key=ORDER.__getitem__)
        self.namespaces = self._policy.namespaces or (settings.kubernetes.namespace,)
        self._buckets = (where.bucket, where.copy_bucket)
        self._objects = objects
        self._api = api
        self._say = say

    async def keep(self, now: datetime) -> Kept:
        """Archive everything, read the archive back, and put it into both buckets.

        Raises:
            DriverError: the cluster, or the region's own bucket, does not answer.
            FailedError: the archive does not read back.
        """
        problems = []
        kinds = list(self._kinds)
        if _SECRETS in kinds and not self._policy.recipients:
            kinds.remove(_SECRETS)
            problems.append(
                "secrets are not kept: backups.kubernetes.recipients names nobody to encrypt them for"
            )
        found: list[tuple[str, Object]] = []
        for plural in kinds:
            found += [(plural, cleaned(plural, item)) for item in await self._listed(plural)]
        if not found:
            raise FailedError(
                f"keeping the objects of {self._region}",
                f"there are none of {', '.join(kinds)} in {', '.join(self.namespaces)}",
                "Check backups.kubernetes, the context and what this user may read",
            )
        content = archive.write(found, region=self._region, made=now, recipients=self._policy.recipients)
        self._reads_back(content, found)
        name = f"kubernetes_backup_{now:%Y%m%d}.tar.gz"
        written = []
        for bucket in self._buckets:
            self._say(f"{name} to s3://{bucket}/{self._policy.prefix}{self._region}/")
            try:
                await self._put(bucket, name, content)
                written.append(bucket)
            except (TemporaryError, PermanentError, FailedError) as error:
                problems.append(f"it is not in {bucket}: {error}")
        if not written:
            raise FailedError(f"keeping {name}", "; ".join(problems), "See the object store, then try again")
        return Kept(name, len(content), len(found), tuple(written), tuple(problems))

    async def _listed(self, plural: str) -> list[Object]:
        resource = RESOURCES[plural]
        if resource.namespaced:
            items = [
                item
                for namespace in self.namespaces
                for item in await self._api.raw_objects(resource, namespace=namespace, deadline=_API_SECONDS)
            ]
        else:
            listed = await self._api.raw_objects(resource, namespace=None, deadline=_API_SECONDS)
            items = [item for item in listed if item["metadata"]["name"] in self.namespaces]
        return [item for item in items if kept(plural, item)]

    def _reads_back(self, content: bytes, found: Sequence[tuple[str, Object]]) -> None:
        """What cannot be read by a restore is no backup; secrets can be tried only where their key is."""
        identity = self._identity(None)
        without = {plural for plural, _ in found if plural == _SECRETS and identity is None}
        if without:
            return
        names = archive.read(
            content, "the archive just made", kinds=self._kinds, namespaces=self.namespaces, identity=identity
        ).objects
        if len(names) != len(found):
            raise FailedError(
                "reading the archive just made",
                f"{len(found)} objects went in, {len(names)} came out",
                "Try again",
            )

    async def _put(self, bucket: str, name: str, content: bytes) -> None:
        key = f"{self._policy.prefix}{self._region}/{name}"
        await self._objects.put(bucket, key, content, deadline=_STORE_SECONDS)
        back = await self._objects.inspect(bucket, key, deadline=_STORE_SECONDS)
        if back.sha256 != hashlib.sha256(content).hexdigest():
            raise FailedError(f"reading s3://{bucket}/{key} back", "it is not what was written", "Try again")

    def _identity(self, given: str | None) -> str | None:
        if given is not None:
            return given
        known = self._policy.identity
        return None if known is None else known.get_secret_value()

    async def fetch(self, file: str) -> bytes:
        """The archive that a person means: a file here, or its name in one of the buckets.

        Raises:
            RefusedError: there is none.
            UnfitError: it is too large to be one.
        """
        path, doing = Path(file), f"looking for {file}"
        if path.is_file():
            if path.stat().st_size > PACKED_LIMIT:
                raise UnfitError(doing, Kind.ARCHIVE, f"it has {path.stat().st_size} bytes")
            return path.read_bytes()
        name = file.rpartition("/")[2]
        if _NAME.fullmatch(name) is None:
            raise RefusedError(
                doing,
                "it is no file here, and no archive's name",
                "Name it as kubernetes_backup_YYYYMMDD.tar.gz",
            )
        wrong = []
        for bucket in self._buckets:
            key = f"{self._policy.prefix}{self._region}/{name}"
            try:
                return await self._objects.read(bucket, key, limit=PACKED_LIMIT, deadline=_STORE_SECONDS)
            except (TemporaryError, PermanentError) as error:
                wrong.append(f"s3://{bucket}/{key}: {error.found}")
        raise RefusedError(doing, "; ".join(wrong), "Name a file, or one of `aws s3 ls`")

    def contents(self, content: bytes, what: str, identity: str | None) -> Contents:
        """What the archive holds; see `hmsdr.backup.archive.read`."""
        return archive.read(
            content, what, kinds=self._kinds, namespaces=self.namespaces, identity=self._identity(identity)
        )

    async def plan(self, contents: Contents) -> tuple[list[Step], int]:
        """What is missing or different in the cluster, in the order of restoring; and how many are the same."""
        steps, same = [], 0
        there: dict[str, dict[str, Object]] = {}
        for file, item in contents.objects.items():
            plural = plural_of(file)
            if plural not in there:
                there[plural] = {_key(each): each for each in await self._present(plural)}
            found = there[plural].get(_key(item))
            if found is None:
                steps.append(Step(file, item))
                continue
            places = differences(item, cleaned(plural, found))
            if places:
                steps.append(Step(file, item, found["metadata"]["resourceVersion"], tuple(places)))
            else:
                same += 1
        return steps, same

    async def _present(self, plural: str) -> list[Object]:
        """Objects of a kind; none in a namespace that is not there."""
        resource = RESOURCES[plural]
        found: list[Object] = []
        for namespace in self.namespaces if resource.namespaced else (None,):
            found += await self._api.raw_objects(resource, namespace=namespace, deadline=_API_SECONDS)
        return found

    async def restore(self, steps: Sequence[Step], *, same: int, replace: bool) -> Applied:
        """Create what is missing and, with `replace`, put the archive's objects in the place of others.

        Raises:
            RefusedError: something is different there, and `replace` is not given; nothing was changed.
            DriverError: the API refuses one; what was done before is in the message.
        """
        different = [step for step in steps if step.over is not None]
        if different and not replace:
            words = "; ".join(f"{step.file}: {', '.join(step.places[:3])}" for step in different[:5])
            raise RefusedError(
                f"restoring {len(steps)} objects of {self._region}",
                f"{len(different)} are there and different ({words})",
                "Nothing was changed. Look at them; --replace puts the archive's in their place",
            )
        await self._would_be_taken(steps)
        created: list[str] = []
        replaced: list[str] = []
        for step in steps:
            self._say(f"{'replacing' if step.over else 'creating'} {step.file}")
            await self._write(step, dry_run=False)
            (replaced if step.over else created).append(step.file)
        return Applied(tuple(created), tuple(replaced), same)

    async def _would_be_taken(self, steps: Sequence[Step]) -> None:
        """Ask for all before anything is changed; what goes into a namespace that is still to be made cannot be asked for."""
        coming = {step.item["metadata"]["name"] for step in steps if plural_of(step.file) == _NAMESPACES}
        for step in steps:
            if step.item["metadata"].get("namespace") not in coming:
                await self._write(step, dry_run=True)

    async def _write(self, step: Step, *, dry_run: bool) -> None:
        resource = RESOURCES[plural_of(step.file)]
        await self._api.write_object(
            resource, step.item, over=step.over, dry_run=dry_run, deadline=_API_SECONDS
        )


def today() -> datetime:
    """The day that an archive is named after: in UTC."""
    return datetime.now(UTC)


def _key(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata.get('namespace') or ''}/{metadata['name']}"
