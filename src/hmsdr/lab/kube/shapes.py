"""The shape of each kind that may be written: every field that Kubernetes has, typed as far as the lab looks at it. Data only.

A part of type ANY or OBJECT is taken as it is; every field that the controllers, the kubelet or a table reads has its type.
"""

from __future__ import annotations

from typing import Any

from hmsdr.lab.kube.shape import ANY, BOOL, INT32, INT64, INT_OR_STRING, OBJECT, OPEN, STRING, Map, Shape


def _any(names: str) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), ANY)


_STRINGS = Map(STRING)
_OWNER = {
    "apiVersion": STRING,
    "kind": STRING,
    "name": STRING,
    "uid": STRING,
    "controller": BOOL,
    "blockOwnerDeletion": BOOL,
}
METADATA: dict[str, Shape] = {
    **dict.fromkeys(("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"), STRING),
    **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), STRING),
    "generation": INT64,
    "deletionGracePeriodSeconds": INT64,
    "labels": _STRINGS,
    "annotations": _STRINGS,
    "ownerReferences": [_OWNER],
    "finalizers": [STRING],
    "managedFields": ANY,
}
_CONDITIONS = [{"type": STRING, "status": STRING, "reason": STRING, OPEN: ANY}]
_SELECTOR = {"matchLabels": _STRINGS, "matchExpressions": [OBJECT]}

_PROBE = {
    "httpGet": {
        "path": STRING,
        "port": INT_OR_STRING,
        "host": STRING,
        "scheme": STRING,
        "httpHeaders": [OBJECT],
    },
    **dict.fromkeys(
        ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"),
        INT32,
    ),
    "terminationGracePeriodSeconds": INT64,
    **_any("exec tcpSocket grpc"),
}
_ENV = {
    "name": STRING,
    "value": STRING,
    "valueFrom": {
        "fieldRef": {"apiVersion": STRING, "fieldPath": STRING},
        **_any("configMapKeyRef secretKeyRef resourceFieldRef fileKeyRef"),
    },
}
_CONTAINER: dict[str, Shape] = {
    **dict.fromkeys(("name", "image", "workingDir", "imagePullPolicy", "restartPolicy"), STRING),
    "command": [STRING],
    "args": [STRING],
    "env": [_ENV],
    "ports": [
        {"name": STRING, "containerPort": INT32, "hostPort": INT32, "hostIP": STRING, "protocol": STRING}
    ],
    "readinessProbe": _PROBE,
    **_any("envFrom livenessProbe startupProbe lifecycle resources resizePolicy restartPolicyRules"),
    **_any("securityContext stdin stdinOnce tty terminationMessagePath terminationMessagePolicy"),
    **_any("volumeDevices volumeMounts"),
}
_POD_SPEC: dict[str, Shape] = {
    "containers": [_CONTAINER],
    "nodeName": STRING,
    "nodeSelector": _STRINGS,
    "restartPolicy": STRING,
    "terminationGracePeriodSeconds": INT64,
    **_any("activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig dnsPolicy"),
    **_any("enableServiceLinks ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers"),
    **_any("hostname hostnameOverride imagePullSecrets initContainers os overhead preemptionPolicy"),
    **_any("priority priorityClassName readinessGates resourceClaims resources runtimeClassName"),
    **_any("schedulerName schedulingGates securityContext serviceAccount serviceAccountName"),
    **_any("setHostnameAsFQDN shareProcessNamespace subdomain tolerations topologySpreadConstraints volumes"),
}
_TEMPLATE = {"metadata": METADATA, "spec": _POD_SPEC}
_POD_STATUS = {
    "phase": STRING,
    "podIP": STRING,
    "conditions": _CONDITIONS,
    "containerStatuses": [
        {
            "restartCount": INT32,
            "ready": BOOL,
            "state": Map(OBJECT),
            "lastState": Map(OBJECT),
            OPEN: ANY,
        }
    ],
    OPEN: ANY,
}
_ROLLING = {"maxSurge": INT_OR_STRING, "maxUnavailable": INT_OR_STRING}
_DEPLOYMENT = {
    "replicas": INT32,
    "selector": _SELECTOR,
    "template": _TEMPLATE,
    "strategy": {"type": STRING, "rollingUpdate": _ROLLING},
    "paused": BOOL,
    **dict.fromkeys(("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"), INT32),
}
_STATEFULSET = {
    "replicas": INT32,
    "selector": _SELECTOR,
    "template": _TEMPLATE,
    "serviceName": STRING,
    "podManagementPolicy": STRING,
    "updateStrategy": {
        "type": STRING,
        "rollingUpdate": {"partition": INT32, "maxUnavailable": INT_OR_STRING},
    },
    **dict.fromkeys(("minReadySeconds", "revisionHistoryLimit"), INT32),
    **_any("volumeClaimTemplates persistentVolumeClaimRetentionPolicy ordinals"),
}
_PORT = {
    **dict.fromkeys(("name", "protocol", "appProtocol"), STRING),
    "port": INT32,
    "targetPort": INT_OR_STRING,
    "nodePort": INT32,
}
_SERVICE = {
    "type": STRING,
    "selector": _STRINGS,
    "ports": [_PORT],
    "clusterIP": STRING,
    **_any("allocateLoadBalancerNodePorts clusterIPs externalIPs externalName externalTrafficPolicy"),
    **_any("healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass"),
    **_any("loadBalancerIP loadBalancerSourceRanges publishNotReadyAddresses sessionAffinity"),
    **_any("sessionAffinityConfig trafficDistribution"),
}
_BACKEND = {
    "service": {"name": STRING, "port": {"name": STRING, "number": INT32}},
    "resource": OBJECT,
}
_RULE = {
    "host": STRING,
    "http": {"paths": [{"path": STRING, "pathType": STRING, "backend": _BACKEND}]},
}
_INGRESS = {
    "ingressClassName": STRING,
    "defaultBackend": _BACKEND,
    "tls": [{"hosts": [STRING], "secretName": STRING}],
    "rules": [_RULE],
}
_LEASE = {
    **dict.fromkeys(("holderIdentity", "acquireTime", "renewTime", "strategy", "preferredHolder"), STRING),
    "leaseDurationSeconds": INT32,
    "leaseTransitions": INT32,
}
_NODE = {
    "unschedulable": BOOL,
    "taints": [OBJECT],
    **_any("configSource externalID podCIDR podCIDRs providerID"),
}
_NODE_STATUS = {
    "conditions": _CONDITIONS,
    "addresses": [{"type": STRING, "address": STRING}],
    "nodeInfo": Map(STRING),
    OPEN: ANY,
}
_BALANCED = {"loadBalancer": {"ingress": [{"ip": STRING, "hostname": STRING, OPEN: ANY}]}, OPEN: ANY}
_SCALED = {
    "conditions": _CONDITIONS,
    **dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), INT32),
    OPEN: ANY,
}


