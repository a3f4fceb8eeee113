"""Whether a database's data may be trusted: signs of damage, and whether a standby may have replayed them (FA-1). Pure.

A page whose checksum fails is one machine's disk; a broken heap or index may have come through the WAL. Either way a standby of a
damaged primary is promoted only after a complete check of its own, which began when it had replayed all that could be spoilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.testimony import Finding, Verdict


class DamageKind(StrEnum):
    """What was seen of damage."""

    CHECKSUM = "checksum"
    """PostgreSQL counts pages whose checksum failed."""
    PAGE = "page"
    """Its log tells of a page or a structure that is invalid."""
    HEAP = "heap"
    """pg_amcheck found a table broken."""
    INDEX = "index"
    """pg_amcheck found an index broken."""
    PANIC = "panic"
    """It ended or did not start with a PANIC."""


MENDED_BY_A_CLEAN_CHECK = frozenset({DamageKind.HEAP, DamageKind.INDEX, DamageKind.PANIC})
"""What a complete check that finds nothing disproves. A disk that gave one bad page is not cleared by that."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign: ``where`` names a file or a relation, ``evidence`` is in words, never content.

    ``lsn`` (bytes of WAL) is how far the database was when it was seen: what spoilt it was written before.
    """

    kind: DamageKind
    where: str
    since: str
    evidence: str
    lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What an agent tells of its data.

    ``checked_lsn`` is where replay stood when the last complete and clean check began, on the timeline that the database is
    still on; None: there is none.
    """

    signs: tuple[Sign, ...] = ()
    checked_lsn: int | None = None


class Doubt(StrEnum):
    """Why a standby is not to be promoted."""

    DAMAGED = "it shows signs of damage itself"
    UNCHECKED = "the primary is damaged, and the standby was not checked since it replayed what the primary wrote until then"


def doubt(standby: Health | None, replayed: int | None, primary: Health | None) -> Doubt | None:
    """What speaks against the standby's data; None when nothing does.

    Args:
        standby: what its agent tells; None when that knows nothing of damage.
        replayed: how far it has replayed, in bytes of WAL.
        primary: what the primary's agent told last; None when nobody heard it.
    """
    if standby is not None and standby.signs:
        return Doubt.DAMAGED
    if primary is None or not primary.signs:
        return None
    needed = [sign.lsn for sign in primary.signs]
    # What it has not replayed cannot have reached it: a stream that broke off before the damage leaves it well.
    reach = [replayed] if any(lsn is None for lsn in needed) else [max(lsn or 0 for lsn in needed), replayed]
    bound = min((each for each in reach if each is not None), default=None)
    checked = None if standby is None else standby.checked_lsn
    if checked is None or bound is None or checked < bound:
        return Doubt.UNCHECKED
    return None


def needs_check(standby: Health, replayed: int | None, primary: Health | None) -> bool:
    """Whether a check of the standby now could take a doubt away."""
    return doubt(standby, replayed, primary) is Doubt.UNCHECKED


def heard_damage(told: Mapping[str, bool | None], sites: int) -> Finding:
    """What the sites heard of a region's damage from its agent: yes, no, or (None) nothing that is fresh.

    A sign is a fact that its database itself tells, so nobody who has not heard of it yet contradicts; `sites` must have.
    """
    yes = _named(site for site, said in told.items() if said)
    no = _named(site for site, said in told.items() if said is False)
    silent = _named(site for site, said in told.items() if said is None)
    verdict = Verdict.WELL if not yes else Verdict.CONFIRMED if len(yes) >= sites else Verdict.WAITING
    return Finding(verdict, yes, no, silent)


def _named(sites: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(sites))
