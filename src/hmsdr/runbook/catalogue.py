"""The catalogue of actions: ours, and those that other packages add through the entry point ``hmsdr.actions``.

An entry point names an `Action` subclass. Two actions of one name are refused: a plan must mean one thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from hmsdr.errors import RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.runbook.action import Action

ENTRY_POINT = "hmsdr.actions"


class Catalogue:
    """Actions by name."""

    def __init__(self, actions: Iterable[Action[Any]]) -> None:
        self._actions: dict[str, Action[Any]] = {}
        for action in actions:
            if action.name in self._actions:
                raise RefusedError(
                    "building the catalogue of actions",
                    f"two actions are called {action.name!r}",
                    f"Rename one; entry points of {ENTRY_POINT!r} add to the built-in ones",
                )
            self._actions[action.name] = action

    def __iter__(self) -> Iterator[Action[Any]]:
        return iter(self._actions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._actions

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._actions))

    def get(self, name: str) -> Action[Any]:
        """The action called `name`.

        Raises:
            RefusedError: there is none; the nearest name is offered.
        """
        try:
            return self._actions[name]
        except KeyError:
            raise RefusedError(
                f"looking up action {name!r}",
                "no action has that name",
                nearest(name, self._actions) or f"Known: {', '.join(self.names())}",
            ) from None


@cache
def installed() -> Catalogue:
    """The built-in actions and those of installed packages, as they were when they were first asked for."""
    from hmsdr.runbook.actions import BUILT_IN  # noqa: PLC0415 - keeps the drivers out of `runbook show` start-up

    return Catalogue([*BUILT_IN, *(point.load()() for point in entry_points(group=ENTRY_POINT))])
