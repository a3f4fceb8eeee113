"""What the fields of an object may say, once their types are right: ranges, names, what must be there. Pure.

What real Kubernetes would carry out and the lab does not is a problem too: nothing is ever an empty success.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hmsdr.lab.kube import images, kinds
from hmsdr.lab.kube.kinds import Kind

POD_ROOM = 151
"""Pods that a region's node has room, that is addresses, for."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV_NAME = re.compile(r"[ -<>-~]+")
_SHARE = re.compile(r"[0-9]{1,3}%")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LONGEST_LABEL, _LONGEST_NAME, _HIGHEST_PORT = 63, 253, 65535
_FIELDS = frozenset({"status.podIP", "metadata.name", "metadata.namespace"})
"""What a variable of a container may take from its pod."""
_NOT_SUPPORTED = "Forbidden: not supported by the lab"
_ONE = "Forbidden: more than one is not supported by the lab"


class Problem(NamedTuple):
    """One field, and what is wrong with it."""

    field: str
    message: str


Problems = Iterator[Problem]


def problems(kind: Kind, item: dict[str, Any]) -> list[Problem]:
    """What is wrong with an object whose types are right."""
    found = list(_metadata(kind, item.get("metadata") or {}))
    rule = _RULES.get(kind.plural)
    return found + (list(rule(item)) if rule else [])


