"""The lab's playbook is the shipped one with an overlay, and as sound."""

from __future__ import annotations

from pathlib import Path

from hmsdr.check.playbook import lint
from hmsdr.lab.overlay import write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.playbook.load import load


def test_it_passes_the_lint(tmp_path: Path) -> None:
    networks = claim_networks(tmp_path, None)
    layout = lay_out(tmp_path, "lab-x", None, networks, choose_ports(networks, {"https": 8443}))
    networks.close()
    write_playbook(layout)
    playbook = load(layout.playbook)
    # The people are examples in the shipped playbook too: nobody rings for a lab.
    assert [finding.keys for finding in lint(playbook)] == [("people",)]
    assert playbook.overlay == "lab"
    assert playbook.traffic.public_url.endswith(":8443")
    assert {region.agent.key.get_secret_value() for region in playbook.regions.values()} == {
        layout.agent_key.read_text().strip()
    }
    assert layout.agent_key.stat().st_mode & 0o077 == 0
