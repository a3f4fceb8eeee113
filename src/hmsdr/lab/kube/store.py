"""The objects of one region's Kubernetes: versions, optimistic concurrency, watches, and a copy on disk.

Everything runs on one event loop and no method waits, so each is atomic. It knows nothing of what the
objects mean, except that a pod is removed only after its kubelet has ended it, and a namespace after what is in it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.status import already_exists, conflict, expired, not_found

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_REMEMBERED = 4096
"""Changes kept for watches that start at an older version."""
_KEPT_FIELDS = (
    *("uid", "creationTimestamp", "generation", "resourceVersion"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
"""Of an object's metadata, what no replacement changes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object; `old` is None when it was added, `new` when it was removed."""

    revision: int
    plural: str
    old: Object | None
    new: Object | None


def now() -> str:
    """Time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(item: Object) -> tuple[str, str]:
    """Namespace (empty if it has none) and name."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _set_aside(path: Path, plural: str, item: Any, error: Exception) -> None:
    """Keep what could not be read, one line each, for whoever looks into it."""
    aside = path.with_name("set-aside.jsonl")
    line = {"at": now(), "kind": plural, "why": str(error), "object": item}
    with aside.open("a") as file:
        file.write(json.dumps(line) + "\n")
    _log.error("one of the %s in %s cannot be read and is set aside in %s: %s", plural, path, aside, error)


