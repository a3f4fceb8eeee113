"""What a region's cluster holds when a lab first starts: the objects of the hospital, from the layout. Data only."""

from __future__ import annotations

import platform
from typing import Any

from hmsdr.lab.kube import images, kinds
from hmsdr.lab.kube.heartbeat import NAMESPACE as LEASES_NAMESPACE
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.rules import POD_ROOM
from hmsdr.lab.kube.store import Object, now
from hmsdr.lab.layout import CLUSTER_DOMAIN, DATABASE, NAMESPACE, REGIONS, SERVICES, Layout, RegionLayout

_SERVICE_PORT = 8080
_ACTIVE_REPLICAS, _STANDBY_REPLICAS = 2, 1


def cluster(region: RegionLayout) -> list[tuple[Kind, Object]]:
    """What every cluster has: namespaces and its one node."""
    found: list[tuple[Kind, Object]] = [
        (kinds.NAMESPACES, {"metadata": {"name": name}, "spec": {}, "status": {"phase": "Active"}})
        for name in ("default", "kube-system", LEASES_NAMESPACE, NAMESPACE)
    ]
    name = f"node-{region.name}"
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/region": region.name}
    room = {"cpu": "8", "memory": "16Gi", "pods": str(POD_ROOM)}
    status = {
        "conditions": [condition],
        "addresses": [
            {"type": "InternalIP", "address": region.kubernetes.host},
            {"type": "Hostname", "address": name},
        ],
        "capacity": room,
        "allocatable": room,
        "nodeInfo": _node_info(),
    }
    return [
        *found,
        (kinds.NODES, {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status}),
    ]


def _node_info() -> dict[str, str]:
    system = platform.uname()
    names = ("machineID", "systemUUID", "bootID", "kubeProxyVersion")
    return dict.fromkeys(names, "") | {
        "kernelVersion": system.release,
        "osImage": system.system,
        "operatingSystem": "linux",
        "architecture": "arm64" if system.machine == "aarch64" else "amd64",
        "containerRuntimeVersion": "process://1",
        "kubeletVersion": "v1.32.0+hmsdr-lab",
    }


def hospital(layout: Layout, region: RegionLayout) -> list[tuple[Kind, Object]]:
    """The hospital's objects in one region."""
    found: list[tuple[Kind, Object]] = []
    for service in SERVICES:
        found += [
            (kinds.DEPLOYMENTS, _deployment(layout, region, service)),
            (kinds.SERVICES, _service(f"{service}-service", _SERVICE_PORT, "LoadBalancer", 80)),
        ]
    stores: tuple[tuple[str, str, int, dict[str, str]], ...] = (
        ("postgres", images.POSTGRES, region.postgres.port, {}),
        ("redis", images.REDIS, region.redis.port, _replica_of(layout, region)),
    )
    for store, image, port, env in stores:
        name = f"{store}-{region.ordinal_name}"
        found += [
            (kinds.STATEFULSETS, _statefulset(name, store, image, port, env)),
            (kinds.SERVICES, _service(name, port, "ClusterIP", port)),
        ]
    return [*found, (kinds.INGRESSES, _ingress())]


def _metadata(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": labels}


def _deployment(layout: Layout, region: RegionLayout, service: str) -> Object:
    name = f"{service}-service"
    labels = {"app": name}
    home = layout.regions[REGIONS[0]]
    # Both regions use the home region's stores until a failover points them at their own (DB-3, RD-2). Of the databases they know
    # both: when the primary moves, pods follow within milliseconds, and a new DATABASE_HOST is for those to come.
    env = {
        "HMS_SERVICE": service,
        "HMS_REGION": region.name,
        "DATABASE_HOST": f"postgres-{home.ordinal_name}.{CLUSTER_DOMAIN}",
        "DATABASE_HOSTS": ",".join(
            f"postgres-{each.ordinal_name}.{CLUSTER_DOMAIN}" for each in layout.regions.values()
        ),
        "DATABASE_PORT": str(home.postgres.port),
        "DATABASE_NAME": DATABASE,
        "DATABASE_USER": "hms_app",
        "REDIS_HOST": f"redis-{home.ordinal_name}.{CLUSTER_DOMAIN}",
        "REDIS_PORT": str(home.redis.port),
        "HMSDR_LAB_DNS": str(layout.dns),
    }
    container = {
        "name": service,
        "image": images.service_image(service),
        "ports": [{"name": "http", "containerPort": _SERVICE_PORT, "protocol": "TCP"}],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": _SERVICE_PORT, "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
    }
    spec = {
        "replicas": _ACTIVE_REPLICAS if region.name == home.name else _STANDBY_REPLICAS,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": _template(labels, container, grace_seconds=5),
    }
    return {"metadata": _metadata(name, labels), "spec": spec, "status": {}}


def _statefulset(name: str, store: str, image: str, port: int, env: dict[str, str]) -> Object:
    labels = {"app": name}
    container = {
        "name": store,
        "image": image,
        "ports": [{"containerPort": port, "protocol": "TCP"}],
        "env": [{"name": key, "value": value} for key, value in env.items()],
    }
    spec = {
        "replicas": 1,
        "serviceName": name,
        "selector": {"matchLabels": labels},
        "updateStrategy": {"type": "RollingUpdate"},
        "podManagementPolicy": "OrderedReady",
        "template": _template(labels, container, grace_seconds=30),
    }
    return {"metadata": _metadata(name, labels), "spec": spec, "status": {}}


def _template(labels: dict[str, str], container: Object, *, grace_seconds: int) -> Object:
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": grace_seconds,
        "restartPolicy": "Always",
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _service(name: str, target: int, kind: str, port: int) -> Object:
    spec = {
        "type": kind,
        "selector": {"app": name},
        "ports": [{"name": "main", "port": port, "targetPort": target, "protocol": "TCP"}],
    }
    return {"metadata": _metadata(name, {"app": name}), "spec": spec, "status": {}}


def _ingress() -> Object:
    paths = [
        {
            "path": f"/{service}-service",
            "pathType": "Prefix",
            "backend": {"service": {"name": f"{service}-service", "port": {"number": 80}}},
        }
        for service in SERVICES
    ]
    spec = {"ingressClassName": "lab", "rules": [{"http": {"paths": paths}}]}
    return {"metadata": _metadata("hms", {}), "spec": spec, "status": {}}


def _replica_of(layout: Layout, region: RegionLayout) -> dict[str, str]:
    home = layout.regions[REGIONS[0]]
    if region.name == home.name:
        return {}
    return {"REPLICAOF_HOST": home.redis.host, "REPLICAOF_PORT": str(home.redis.port)}
