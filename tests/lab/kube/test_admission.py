"""What may be written: any JSON at all is an object that can be carried out, or a refusal; without a server."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cluster import deployment, layout_in
from hypothesis import given, settings
from hypothesis import strategies as st

from hmsdr.lab.kube import admission, kinds, manifests, patch
from hmsdr.lab.kube.controllers import Controllers
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.shapes import SHAPES
from hmsdr.lab.kube.status import ApiError
from hmsdr.lab.kube.store import Object, Store, key_of
from hmsdr.lab.kube.tables import table
from hmsdr.lab.layout import REGIONS, Layout

HOME = "hms-system"
WRITTEN = [kind for kind in kinds.KINDS if kind.plural not in kinds.READ_ONLY]
PATCHES = [f"application/{way}+json" for way in ("strategic-merge-patch", "merge-patch", "json-patch")]
REFUSED = {400, 403, 404, 409, 422, 501}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return layout_in(tmp_path_factory.mktemp("lab"))


def cluster(layout: Layout) -> Store:
    """A whole region's objects, as a lab begins."""
    store, region = Store(), layout.regions[REGIONS[0]]
    for kind, item in manifests.cluster(region) + manifests.hospital(layout, region):
        store.create(kind, item)
    return store


def words(shape: Any) -> set[str]:
    """Every field's name, so that what is made up comes near to what is real."""
    if isinstance(shape, dict):
        return set(shape).union(*(words(inner) for inner in shape.values()))
    return words(shape[0]) if isinstance(shape, list) else set()


NAMES = st.sampled_from(sorted(set().union(*(words(shape) for shape in SHAPES.values())))) | st.text(
    max_size=5
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-1, 4)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["two", "25%", "Recreate", "LoadBalancer", "Always", "note", HOME, "patient-service", "http"]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of each part of it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, part in inner for path in paths(part, (*at, key)))]