def change_problems(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    """What of a change is not allowed."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if kind is kinds.PODS and before != after:
        return [Problem("spec", "Forbidden: pod updates may not change it (delete the pod, and create it)")]
    if kind in {kinds.DEPLOYMENTS, kinds.STATEFULSETS} and before.get("selector") != after.get("selector"):
        return [Problem("spec.selector", "Invalid value: field is immutable")]
    if kind is kinds.STATEFULSETS and before.get("serviceName") != after.get("serviceName"):
        return [Problem("spec.serviceName", "Forbidden: field is immutable")]
    if kind in {kinds.CONFIGMAPS, kinds.SECRETS} and old.get("immutable"):
        parts = ("data", "binaryData", "immutable")
        if any(old.get(part) != new.get(part) for part in parts):
            return [Problem("data", "Forbidden: field is immutable when `immutable` is set")]
    return []


def _metadata(kind: Kind, metadata: dict[str, Any]) -> Problems:
    pattern, longest, word = _SUBDOMAIN, _LONGEST_NAME, "subdomain"
    if kind in {kinds.NAMESPACES, kinds.STATEFULSETS}:
        pattern, longest, word = _LABEL, _LONGEST_LABEL, "label"
    elif kind is kinds.SERVICES:
        pattern, longest, word = _SERVICE_NAME, _LONGEST_LABEL, "label that starts with a letter"
    yield from _name("metadata.name", metadata.get("name"), pattern, longest, word)
    yield from _labels("metadata", metadata)
    if metadata.get("finalizers"):
        yield Problem("metadata.finalizers", _NOT_SUPPORTED)


def _name(field: str, value: Any, pattern: re.Pattern[str], longest: int, word: str) -> Problems:
    if not value:
        yield Problem(field, f"Required value: a lowercase RFC 1123 {word}")
    elif len(value) > longest:
        yield Problem(field, f"Too long: may not be more than {longest} bytes")
    elif not pattern.fullmatch(value):
        yield Problem(
            field,
            f'Invalid value: "{value}": a lowercase RFC 1123 {word} must consist of lower case alphanumeric '
            "characters or '-', and must start and end with an alphanumeric character",
        )


def _labels(at: str, metadata: dict[str, Any]) -> Problems:
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label(f"{at}.labels", key, value)
    for key in metadata.get("annotations") or {}:
        yield from _label(f"{at}.annotations", key, "")


def _label(field: str, key: str, value: str) -> Problems:
    prefix, slash, name = key.rpartition("/")
    named = len(name) <= _LONGEST_LABEL and _QUALIFIED.fullmatch(name)
    placed = not slash or (len(prefix) <= _LONGEST_NAME and _SUBDOMAIN.fullmatch(prefix))
    if not named or not placed:
        yield Problem(field, f'Invalid value: "{key[:80]}": not a qualified name')
    if len(value) > _LONGEST_LABEL or (value and not _QUALIFIED.fullmatch(value)):
        yield Problem(field, f'Invalid value: "{value[:80]}": not a valid label value')


def _at_least(at: str, holder: dict[str, Any], names: tuple[str, ...], least: int) -> Problems:
    for name in names:
        if holder.get(name, least) < least:
            yield Problem(
                f"{at}.{name}",
                f"Invalid value: {holder[name]}: must be greater than or equal to {least}",
            )


def _one_of(
    field: str, value: str | None, allowed: tuple[str, ...], lacking: tuple[str, ...] = ()
) -> Problems:
    if value in lacking:
        yield Problem(field, f'Forbidden: "{value}" is not supported by the lab')
    elif value is not None and value not in allowed:
        yield Problem(field, f'Unsupported value: "{value}": supported values: {", ".join(allowed)}')


def _lacking(at: str, holder: dict[str, Any], names: str) -> Problems:
    for name in names.split():
        if holder.get(name):
            yield Problem(f"{at}.{name}", _NOT_SUPPORTED)


def _port(field: str, value: Any) -> Problems:
    if isinstance(value, int) and not 1 <= value <= _HIGHEST_PORT:
        yield Problem(field, f"Invalid value: {value}: must be between 1 and {_HIGHEST_PORT}, inclusive")


def _pod(item: dict[str, Any]) -> Problems:
    yield from _pod_spec("spec", item.get("spec") or {})


def _pod_spec(at: str, spec: dict[str, Any]) -> Problems:
    containers = spec.get("containers") or []
    if not containers:
        yield Problem(f"{at}.containers", "Required value")
    if len(containers) > 1:
        yield Problem(f"{at}.containers", _ONE)
    for index, container in enumerate(containers):
        yield from _container(f"{at}.containers[{index}]", container)
    yield from _at_least(at, spec, ("terminationGracePeriodSeconds",), 0)
    yield from _one_of(f"{at}.restartPolicy", spec.get("restartPolicy"), ("Always",), ("OnFailure", "Never"))
    yield from _lacking(
        at,
        spec,
        "activeDeadlineSeconds ephemeralContainers initContainers readinessGates schedulingGates volumes",
    )


def _container(at: str, container: dict[str, Any]) -> Problems:
    yield from _name(f"{at}.name", container.get("name"), _LABEL, _LONGEST_LABEL, "label")
    if not container.get("image"):
        yield Problem(f"{at}.image", "Required value")
    yield from _lacking(
        at, container, "envFrom lifecycle livenessProbe startupProbe volumeDevices volumeMounts workingDir"
    )
    for index, entry in enumerate(container.get("env") or []):
        yield from _env(f"{at}.env[{index}]", entry)
    for index, port in enumerate(container.get("ports") or []):
        if "containerPort" not in port:
            yield Problem(f"{at}.ports[{index}].containerPort", "Required value")
        yield from _port(f"{at}.ports[{index}].containerPort", port.get("containerPort"))
    if container.get("readinessProbe"):
        yield from _probe(f"{at}.readinessProbe", container["readinessProbe"], container.get("ports") or [])


def _env(at: str, entry: dict[str, Any]) -> Problems:
    if not _ENV_NAME.fullmatch(entry.get("name") or ""):
        yield Problem(f"{at}.name", "Invalid value: must be printable ASCII characters other than '='")
    if "\0" in entry.get("value", ""):
        yield Problem(f"{at}.value", "Invalid value: must not contain NUL")
    source = entry.get("valueFrom") or {}
    yield from _lacking(f"{at}.valueFrom", source, "configMapKeyRef secretKeyRef resourceFieldRef fileKeyRef")
    if "fieldRef" in source and source["fieldRef"].get("fieldPath") not in _FIELDS:
        allowed = ", ".join(sorted(_FIELDS))
        yield Problem(f"{at}.valueFrom.fieldRef.fieldPath", f"Unsupported value: the lab supports {allowed}")


def _probe(at: str, probe: dict[str, Any], ports: list[Any]) -> Problems:
    yield from _lacking(at, probe, "exec grpc tcpSocket")
    yield from _at_least(at, probe, ("periodSeconds", "timeoutSeconds", "failureThreshold"), 1)
    get = probe.get("httpGet")
    if not get:
        yield Problem(f"{at}.httpGet", "Required value")
        return
    port = get.get("port")
    if port is None:
        yield Problem(f"{at}.httpGet.port", "Required value")
    elif isinstance(port, str) and port not in {entry.get("name") for entry in ports}:
        yield Problem(f"{at}.httpGet.port", f'Invalid value: "{port[:80]}": the container has no such port')
    yield from _port(f"{at}.httpGet.port", port)
    yield from _one_of(f"{at}.httpGet.scheme", get.get("scheme"), ("HTTP",), ("HTTPS",))
    yield from _lacking(f"{at}.httpGet", get, "httpHeaders")
    if not get.get("path", "/").startswith("/"):
        yield Problem(f"{at}.httpGet.path", "Invalid value: must begin with '/'")


def _workload(spec: dict[str, Any]) -> Problems:
    selector, template = spec.get("selector") or {}, spec.get("template") or {}
    wanted = selector.get("matchLabels") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    yield from _lacking("spec.selector", selector, "matchExpressions")
    if not wanted:
        yield Problem("spec.selector", "Required value")
    elif not wanted.items() <= labels.items():
        yield Problem(
            "spec.template.metadata.labels", "Invalid value: `selector` does not match template `labels`"
        )
    yield from _labels("spec.template.metadata", template.get("metadata") or {})
    yield from _pod_spec("spec.template.spec", template.get("spec") or {})
    yield from replicas(spec.get("replicas", 1), template)
    yield from _lacking("spec", spec, "minReadySeconds")


def replicas(wanted: int, template: dict[str, Any]) -> Problems:
    """What is wrong with this number of pods made from `template`."""
    yield from _at_least("spec", {"replicas": wanted}, ("replicas",), 0)
    if wanted > POD_ROOM:
        yield Problem("spec.replicas", f"Invalid value: {wanted}: the lab's node has room for {POD_ROOM}")
    alone = [
        container.get("image", "")
        for container in (template.get("spec") or {}).get("containers") or []
        if images.host_network(container.get("image", ""))
    ]
    if wanted > 1 and alone:
        yield Problem(
            "spec.replicas",
            f"Invalid value: {wanted}: the lab runs one {alone[0]} in a region, at the region's one address",
        )


def _deployment(item: dict[str, Any]) -> Problems:
    spec = item.get("spec") or {}
    yield from _workload(spec)
    strategy = spec.get("strategy") or {}
    yield from _one_of("spec.strategy.type", strategy.get("type"), ("Recreate", "RollingUpdate"))
    for name, value in (strategy.get("rollingUpdate") or {}).items():
        counts = isinstance(value, int) and value >= 0
        if not counts and not (isinstance(value, str) and _SHARE.fullmatch(value)):
            yield Problem(
                f"spec.strategy.rollingUpdate.{name}",
                "Invalid value: must be a number from 0 or a percentage (e.g. '25%')",
            )


def _statefulset(item: dict[str, Any]) -> Problems:
    spec = item.get("spec") or {}
    yield from _workload(spec)
    update = spec.get("updateStrategy") or {}
    yield from _one_of("spec.updateStrategy.type", update.get("type"), ("RollingUpdate",), ("OnDelete",))
    yield from _lacking("spec.updateStrategy.rollingUpdate", update.get("rollingUpdate") or {}, "partition")
    policy = spec.get("podManagementPolicy")
    yield from _one_of("spec.podManagementPolicy", policy, ("OrderedReady",), ("Parallel",))
    yield from _lacking("spec", spec, "volumeClaimTemplates ordinals")


def _service(item: dict[str, Any]) -> Problems:
    spec = item.get("spec") or {}
    lacking = ("NodePort", "ExternalName")
    yield from _one_of("spec.type", spec.get("type"), ("ClusterIP", "LoadBalancer"), lacking)
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        yield Problem("spec.ports", "Required value")
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        if "port" not in port:
            yield Problem(f"{at}.port", "Required value")
        yield from _port(f"{at}.port", port.get("port"))
        yield from _port(f"{at}.targetPort", port.get("targetPort"))
        yield from _one_of(f"{at}.protocol", port.get("protocol"), ("TCP",), ("UDP", "SCTP"))
    for key, value in (spec.get("selector") or {}).items():
        yield from _label("spec.selector", key, value)


def _ingress(item: dict[str, Any]) -> Problems:
    spec = item.get("spec") or {}
    if not spec.get("rules") and not spec.get("defaultBackend"):
        yield Problem("spec", "Invalid value: either `defaultBackend` or `rules` must be specified")
    for number, rule in enumerate(spec.get("rules") or []):
        for index, path in enumerate((rule.get("http") or {}).get("paths") or []):
            at = f"spec.rules[{number}].http.paths[{index}]"
            if not path.get("backend"):
                yield Problem(f"{at}.backend", "Required value")
            allowed = ("Exact", "ImplementationSpecific", "Prefix")
            yield from _one_of(f"{at}.pathType", path.get("pathType") or "", allowed)


def _node(item: dict[str, Any]) -> Problems:
    if (item.get("spec") or {}).get("taints"):
        yield Problem("spec.taints", f"{_NOT_SUPPORTED} (cordon is)")


def _configmap(item: dict[str, Any]) -> Problems:
    for part in ("data", "binaryData"):
        for key in item.get(part) or {}:
            if not _CONFIG_KEY.fullmatch(key):
                yield Problem(f"{part}[{key[:80]}]", "Invalid value: a valid config key must consist of "
                              "alphanumeric characters, '-', '_' or '.'")  # fmt: skip


def _secret(item: dict[str, Any]) -> Problems:
    yield from _configmap(item)
    for key, value in (item.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            yield Problem(f"data[{key[:80]}]", "Invalid value: illegal base64 data")


_RULES: dict[str, Callable[[dict[str, Any]], Problems]] = {
    "pods": _pod,
    "deployments": _deployment,
    "statefulsets": _statefulset,
    "services": _service,
    "ingresses": _ingress,
    "nodes": _node,
    "configmaps": _configmap,
    "secrets": _secret,
}
