"""Further endpoints that the controllers watch: what a hospital depends on beside its regions. Frozen data only.

They trigger nothing: what is seen of them is shown, measured and put on the record.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from hmsdr.playbook.base import Duration, Section
from hmsdr.playbook.names import HttpUrl
from hmsdr.playbook.topology import RegionName

HttpStatus = Annotated[int, Field(ge=100, le=599)]


class Endpoint(Section):
    """One endpoint, asked over HTTP by the controller of each site."""

    url: HttpUrl
    """What is asked for with GET; a redirect is an answer and is not followed."""
    region: RegionName | None = None
    """The region that it is a part of, for whoever reads; unset: of none."""
    expect: tuple[HttpStatus, ...] = ()
    """Statuses that are right; empty: any from 200 to 299."""
    interval: Duration = timedelta(seconds=5)
    """Time from one question to the next."""
    timeout: Duration = timedelta(seconds=2)
    """An answer that takes longer is none; one that takes longer than half of it is slow."""
    confirm: Annotated[int, Field(ge=1, le=100)] = 2
    """So many looks in a row must find it changed before that is news."""