def spoiled(item: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    item = copy.deepcopy(item)
    place = item
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = junk
    return item


def carried_out(store: Store, layout: Layout) -> None:
    """The controllers meet no trouble, every table can be drawn, and all of it can be read back from disk."""
    region = layout.regions[REGIONS[0]]
    controllers = Controllers(store, region)
    for _ in range(3):
        controllers.reconcile()
    told = [event for event in store.all(kinds.EVENTS) if event["reason"] == "ReconcileError"]
    assert not told, told[0]["message"]
    for kind in kinds.KINDS:
        items = store.all(kind)
        json.dumps(table(kind, items, "1"), allow_nan=False)
        for item in items:
            admission.check_stored(kind, json.loads(json.dumps(item)))


def attempt(store: Store, layout: Layout, kind: Kind, name: str | None, body: Any) -> None:
    """Create, or replace `name`; refused it changes nothing, and else it is carried out."""
    before = store.revision
    namespace = HOME if kind.namespaced else None
    try:
        body = admission.decode(json.dumps(body).encode())
        if name is None:
            store.create(kind, admission.created(store, kind, namespace, None, body).item)
        else:
            store.replace(kind, admission.replaced(store, kind, namespace, name, body).item)
    except ApiError as error:
        assert error.code in REFUSED
        json.dumps(error.body())
        assert store.revision == before
    else:
        carried_out(store, layout)


@given(st.sampled_from(WRITTEN), ANYTHING)
@settings(max_examples=150, deadline=None)
def test_anything_at_all_is_carried_out_or_refused(layout: Layout, kind: Kind, body: Any) -> None:
    attempt(cluster(layout), layout, kind, None, body)


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_a_real_object_with_one_part_spoiled_is_carried_out_or_refused(layout: Layout, data: Any) -> None:
    store = cluster(layout)
    kind = data.draw(st.sampled_from([kind for kind in WRITTEN if store.all(kind)]))
    item = data.draw(st.sampled_from(store.all(kind)))
    body = spoiled(item, data.draw(st.sampled_from(paths(item))), data.draw(ANYTHING))
    if data.draw(st.booleans()) and isinstance(body, dict) and isinstance(body.get("metadata"), dict):
        body["metadata"]["name"] = "another"
        attempt(store, layout, kind, None, body)
    else:
        attempt(store, layout, kind, key_of(item)[1], body)


@given(st.data(), st.sampled_from(PATCHES))
@settings(max_examples=250, deadline=None)
def test_any_patch_is_carried_out_or_refused(layout: Layout, data: Any, way: str) -> None:
    store = cluster(layout)
    kind = data.draw(st.sampled_from([kind for kind in WRITTEN if store.all(kind)]))
    old = data.draw(st.sampled_from(store.all(kind)))
    path, junk = data.draw(st.sampled_from(paths(old))), data.draw(ANYTHING)
    change = junk
    if data.draw(st.booleans()):
        pointer = "".join(f"/{step}" for step in path)
        change = [{"op": "replace", "path": pointer, "value": junk}] if "json-patch" in way else junk
        for step in reversed(path if "json-patch" not in way else ()):
            change = {step: change} if isinstance(step, str) else [change]
    before = store.revision
    try:
        store.replace(kind, admission.patched(way, kind, old, change).item)
    except ApiError as error:
        assert error.code in REFUSED
        assert store.revision == before
    else:
        carried_out(store, layout)


@given(ANYTHING, ANYTHING, st.sampled_from(PATCHES))
def test_a_patch_of_anything_is_an_answer_or_a_refusal(item: Any, change: Any, way: str) -> None:
    before = copy.deepcopy(item)
    try:
        patch.apply(way, item, change)
    except ApiError as error:
        assert error.code == 422
    assert item == before


@given(ANYTHING)
def test_any_scale_is_carried_out_or_refused(scale: Any) -> None:
    old: Object = {"metadata": {"name": "x"}, "spec": {"replicas": 1}}
    try:
        assert 0 <= admission.scaled(old, scale)["spec"]["replicas"] <= 151
    except ApiError as error:
        assert error.code in REFUSED


@given(ANYTHING, st.sampled_from(kinds.KINDS))
def test_anything_on_disk_is_an_object_or_a_clear_no(item: Any, kind: Kind) -> None:
    try:
        found = admission.check_stored(kind, item)
    except ValueError:
        return
    assert found["metadata"]["uid"]


def refusal(store: Store, kind: Kind, body: Any, validation: str = "", home: str = HOME) -> ApiError:
    with pytest.raises(ApiError) as caught:
        admission.created(store, kind, home if kind.namespaced else None, None, body, validation)
    return caught.value


def test_a_refusal_names_the_field(layout: Layout, tmp_path: Path) -> None:
    store, good = cluster(layout), deployment(tmp_path, name="other")
    told = refusal(store, kinds.DEPLOYMENTS, spoiled(good, ("spec", "replicas"), "two"))
    assert (told.code, told.reason) == (400, "BadRequest")
    assert str(told) == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string '
        "into Go struct field Deployment.spec.replicas of type int32"
    )
    container = ("spec", "template", "spec", "containers", 0)
    cases: list[tuple[tuple[Any, ...], Any, int, str]] = [
        (("spec", "replicas"), -1, 422, "spec.replicas: Invalid value: -1"),
        (("spec", "replicas"), 2**31, 400, "spec.replicas of type int32"),
        (("spec", "replicas"), 152, 422, "has room for 151"),
        (("spec", "replicas"), True, 400, "cannot unmarshal bool"),
        (("spec", "strategy"), {"rollingUpdate": {"maxSurge": "x"}}, 422, "rollingUpdate.maxSurge"),
        (("spec", "template", "spec", "containers"), [], 422, "spec.template.spec.containers: Required"),
        (("spec", "template", "metadata", "labels"), {"app": "no"}, 422, "does not match template"),
        ((*container, "livenessProbe"), {"exec": {}}, 422, "livenessProbe: Forbidden: not supported by the lab"),
        ((*container, "env"), [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x"}}}], 422, "secretKeyRef"),
        ((*container, "readinessProbe"), {"httpGet": {"port": "web"}}, 422, "has no such port"),
        (("metadata", "name"), "Not_A_Name", 422, "metadata.name: Invalid value"),
        (("metadata", "name"), "../../x", 422, "metadata.name: Invalid value"),
        (("metadata", "labels"), {"a b": "c"}, 422, "metadata.labels: Invalid value"),
        (("metadata", "namespace"), "default", 400, "does not match the namespace on the request"),
        (("kind",), "Pod", 400, "does not match the expected kind"),
    ]  # fmt: skip
    for path, junk, code, words_ in cases:
        junk_free = refusal(store, kinds.DEPLOYMENTS, spoiled(good, path, junk))
        assert (junk_free.code, words_ in str(junk_free)) == (code, True), str(junk_free)
    admission.created(store, kinds.DEPLOYMENTS, HOME, None, good)


def test_unknown_fields_are_refused_when_asked_for_and_else_left_out_and_told(layout: Layout) -> None:
    store, body = cluster(layout), {"metadata": {"name": "note"}, "dat": {"a": "b"}, "data": {"a": "b"}}
    assert 'strict decoding error: unknown field "dat"' in str(
        refusal(store, kinds.CONFIGMAPS, body, "Strict")
    )
    made = admission.created(store, kinds.CONFIGMAPS, HOME, None, body)
    assert made.unknown == ("dat",)
    assert made.item["data"] == {"a": "b"}
    assert "dat" not in made.item
    assert "data.a of type string" in str(refusal(store, kinds.CONFIGMAPS, body | {"data": {"a": 1}}))
    assert refusal(store, kinds.CONFIGMAPS, body, home="nowhere").code == 404


def test_nesting_without_end_is_refused() -> None:
    for deep in (60, 100_000):
        with pytest.raises(ApiError, match="body is not"):
            admission.decode(b'{"a":' + b"[" * deep + b"]" * deep + b"}")
    with pytest.raises(ApiError, match="NaN"):
        admission.decode(b'{"a": NaN}')


def test_one_object_that_cannot_be_carried_out_holds_up_no_other(layout: Layout) -> None:
    store = cluster(layout)
    for kind, name in ((kinds.DEPLOYMENTS, "auth-service"), (kinds.SERVICES, "auth-service")):
        bad = store.get(kind, HOME, name)
        bad["spec"] = {"replicas": "two", "selector": [1], "template": 5}
        store.replace(kind, bad)
    controllers = Controllers(store, layout.regions[REGIONS[0]])
    revisions = []
    for _ in range(4):
        controllers.reconcile()
        revisions.append(store.revision)
    made = {pod["metadata"]["ownerReferences"][0]["name"] for pod in store.all(kinds.PODS)}
    assert {"patient-service", "billing-service"} <= made
    assert "auth-service" not in made
    told = [event for event in store.all(kinds.EVENTS) if event["reason"] == "ReconcileError"]
    assert [event["count"] for event in told] == [1, 1], "told once, though it is tried again and again"
    assert revisions[-1] == revisions[-2], "and what is told wakes nobody for ever"


def test_what_cannot_be_read_on_disk_is_set_aside(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "kube" / "objects.json"
    store = cluster(layout)
    store.save(path)
    raw = json.loads(path.read_text())
    bad = next(item for item in raw["objects"]["deployments"] if item["metadata"]["name"] == "auth-service")
    bad["spec"]["replicas"] = "two"
    raw["objects"]["pods"] = [{"metadata": {"name": "p"}}, 7, {"spec": {"containers": "x"}}]
    raw["objects"]["widgets"] = [{}]
    path.write_text(json.dumps(raw))
    found = Store()
    assert found.load(path, admission.check_stored)
    assert len(found.all(kinds.DEPLOYMENTS)) == 4
    assert found.all(kinds.SERVICES) == store.all(kinds.SERVICES)
    aside = [json.loads(line) for line in (path.parent / "set-aside.jsonl").read_text().splitlines()]
    assert [entry["kind"] for entry in aside] == ["pods", "pods", "pods", "deployments", "widgets"]
    assert "spec.replicas" in aside[3]["why"]
    assert aside[3]["object"] == bad
    for junk in ("", "{", "[]", '{"revision": "x", "objects": 5}'):
        path.write_text(junk)
        assert not Store().load(path, admission.check_stored)
        assert not path.exists()
    assert len(list(path.parent.glob("objects.unreadable-*"))) == 4


def test_every_object_of_a_first_start_can_be_read_back(layout: Layout, tmp_path: Path) -> None:
    store = cluster(layout)
    carried_out(store, layout)
    path = tmp_path / "objects.json"
    store.save(path)
    found = Store()
    assert found.load(path, admission.check_stored)
    for kind in kinds.KINDS:
        assert found.all(kind) == store.all(kind)
    assert not (tmp_path / "set-aside.jsonl").exists()