class Store:
    """The objects.

    What it hands out are copies; changing one changes nothing until it is replaced or updated.
    """

    def __init__(self) -> None:
        self.revision = 1
        self._objects: dict[str, dict[tuple[str, str], Object]] = {kind.plural: {} for kind in kinds.KINDS}
        self._history: deque[Change] = deque(maxlen=_REMEMBERED)
        self._listeners: set[asyncio.Queue[Change]] = set()

    def copy(self) -> Store:
        """The same objects, for trying a change out: nobody watches them, and they are on no disk."""
        made = Store()
        made.revision = self.revision
        # An object is never changed in place, only replaced by another.
        made._objects = {plural: dict(items) for plural, items in self._objects.items()}
        return made

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object.

        Raises:
            ApiError: NotFound.
        """
        found = self._objects[kind.plural].get((namespace, name))
        if found is None:
            raise not_found(kind.qualified, name)
        return copy.deepcopy(found)

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        return copy.deepcopy(self._objects[kind.plural].get((namespace, name)))

    def all(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """All objects of a kind, in order of namespace and name; of one namespace if one is given."""
        items = sorted(self._objects[kind.plural].items())
        return [copy.deepcopy(item) for (place, _), item in items if namespace in {None, place}]

    def create(self, kind: Kind, item: Object) -> Object:
        """Add an object.

        Raises:
            ApiError: AlreadyExists.
        """
        item = copy.deepcopy(item)
        item.update({"apiVersion": kind.api_version, "kind": kind.kind})
        self.refuse_existing(kind, item)
        metadata = item["metadata"]
        metadata.update({"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1})
        return self._put(kind, None, item)

    def refuse_existing(self, kind: Kind, item: Object) -> None:
        """Refuse an object whose name is taken.

        Raises:
            ApiError: AlreadyExists.
        """
        key = key_of(item)
        if key in self._objects[kind.plural]:
            raise already_exists(kind.qualified, key[1])

    def replace(self, kind: Kind, item: Object) -> Object:
        """Put an object in the place of the one of its name; its generation goes up if its spec changed.

        Raises:
            ApiError: NotFound; Conflict if it carries a resourceVersion that is no longer current.
        """
        old = self.get(kind, *key_of(item))
        before, metadata = old["metadata"], item["metadata"]
        if metadata.get("resourceVersion") not in {None, "", before["resourceVersion"]}:
            raise conflict(kind.qualified, before["name"])
        item = copy.deepcopy(item)
        item.update({"apiVersion": kind.api_version, "kind": kind.kind})
        for field in _KEPT_FIELDS:
            if field in before:
                item["metadata"][field] = before[field]
            else:
                item["metadata"].pop(field, None)
        if item == old:
            return old
        if item.get("spec") != old.get("spec"):
            item["metadata"]["generation"] = before.get("generation", 0) + 1
        return self._put(kind, old, item)

    def update(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], None]
    ) -> Object | None:
        """Let `change` alter the current object; None if it is gone."""
        item = self.find(kind, namespace, name)
        if item is None:
            return None
        change(item)
        return self.replace(kind, item)

    def delete(self, kind: Kind, namespace: str, name: str, grace_seconds: int | None = None) -> Object:
        """Remove an object; what must end first is only marked, and goes when `remove` is called for it.

        Those are a pod that its node runs, by its kubelet; and a namespace, by its controller.

        Raises:
            ApiError: NotFound.
        """
        old = self.get(kind, namespace, name)
        if kind is kinds.PODS:
            if not old["spec"].get("nodeName"):
                return self.remove(kind, namespace, name)
        elif kind is not kinds.NAMESPACES:
            return self.remove(kind, namespace, name)
        item = copy.deepcopy(old)
        item["metadata"].setdefault("deletionTimestamp", now())
        if kind is kinds.PODS:
            if grace_seconds is None:
                grace_seconds = old["spec"].get("terminationGracePeriodSeconds", 30)
            item["metadata"]["deletionGracePeriodSeconds"] = grace_seconds
        else:
            item["status"] = {"phase": "Terminating"}
        return self._put(kind, old, item)

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Remove an object at once.

        Raises:
            ApiError: NotFound.
        """
        old = self.get(kind, namespace, name)
        del self._objects[kind.plural][namespace, name]
        self.revision += 1
        self._tell(Change(self.revision, kind.plural, old, None))
        return old

    @contextmanager
    def watching(self, since: int | None = None) -> Iterator[asyncio.Queue[Change]]:
        """A queue of all changes after version `since` (None: from now on).

        Raises:
            ApiError: Expired if changes after `since` are no longer remembered.
        """
        queue: asyncio.Queue[Change] = asyncio.Queue()
        if since is not None and since < self.revision:
            if not self._history or self._history[0].revision > since + 1:
                raise expired(since)
            for change in self._history:
                if change.revision > since:
                    queue.put_nowait(change)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def load(self, path: Path, check: Callable[[Kind, Any], Object]) -> bool:
        """Read the objects from a file; False if there is none that can be read.

        What cannot be read is set aside in a file beside it, and is no reason to stop.

        Args:
            path: the file.
            check: gives an object as it should be kept, or raises ValueError.
        """
        try:
            raw = json.loads(path.read_text())
            revision, objects = int(raw["revision"]), dict(raw["objects"])
        except FileNotFoundError:
            return False
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            aside = path.with_suffix(f".unreadable-{uuid.uuid4().hex[:8]}")
            path.replace(aside)
            _log.error("%s cannot be read (%s): set aside as %s; a first start follows", path, error, aside)
            return False
        self.revision = revision
        for plural, items in objects.items():
            for item in items if isinstance(items, list) else [items]:
                try:
                    kind = kinds.BY_PLURAL[plural]
                    found = check(kind, item)
                    self._objects[plural][key_of(found)] = found
                    self.revision = max(self.revision, int(found["metadata"]["resourceVersion"]))
                except (ValueError, LookupError) as error:
                    _set_aside(path, plural, item, error)
        return True

    def save(self, path: Path) -> None:
        """Write the objects to a file, whole or not at all."""
        objects = {plural: list(items.values()) for plural, items in self._objects.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"revision": self.revision, "objects": objects}))
        partial.replace(path)

    async def keep(self, path: Path, every_seconds: float = 0.2) -> None:
        """Write the objects to a file after changes, at most once in `every_seconds`, till cancelled."""
        with self.watching() as queue:
            try:
                while True:
                    self.save(path)
                    await queue.get()
                    await asyncio.sleep(every_seconds)
                    while not queue.empty():
                        queue.get_nowait()
            finally:
                self.save(path)

    def _put(self, kind: Kind, old: Object | None, item: Object) -> Object:
        self.revision += 1
        item["metadata"]["resourceVersion"] = str(self.revision)
        self._objects[kind.plural][key_of(item)] = item
        self._tell(Change(self.revision, kind.plural, old, copy.deepcopy(item)))
        return copy.deepcopy(item)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        for queue in self._listeners:
            queue.put_nowait(change)
