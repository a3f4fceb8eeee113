"""An error over one object is told once, in the log and as an Event of that object; all other objects go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.store import Object, Store

_log = logging.getLogger(__name__)


class Troubles:
    """What went wrong in one part of the cluster.

    Args:
        store: where the events go.
        part: who met it, for the log.
    """

    def __init__(self, store: Store, part: str) -> None:
        self._store = store
        self._part = part
        self._told: set[tuple[str, int, str]] = set()

    @contextmanager
    def of(self, item: Object) -> Iterator[None]:
        """Whatever is raised inside concerns this object alone, and ends here."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the other objects must not suffer for it
            self.tell(item, error)

    def tell(self, item: Object, error: BaseException) -> None:
        """Log and record it, unless it was told of this generation of the object: an event is a change, which wakes us."""
        metadata = item["metadata"]
        key = (str(metadata.get("uid")), int(metadata.get("generation") or 0), type(error).__name__)
        if key in self._told:
            return
        self._told.add(key)
        where = f"{item.get('kind')} {metadata.get('namespace', '')}/{metadata.get('name')}"
        _log.error("%s: %s: %s: %s", self._part, where, type(error).__name__, error, exc_info=error)
        with suppress(Exception):
            message = f"{self._part}: {type(error).__name__}: {error}"
            record(self._store, item, "ReconcileError", message, warning=True)