def _kind(spec: Shape, status: Shape = OBJECT) -> dict[str, Shape]:
    return {"apiVersion": STRING, "kind": STRING, "metadata": METADATA, "spec": spec, "status": status}


SHAPES: dict[str, dict[str, Any]] = {
    "pods": _kind(_POD_SPEC, _POD_STATUS),
    "deployments": _kind(_DEPLOYMENT, _SCALED),
    "statefulsets": _kind(_STATEFULSET, _SCALED),
    "services": _kind(_SERVICE, _BALANCED),
    "ingresses": _kind(_INGRESS, _BALANCED),
    "namespaces": _kind({"finalizers": [STRING]}, {"phase": STRING, OPEN: ANY}),
    "nodes": _kind(_NODE, _NODE_STATUS),
    "leases": {"apiVersion": STRING, "kind": STRING, "metadata": METADATA, "spec": _LEASE},
    "configmaps": {
        "apiVersion": STRING,
        "kind": STRING,
        "metadata": METADATA,
        "data": _STRINGS,
        "binaryData": _STRINGS,
        "immutable": BOOL,
    },
    "secrets": {
        **dict.fromkeys(("apiVersion", "kind", "type"), STRING),
        "metadata": METADATA,
        "data": _STRINGS,
        "immutable": BOOL,
    },
    # What the controllers alone write; the shape is for what is read back from disk.
    "events": {
        "metadata": METADATA,
        "involvedObject": {"uid": STRING, "kind": STRING, "name": STRING, OPEN: ANY},
        **dict.fromkeys(("reason", "message", "type", "lastTimestamp"), STRING),
        "count": INT32,
        OPEN: ANY,
    },
    "endpoints": {"metadata": METADATA, "subsets": [OBJECT], OPEN: ANY},
    "endpointslices": {"metadata": METADATA, "endpoints": [OBJECT], "ports": [OBJECT], OPEN: ANY},
}
SCALE: dict[str, Any] = _kind({"replicas": INT32})
