"""What the agent is given to restore a backup with: into a place beside its data directory, which it alone puts to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmsdr.backup.fetch import Target
from hmsdr.backup.restore import Restorer
from hmsdr.backup.scratch import Scratch
from hmsdr.control.rebuilding import Made, Say
from hmsdr.control.server import PostgresServer
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.playbook.model import Playbook


class Staging:
    """Restores backups of one region's database; `hmsdr.control.rebuilding.Restore`.

    Args:
        playbook: where backups lie.
        region: whose bucket is looked at first.
    """

    def __init__(self, playbook: Playbook, region: str) -> None:
        self._playbook = playbook
        self._region = region

    async def __call__(
        self, server: PostgresServer, place: Path, wanted: str | None, histories: Mapping[int, str], say: Say
    ) -> Made:
        """Make ``place/data``, see `hmsdr.control.rebuilding.Restore`."""
        objects, scratch = ObjectStore(self._playbook.aws), Scratch(server, place)
        sizes: list[int] = []
        restorer = Restorer(
            self._playbook,
            self._region,
            objects,
            server,
            lambda words: say(words, sizes[-1] if sizes else None),
        )
        doing = f"restoring {f'backup {wanted}' if wanted else 'the newest backup'} into {place}"
        try:
            choice, lsn = await restorer.stage(
                doing,
                scratch,
                Target(),
                wanted,
                room_in=place.parent,
                histories=histories,
                total=sizes.append,
            )
        except BaseException:
            await scratch.stop()
            raise
        finally:
            await objects.close()
        words = f"backup {choice.record.id} of {choice.bucket}, replayed to {format_lsn(lsn)}"
        return Made(words, choice.record.unpacked + len(choice.chain.files) * choice.record.segment)
