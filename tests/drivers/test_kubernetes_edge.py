"""What the Kubernetes driver says when there is no usable cluster: our errors, with a remedy, in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.kubernetes import Kubernetes

CONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://SERVER"}}]
users: [{name: u, user: {}}]
contexts: [{name: us-west-2, context: {cluster: c, user: u}}]
current-context: us-west-2
"""


def kubeconfig(tmp_path: Path, server: str) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(CONFIG.replace("SERVER", server))
    return str(path)


async def test_a_context_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    driver = Kubernetes("us-west-9", kubeconfig(tmp_path, "127.0.0.1:9"), "hms-system")
    with pytest.raises(PermanentError, match="no context 'us-west-9'") as caught:
        await driver.nodes(deadline=5)
    assert "us-west-2" in caught.value.remedy
    await driver.aclose()


async def test_a_missing_kubeconfig_is_permanent(tmp_path: Path) -> None:
    driver = Kubernetes("us-west-2", str(tmp_path / "none"), "hms-system")
    with pytest.raises(PermanentError, match="kubeconfig"):
        await driver.nodes(deadline=5)


async def test_an_api_that_is_not_reachable_is_temporary(tmp_path: Path) -> None:
    driver = Kubernetes("us-west-2", kubeconfig(tmp_path, "127.0.0.1:9"), "hms-system")
    with pytest.raises(TemporaryError, match="not reachable"):
        await driver.deployments(deadline=5)
    await driver.aclose()


async def test_an_api_that_accepts_and_is_silent_ends_at_the_deadline(tmp_path: Path) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(30), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    driver = Kubernetes("us-west-2", kubeconfig(tmp_path, f"127.0.0.1:{port}"), "hms-system")
    with pytest.raises(TemporaryError, match=r"no answer within 0\.3 s"):
        await driver.nodes(deadline=0.3)
    with pytest.raises(OutcomeUnknownError, match=r"no answer within 0\.3 s"):
        await driver.scale("patient-service", 2, deadline=0.3)
    await driver.aclose()
    silent.close()
