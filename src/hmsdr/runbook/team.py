"""Telling the response team on the channels that the playbook names, in their order (CM-1). It delivers; what is said is its callers'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems


@dataclass(frozen=True, slots=True)
class Posted:
    """Which channel took it, and what became of those before."""

    channel: str
    failed_before: tuple[str, ...] = ()


async def tell(systems: Systems, text: str, key: str, *, seconds: Callable[[], float]) -> Posted:
    """Post `text` to the primary channel, else to the backup; the first that accepts is enough.

    Args:
        systems: where the webhooks are.
        text: facts, no patient's data.
        key: by which a message that comes twice can be told.
        seconds: for the next channel.

    Raises:
        TemporaryError: none took it.
        PermanentError: the playbook names no endpoint of a channel.
    """
    playbook = systems.playbook
    found: list[str] = []
    for channel in (playbook.channels.primary, playbook.channels.backup):
        webhook = systems.webhook(channel)
        if webhook is None:
            found.append(f"{channel}: no endpoint in channels.endpoints")
            continue
        message = {"channel": channel.partition(":")[2], "text": text, "key": key}
        try:
            await webhook.post(message, deadline=seconds())
        except DriverError as error:
            found.append(f"{channel}: {error.found}")
            continue
        return Posted(channel, tuple(found))
    kind = TemporaryError if playbook.channels.endpoints else PermanentError
    raise kind("telling the response team", "; ".join(found), f"Call: {escalation(playbook)}")


def escalation(playbook: Playbook) -> str:
    """Whom to call when no channel takes a message (CM-1): the role's people with their numbers."""
    role = playbook.channels.escalation.partition(":")[2]
    found = playbook.roles.get(role)
    if found is None:
        return playbook.channels.escalation
    phones = {person.name: person.phone for person in playbook.people}
    names = [found.primary, *([found.backup] if found.backup else [])]
    return ", ".join(f"{name} {phones[name]}" for name in names if name in phones)
