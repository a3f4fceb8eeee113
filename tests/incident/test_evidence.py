"""Evidence is gathered whole, with hashes, also when nothing but the log answers; a folder is never written over."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from casebook import BOOK
from hmsdr.drivers.kubernetes import Deployment
from hmsdr.errors import FailedError, RefusedError
from hmsdr.incident import evidence
from hmsdr.incident.desk import Declaration, Desk
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.model import Playbook


def unreachable(directory: Path) -> Playbook:
    """Every system of the hospital is gone."""
    regions = {}
    kubeconfig = directory / "kubeconfig"
    clusters = "".join(
        f"- {{name: {name}, cluster: {{server: 'http://127.0.0.1:1'}}}}\n" for name in BOOK.regions
    )
    contexts = "".join(
        f"- {{name: {name}, context: {{cluster: {name}, user: u}}}}\n" for name in BOOK.regions
    )
    kubeconfig.write_text(f"clusters:\n{clusters}contexts:\n{contexts}users:\n- {{name: u, user: {{}}}}\n")
    for name, region in BOOK.regions.items():
        regions[name] = region.model_copy(
            update={
                "postgres": region.postgres.model_copy(
                    update={"host": "127.0.0.1", "port": 1, "password": SecretStr("x")}
                ),
                "redis": region.redis.model_copy(update={"host": "127.0.0.1", "port": 1}),
                "kubernetes": region.kubernetes.model_copy(update={"kubeconfig": str(kubeconfig)}),
            }
        )
    monitoring = BOOK.prometheus.model_copy(update={"url": "http://127.0.0.1:1"})
    return BOOK.model_copy(update={"regions": regions, "prometheus": monitoring})


@pytest.mark.req("IR-2", "PR-6")
async def test_what_can_be_had_is_had_and_the_rest_is_named(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)
    book = unreachable(tmp_path)
    desk = Desk(book, store)

    async def moved() -> list[NewEvent]:
        return [NewEvent("switchback.announced", "us-east-1", "Ada Quill", {})]

    await append_after(store, moved, doing="testing")
    await desk.declare(Declaration("The wards cannot log in", "Ada Quill"), None)
    found = await evidence.gather(desk, store, book, "INC-1", tmp_path / "evidence")
    ours = {"incident.json", "timeline.json", "messages.json", "changes.json", "manifest.json"}
    # That a database is not reached is a state of it.
    assert set(found.files) == ours | {f"{region}/database.json" for region in book.regions}
    assert json.loads((found.directory / "us-east-1" / "database.json").read_text())["reachable"] is False
    assert {"us-east-1/replication.json", "us-west-2/pods.json", "monitoring/up.json"} < set(found.missing)
    assert len(found.missing) == 16
    for name, expected in found.files.items():
        path = found.directory / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected
        assert path.stat().st_mode & 0o077 == 0
    manifest = json.loads((found.directory / "manifest.json").read_text())
    assert manifest["sha256"] == {name: each for name, each in found.files.items() if name != "manifest.json"}
    assert manifest["missing"] == found.missing
    assert [each["kind"] for each in json.loads((found.directory / "changes.json").read_text())] == [
        "switchback.announced"
    ]
    assert json.loads((found.directory / "timeline.json").read_text())[0]["kind"] == "incident.opened"
    with pytest.raises(RefusedError, match="no such incident"):
        await evidence.gather(desk, store, book, "INC-7", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedError, match="--out"):
        await evidence.gather(desk, store, book, "INC-1", tmp_path / "file")
    await store.close()


def test_the_values_of_variables_are_not_kept() -> None:
    deployment = Deployment("auth", 1, 1, 1, {"KEY": "secret", "A": "b"}, "1", rolled_out=True)
    assert evidence._plain((deployment,))[0]["env"] == ["A", "KEY"]
