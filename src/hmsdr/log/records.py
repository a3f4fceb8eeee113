"""How the authority record is written down: one text for every store. Reads what an older version wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from hmsdr.decide.authority import Authority, Holder, Phase

_FIELDS = frozenset(field.name for field in fields(Authority))


def encode_authority(authority: Authority) -> str:
    """One line of JSON; equal records give equal text."""
    return json.dumps(asdict(authority), sort_keys=True)


def decode_authority(text: str) -> Authority:
    """The record in `text`; fields that it does not have yet are as they were before they existed.

    Raises:
        ValueError: it is no record, or has fields that this version does not know.
    """
    try:
        raw = json.loads(text)
        if unknown := set(raw) - _FIELDS:
            raise ValueError(f"fields of another version: {', '.join(sorted(unknown))}")
        holder = raw.pop("holder")
        phase = Phase(raw.pop("phase"))
        return Authority(phase=phase, holder=Holder(**holder) if holder else None, **raw)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no authority record: {error}") from error
