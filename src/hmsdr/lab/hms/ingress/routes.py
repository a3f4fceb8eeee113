"""Which service a request is for, as the region's Ingress objects say. Pure: it is told of them, and asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLASS = "lab"
"""The class of ingresses that are carried out here; one that names none is, too."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path of one rule. An empty `host` means every host; ``*.x`` any one label before x."""

    host: str
    path: str
    exact: bool
    service: str

    def weight(self) -> tuple[bool, bool, int, bool]:
        """Of several that match, the heaviest is meant: a host before any, an exact path, the longest one."""
        return bool(self.host), not self.host.startswith("*"), len(self.path), self.exact

    def matches(self, host: str, path: str) -> bool:
        """Whether a request for `path` at `host` is meant; a prefix ends where a segment ends."""
        if self.host and self.host != host:
            first, _, rest = host.partition(".")
            if not (self.host.startswith("*.") and first and rest == self.host[2:]):
                return False
        if self.exact:
            return path == self.path
        prefix = self.path.rstrip("/")
        return path == prefix or path.startswith(f"{prefix}/")


class Routes:
    """The routes of all ingresses, by ingress."""

    def __init__(self) -> None:
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._defaults: dict[str, str] = {}
        self.learned = False
        """Whether the API has ever been heard."""

    def replace(self, items: Sequence[Mapping[str, Any]]) -> None:
        """All that there is, after a list."""
        self._routes, self._defaults = {}, {}
        for item in items:
            self._put(item)
        self.learned = True

    def change(self, deleted: bool, item: Mapping[str, Any]) -> None:
        """One ingress is there, or has gone."""
        name = str(item["metadata"]["name"])
        self._routes.pop(name, None)
        self._defaults.pop(name, None)
        if not deleted:
            self._put(item)

    def service(self, host: str, path: str) -> str | None:
        """The service that a request for `path` at `host` (with or without a port) is for; None: nobody's."""
        bare = host.lower().partition(":")[0]
        fit = [each for routes in self._routes.values() for each in routes if each.matches(bare, path)]
        if fit:
            return max(fit, key=Route.weight).service
        return next(iter(self._defaults.values()), None)

    def paths(self) -> list[str]:
        """What is routed, for people."""
        return sorted({each.path for routes in self._routes.values() for each in routes})

    def _put(self, item: Mapping[str, Any]) -> None:
        spec = item.get("spec") or {}
        if spec.get("ingressClassName", CLASS) != CLASS:
            return
        name = str(item["metadata"]["name"])
        self._routes[name] = tuple(
            Route(
                str(rule.get("host") or "").lower(),
                str(path.get("path") or "/"),
                path.get("pathType") == "Exact",
                _service(path.get("backend")),
            )
            for rule in spec.get("rules") or ()
            for path in (rule.get("http") or {}).get("paths") or ()
            if _service(path.get("backend"))
        )
        if default := _service(spec.get("defaultBackend")):
            self._defaults[name] = default


def _service(backend: Mapping[str, Any] | None) -> str:
    return str(((backend or {}).get("service") or {}).get("name") or "")
