"""Which service a request is for: hosts, prefixes by segment, exact paths, the default, other classes."""

from __future__ import annotations

from typing import Any

import pytest

from hmsdr.lab.hms.ingress.routes import Routes


def entry(path: str, service: str, kind: str = "Prefix") -> dict[str, Any]:
    return {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}


def ingress(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"rules": list(rules), **spec}}


def learned(*items: dict[str, Any]) -> Routes:
    routes = Routes()
    routes.replace(items)
    return routes


MANY = learned(
    ingress("a", {"http": {"paths": [entry("/a", "prefix"), entry("/a/b", "longer"), entry("/a", "exact", "Exact")]}}),
    ingress("b", {"host": "lab.example", "http": {"paths": [entry("/", "host")]}}),
    ingress("c", {"host": "*.example.org", "http": {"paths": [entry("/a", "wild")]}}),
    ingress("d", {"http": {"paths": [entry("/other", "other")]}}, ingressClassName="nginx"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        ("x", "/a", "exact"),
        ("x", "/a/", "prefix"),
        ("x", "/a/c", "prefix"),
        ("x:8080", "/a/b/c", "longer"),
        ("x", "/ab", None),
        ("x", "/", None),
        ("x", "/other", None),
        ("Lab.Example:80", "/a/b", "host"),
        ("one.example.org", "/a/b", "wild"),
        ("two.one.example.org", "/a/b", "longer"),
        ("example.org", "/a/c", "prefix"),
    ],
)
def test_of_all_that_match_the_nearest_is_meant(host: str, path: str, service: str | None) -> None:
    assert MANY.service(host, path) == service


def test_changes_take_effect_and_the_default_takes_the_rest() -> None:
    routes = learned()
    assert routes.learned
    assert routes.service("x", "/a") is None
    routes.change(False, ingress("a", {"http": {"paths": [entry("/a", "one")]}}))
    routes.change(False, ingress("z", defaultBackend={"service": {"name": "rest", "port": {"number": 80}}}))
    assert (routes.service("x", "/a"), routes.service("x", "/b"), routes.paths()) == ("one", "rest", ["/a"])
    routes.change(False, ingress("a", {"http": {"paths": [entry("/a", "two")]}}))
    assert routes.service("x", "/a") == "two"
    routes.change(True, ingress("a"))
    routes.change(True, ingress("z"))
    assert routes.service("x", "/a") is None
