"""Event log and authority record in etcd: the store of a hospital whose controllers stand on three sites (SAFETY.md, State).

Each write is one etcd transaction that compares what it relies on: the head and the term for an append, the whole record for
the authority. Reads are linearizable. It stores and compares; it decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hmsdr.decide.authority import Authority, initial
from hmsdr.decide.leadership import Leadership, taken
from hmsdr.errors import RefusedError
from hmsdr.log.etcd_api import Etcd, EtcdApi, Found, is_absent, value_is
from hmsdr.log.events import GENESIS, Event, Head, NewEvent, after, chain
from hmsdr.log.records import decode_authority, encode_authority
from hmsdr.log.store import Appended, HeadMovedError, Sitting, StoreError, TermOverError

FORMAT = "1"
MOST_EVENTS = 100
"""In one append: etcd allows 128 operations in a transaction."""
_PAGE = 500
_LAST = "~"


class EtcdStore:
    """`EventLog` and `AuthorityStore` under one prefix of an etcd cluster.

    Args:
        api: the cluster.
        prefix: of all keys, one for each hospital.
    """

    def __init__(self, api: EtcdApi, prefix: str) -> None:
        self._api = api
        self._prefix = prefix
        self._known: tuple[Authority, str] | None = None
        """The record as read or put last, and its text: an older version may have written it differently."""
        self._looked = False
        """Whether it was found to be a store of this version."""

    @classmethod
    async def open(
        cls,
        etcd: Etcd,
        prefix: str = "/hmsdr",
        *,
        create: bool = False,
        lease_seconds: float = 30.0,
        patient: bool = False,
    ) -> EtcdStore:
        """Open the store under `prefix`.

        Args:
            etcd: where it is.
            prefix: of all keys.
            create: make it, with a vacant authority of `lease_seconds`, when it is not there yet.
            lease_seconds: the lease of a new authority record.
            patient: a cluster that does not answer now is looked at before the first answer that it gives.

        Raises:
            RefusedError: no store there, or written by another version.
            StoreError: etcd does not answer, or does not let us in.
        """
        store = cls(EtcdApi(etcd), prefix.rstrip("/"))
        try:
            await store._begin(create=create, lease_seconds=lease_seconds)
        except StoreError:
            if patient:
                return store
            await store.close()
            raise
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close connections; what is stored stays."""
        await self._api.close()

    async def head(self) -> Head:
        """See `EventLog.head`."""
        await self._look()
        term, head = await self._api.ranges(
            "reading the log's head", [(self._key("term"), None, 1), (self._key("head"), None, 1)]
        )
        return self._head(term, head)

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        """See `EventLog.read`."""
        await self._look()
        events: list[Event] = []
        while True:
            start, end = self._key(f"event/{after + 1:020d}"), self._key(f"event/{_LAST}")
            (page,) = await self._api.ranges("reading the log", [(start, end, _PAGE)])
            found = [_event(each) for each in page]
            events += [event for event in found if subject is None or event.subject == subject]
            if len(found) < _PAGE:
                return events
            after = found[-1].seq

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Appended:
        """See `EventLog.append`. At most `MOST_EVENTS` at once."""
        await self._look()
        doing = f"appending to the log after event {expected.seq}"
        if len(events) > MOST_EVENTS:
            raise StoreError(
                doing, f"{len(events)} events at once", f"Append at most {MOST_EVENTS} at a time"
            )
        stored = chain(events, expected, datetime.now(UTC))
        head = after(expected, stored)
        puts = {self._key(f"event/{event.seq:020d}"): _text(event) for event in stored}
        if stored:
            puts[self._key("head")] = _head_text(head)
        compare = [
            value_is(self._key("head"), _head_text(expected)),
            value_is(self._key("term"), str(expected.term)),
        ]
        done, found = await self._api.transaction(
            doing, compare, puts, [self._key("term"), self._key("head")]
        )
        if done:
            return Appended(head, stored)
        now = self._head(*found)
        if now.term != expected.term:
            raise TermOverError(
                f"appending to the log under term {expected.term}",
                f"term {now.term} has begun",
                "Another process has taken over; this one must stop",
            )
        raise HeadMovedError(
            doing, f"the log already ends at {now.seq}", "Read the new events, then try again"
        )

    async def begin_term(self, leader: str) -> Head:
        """See `EventLog.begin_term`. Who was faster is asked again: a term is begun by exactly one."""
        for _ in range(20):
            before = await self.leadership()
            if await self.settle(before, taken(before, leader)):
                return await self._under(before.term + 1)
        raise StoreError("beginning a term", "others were faster 20 times in a row", "Try again")

    async def meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        """See `Council.meet`."""
        await self._look()
        doing = f"meeting as {site}"
        put = {self._key(f"word/{site}"): json.dumps(word, ensure_ascii=False)}
        start, end = self._key("word/"), self._key("word/" + _LAST)
        term, head, leadership, authority, words = await self._api.ranges(
            doing,
            [
                (self._key("term"), None, 1),
                (self._key("head"), None, 1),
                (self._key("leadership"), None, 1),
                (self._key("authority"), None, 1),
                (start, end, _PAGE),
            ],
        )
        await self._api.transaction(doing, [], put, [])
        return Sitting(
            self._head(term, head),
            _leadership_of(leadership, doing),
            self._authority(authority, doing),
            {each.key.removeprefix(start): json.loads(each.value) for each in words},
        )

    async def settle(self, expected: Leadership, new: Leadership) -> bool:
        """See `Council.settle`."""
        await self._look()
        puts = {self._key("leadership"): _leadership_text(new)}
        if new.term != expected.term:
            puts |= {self._key("term"): str(new.term), self._key(f"leader/{new.term:020d}"): new.leader}
        compare = [value_is(self._key("leadership"), _leadership_text(expected))]
        done, _ = await self._api.transaction("settling who leads", compare, puts, [])
        return done

    async def leadership(self) -> Leadership:
        """See `Council.leadership`."""
        await self._look()
        doing = "reading who leads"
        (found,) = await self._api.ranges(doing, [(self._key("leadership"), None, 1)])
        return _leadership_of(found, doing)

    async def _under(self, term: int) -> Head:
        """The head under a term of ours; somebody may have begun a newer one since."""
        head = await self.head()
        return Head(head.seq, term, head.hash)

    async def read_authority(self) -> Authority:
        """See `AuthorityStore.read_authority`."""
        await self._look()
        doing = "reading the write authority"
        (found,) = await self._api.ranges(doing, [(self._key("authority"), None, 1)])
        return self._authority(found, doing)

    def _authority(self, found: Sequence[Found], doing: str) -> Authority:
        if not found:
            raise StoreError(
                doing, "etcd has lost it", "Nothing may be granted until somebody has found out why"
            )
        try:
            record = decode_authority(found[0].value)
        except ValueError as error:
            raise StoreError(doing, str(error), "Use the version that wrote it") from error
        self._known = (record, found[0].value)
        return record

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        """See `AuthorityStore.swap_authority`."""
        await self._look()
        known = self._known
        text = known[1] if known is not None and known[0] == expected else encode_authority(expected)
        key, fresh = self._key("authority"), encode_authority(new)
        done, _ = await self._api.transaction(
            "changing the write authority", [value_is(key, text)], {key: fresh}, []
        )
        if done:
            self._known = (new, fresh)
        return done

    async def _begin(self, *, create: bool, lease_seconds: float) -> None:
        doing = f"opening the log under {self._prefix} in etcd"
        key = self._key("format")
        (found,) = await self._api.ranges(doing, [(key, None, 1)])
        if not found and create:
            puts = {
                key: FORMAT,
                self._key("term"): "0",
                self._key("leadership"): _leadership_text(Leadership()),
                self._key("head"): _head_text(Head(0, 0, GENESIS)),
                self._key("authority"): encode_authority(initial(lease_seconds)),
            }
            await self._api.transaction(doing, [is_absent(key)], puts, [])
            (found,) = await self._api.ranges(doing, [(key, None, 1)])
        if not found:
            raise RefusedError(doing, "there is nothing", "Create it with `create`, once for a hospital")
        if found[0].value != FORMAT:
            raise RefusedError(
                doing,
                f"it has format {found[0].value}, this version writes format {FORMAT}",
                "Use the version that wrote it",
            )
        self._looked = True

    async def _look(self) -> None:
        """Nothing is read or written in a store that was not looked at."""
        if not self._looked:
            await self._begin(create=False, lease_seconds=0)

    def _head(self, term: Sequence[Found], head: Sequence[Found]) -> Head:
        if not term or not head:
            raise StoreError("reading the log's head", "etcd has lost it", "Restore etcd from a snapshot")
        raw: dict[str, Any] = json.loads(head[0].value)
        return Head(int(raw["seq"]), int(term[0].value), str(raw["hash"]))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"


def _leadership_text(record: Leadership) -> str:
    return json.dumps(asdict(record), sort_keys=True)


def _leadership_of(found: Sequence[Found], doing: str) -> Leadership:
    if not found:
        raise StoreError(doing, "etcd has lost it", "Restore etcd from a snapshot")
    return Leadership(**json.loads(found[0].value))


def _head_text(head: Head) -> str:
    return json.dumps({"seq": head.seq, "hash": head.hash}, sort_keys=True)


def _text(event: Event) -> str:
    return json.dumps(
        {
            "seq": event.seq,
            "at": event.at.isoformat(timespec="microseconds"),
            "term": event.term,
            "kind": event.kind,
            "subject": event.subject,
            "actor": event.actor,
            "data": event.data,
            "previous": event.previous,
            "hash": event.hash,
        },
        ensure_ascii=False,
    )


def _event(found: Found) -> Event:
    raw = json.loads(found.value)
    return Event(**{**raw, "at": datetime.fromisoformat(raw["at"])})
