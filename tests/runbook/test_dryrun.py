"""A dry run asks every step and does nothing: whatever a step finds, refuses, or takes too long to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from support import NO_SYSTEMS, Fail, FailArgs, SleepArgs, Touch, TouchArgs, plan, step

from hmsdr.drivers.errors import TemporaryError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, StepContext
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.dryrun import foresee


class SlowToAsk(Action[SleepArgs]):
    """Its check takes a while, and then says no."""

    name: ClassVar[str] = "test.slow"
    summary: ClassVar[str] = "slow"
    Args = SleepArgs

    async def check(self, context: StepContext, args: SleepArgs) -> Check:
        await asyncio.sleep(args.seconds)
        return Check(False, {}, "paint to dry")

    async def act(self, context: StepContext, args: SleepArgs) -> Mapping[str, Any]:
        raise AssertionError("a dry run acted")

    def manual(self, playbook: Playbook, args: SleepArgs) -> Manual:
        return Manual((), "", ())


class Refuses(Fail):
    """Cannot be asked."""

    name: ClassVar[str] = "test.refuses"

    async def check(self, context: StepContext, args: FailArgs) -> Check:
        raise TemporaryError("asking", "nobody there", "Try again")


async def test_every_step_is_asked_at_once_and_none_is_carried_out(tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.touch()
    catalogue = Catalogue([Touch(), SlowToAsk(), Refuses(), Fail()])
    made = plan(
        [
            ("first", (), [[step("first/done", "test.touch", TouchArgs(path=str(done)).model_dump())]]),
            (
                "second",
                ("first",),
                [
                    [step("second/open", "test.touch", {"path": str(tmp_path / "open")})],
                    [step("second/slow", "test.slow", {"seconds": 0.4})],
                    [step("second/other", "test.slow", {"seconds": 0.4})],
                    [step("second/late", "test.slow", {"seconds": 60}, deadline="500ms")],
                    [step("second/mute", "test.refuses", {"counter": str(tmp_path / "n")})],
                    [step("second/never", "test.fail", {"counter": str(tmp_path / "n")})],
                ],
            ),
        ]
    )
    began = time.monotonic()
    found = await foresee(made, NO_SYSTEMS, catalogue)
    assert time.monotonic() - began < 0.9, "they are asked together"
    assert [(each.step.partition("/")[2], each.holds) for each in found] == [
        ("done", True), ("open", False), ("slow", False), ("other", False), ("late", None), ("mute", None),
        ("never", False),
    ]  # fmt: skip
    said = {each.step: each.found for each in found}
    assert said["second/slow"] == "paint to dry"
    assert said["second/late"] == "no answer within 0.5 s"
    assert said["second/mute"] == "nobody there"
    assert done.read_text() == ""
    assert not (tmp_path / "open").exists()
    assert not (tmp_path / "n").exists()
