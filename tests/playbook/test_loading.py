"""Loading: layers, secrets, and errors that name file, line, path, what was found, what is allowed, what was meant."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from books import SECRETS, SHIPPED_TEXT, edited, refused, write

from hmsdr.errors import ExitStatus
from hmsdr.playbook.findings import PlaybookError
from hmsdr.playbook.load import load, raw


def line_of(text: str, content: str = SHIPPED_TEXT) -> int:
    """The line of the first occurrence of `text`."""
    return content[: content.index(text)].count("\n") + 1


# Layers


def test_an_extending_playbook_states_only_what_differs(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
extends: hms
overlay: lab
regions:
  us-east-1:
    postgres: {host: 127.0.10.5, password: null}
    kubernetes: {kubeconfig: kubeconfig}
thresholds:
  triggers: {region_unreachable: 3s, critical_services_unavailable: 6s}
traffic: {resolvers: ["127.0.9.1:53"]}
store: {path: state/hmsdr.db}
""",
    )
    book = load(path, environ=SECRETS)
    assert book.overlay == "lab"
    east = book.regions["us-east-1"]
    assert east.postgres.host == "127.0.10.5"
    assert east.postgres.password is None
    assert east.postgres.statefulset == "postgres-primary"
    assert book.regions["us-west-2"].postgres.password is not None
    assert book.thresholds.triggers.region_unreachable == timedelta(seconds=3)
    assert book.thresholds.gates.replication_lag == timedelta(seconds=30)
    assert book.traffic.resolvers == ("127.0.9.1:53",)
    assert book.store.path == str(tmp_path / "state/hmsdr.db"), "relative paths start at the file"
    assert east.kubernetes.kubeconfig == str(tmp_path / "kubeconfig")


def test_extends_a_file_that_extends_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    write(tmp_path, "extends: hms\nname: Hospital\nstore: {path: here.db}", "base.yaml")
    path = write(tmp_path / "site", "extends: ../base.yaml\ntraffic: {ttl: 5}")
    book = load(path, environ=SECRETS)
    assert (book.name, book.traffic.ttl) == ("Hospital", 5)
    assert book.store.path == str(tmp_path / "site" / ".." / "here.db"), "relative to where it is written"


def test_an_overlay_is_named_after_its_file(tmp_path: Path) -> None:
    over = write(tmp_path, "traffic: {ttl: 1}", "rehearsal.yaml")
    book = load("hms", overlay=over, environ=SECRETS)
    assert (book.overlay, book.traffic.ttl) == ("rehearsal", 1)


def test_lists_are_replaced(tmp_path: Path) -> None:
    book = load(write(tmp_path, "extends: hms\nservices: {auth: {tables: [logins]}}"), environ=SECRETS)
    assert book.services["auth"].tables == ("logins",)


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = "extends: hms\nservices:\n  auth: {replicas: &r {active: 3, standby: 1}}\n  billing: {replicas: {<<: *r, active: 4}}"
    book = load(write(tmp_path, text), environ=SECRETS)
    assert book.services["auth"].replicas.active == 3
    assert (book.services["billing"].replicas.active, book.services["billing"].replicas.standby) == (4, 1)


def test_raw_shows_references_as_they_are_written() -> None:
    assert raw("hms")["regions"]["us-east-1"]["postgres"]["password"] == "${env:HMSDR_POSTGRES_PASSWORD}"


# Secrets


def test_secrets_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    write(tmp_path / "secrets", "  the-key\n", "agent.key")
    text = 'extends: hms\nregions: {us-east-1: {agent: {key: "${file:secrets/agent.key}"}}}'
    book = load(write(tmp_path, text), environ=SECRETS)
    east, west = book.regions.values()
    assert east.agent.key.get_secret_value() == "the-key"
    assert west.agent.key.get_secret_value() == SECRETS["HMSDR_AGENT_KEY_US_WEST_2"]


def test_plain_texts_may_be_references_too(tmp_path: Path) -> None:
    path = write(tmp_path, 'extends: hms\nprometheus: {url: "${env:PROMETHEUS}"}')
    assert load(path, environ={**SECRETS, "PROMETHEUS": "http://p:9090"}).prometheus.url == "http://p:9090"
    (finding,) = refused(path)
    assert "PROMETHEUS is not set" in finding.found


def test_values_of_secrets_are_nowhere_to_be_read() -> None:
    book = load("hms", environ=SECRETS)
    shown = "".join([repr(book), str(book), book.model_dump_json(), str(book.model_dump())])
    assert "Geheimnis" not in shown


def test_validation_without_secrets_looks_for_none() -> None:
    password = load("hms", environ={}, secrets=False).regions["us-east-1"].postgres.password
    assert password is not None
    assert password.get_secret_value() == ""


@pytest.mark.parametrize("environ", [{}, {"HMSDR_AGENT_KEY_US_WEST_2": " \n"}])
def test_missing_and_empty_secrets_are_named(environ: dict[str, str]) -> None:
    left = {name: value for name, value in SECRETS.items() if name != "HMSDR_AGENT_KEY_US_WEST_2"}
    with pytest.raises(PlaybookError) as caught:
        load("hms", environ={**left, **environ})
    (finding,) = caught.value.findings
    assert finding.path == "regions.us-west-2.agent.key"
    assert finding.mark
    assert finding.mark.line == line_of("${env:HMSDR_AGENT_KEY_US_WEST_2}")
    assert "HMSDR_AGENT_KEY_US_WEST_2 is" in finding.found


@pytest.mark.parametrize(
    "literal", ["Geheimnis", "12345", "pre${env:HMSDR_POSTGRES_PASSWORD}", "[Geheimnis]", "{a: 1}"]
)
def test_a_literal_secret_is_refused_and_not_repeated(tmp_path: Path, literal: str) -> None:
    path = write(tmp_path, f"extends: hms\nregions: {{us-east-1: {{postgres: {{password: {literal!r}}}}}}}")
    (finding,) = refused(path)
    assert "literal" in finding.found
    assert "never stand in the playbook" in finding.remedy
    assert not {"Geheimnis", "12345"} & set(str(finding).replace("'", " ").split())


@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "binary", "NUL", "fifo", "large"])
def test_secret_files_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "key"
    if kind == "empty":
        key.write_text("\n")
    elif kind == "directory":
        key.mkdir()
    elif kind == "binary":
        key.write_bytes(b"\xffGeheimnis")
    elif kind == "NUL":
        key.write_bytes(b"Geheimnis\0of somebody")
    elif kind == "fifo":
        os.mkfifo(key)
    elif kind == "large":
        key.write_bytes(b"x" * 100_000)
    path = write(tmp_path, 'extends: hms\nregions: {us-east-1: {agent: {key: "${file:key}"}}}')
    (finding,) = refused(path)
    assert finding.path == "regions.us-east-1.agent.key"
    assert "${file:key}" in finding.found
    assert "Geheimnis" not in str(finding)


# Errors


def test_every_problem_is_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """extends: hms
home_region: us-east1
regions:
  us-east-1:
    postgres:
      prot: 5432
      host: 17
    backups: {copy_bucket: hms-backup-us-west-2}
roles:
  technical-lead: {primary: Bram Fenick}
severities:
  SEV-4: {title: x, meaning: y, response: 2h}
thresholds:
  triggers: {region_unreachable: -5m}
traffic: {ttl: 0}
"""
    path = write(tmp_path, text)
    findings = {finding.path: finding for finding in refused(path)}
    assert set(findings) == {
        "home_region",
        "regions.us-east-1.postgres.prot",
        "regions.us-east-1.postgres.host",
        "regions.us-east-1.backups.copy_bucket",
        "roles.technical-lead.primary",
        "severities.SEV-4",
        "thresholds.triggers.region_unreachable",
        "traffic.ttl",
    }
    lines = text.splitlines()
    for finding in findings.values():
        assert finding.mark
        assert finding.mark.file == path
        key = finding.path.rpartition(".")[2]
        assert key in lines[finding.mark.line - 1], "the line that it names is the line that it means"
    assert findings["home_region"].remedy == "Did you mean 'us-east-1'?"
    assert "Did you mean 'port'?" in findings["regions.us-east-1.postgres.prot"].remedy
    assert findings["roles.technical-lead.primary"].remedy == "Did you mean 'Bram Fennick'?"
    assert findings["severities.SEV-4"].remedy.startswith("Did you mean 'SEV-")
    assert findings["regions.us-east-1.backups.copy_bucket"].remedy == "Did you mean 'hms-backups-us-west-2'?"
    assert findings["thresholds.triggers.region_unreachable"].found == "'-5m'"
    assert "duration" in findings["thresholds.triggers.region_unreachable"].allowed


def test_the_error_reads_well_and_means_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: hms\nhome_region: us-east1\n")
    with pytest.raises(PlaybookError) as caught:
        load(path, environ=SECRETS)
    assert caught.value.status is ExitStatus.REFUSED
    assert str(caught.value).splitlines() == [
        f"reading the playbook {path}: 1 problem",
        (
            f"{path}:2:14: home_region: found the unknown region 'us-east1'; "
            "allowed: one of us-east-1, us-west-2. Did you mean 'us-east-1'?"
        ),
        f"Mend this, then run `hmsdr validate {path}`.",
    ]


def test_a_value_from_below_is_placed_in_the_file_that_it_came_from(tmp_path: Path) -> None:
    base = write(tmp_path, "extends: hms\n\ntraffic:\n  ttl: many\n", "base.yaml")
    (finding,) = refused(write(tmp_path, "extends: ./base.yaml\nname: X\n"))
    assert finding.mark
    assert (finding.mark.file.resolve(), finding.mark.line, finding.mark.column) == (base, 4, 8)


def test_missing_keys_say_what_they_are_for(tmp_path: Path) -> None:
    (finding,) = refused(write(tmp_path, "extends: hms\nwitness: {title: null}\n"))
    assert (finding.path, finding.found) == ("witness.title", "nothing")
    assert "What people call it" in finding.remedy


def test_null_of_a_key_that_is_not_there_is_no_silent_typo(tmp_path: Path) -> None:
    (finding,) = refused(write(tmp_path, "extends: hms\ntraffic: {tll: null}\n"))
    assert finding.path == "traffic.tll"
    assert "'ttl'" in finding.remedy


def test_a_severity_may_not_be_missing(tmp_path: Path) -> None:
    (finding,) = refused(write(tmp_path, "extends: hms\nseverities: {SEV-2: null}\n"))
    assert finding.path == "severities.SEV-2"


def test_a_single_region_and_a_third_one_are_refused(tmp_path: Path) -> None:
    def one(values: dict[str, object]) -> None:
        assert isinstance(values["regions"], dict)
        del values["regions"]["us-west-2"]

    assert "regions" in [finding.path for finding in refused(edited(tmp_path, one))]

    def three(values: dict[str, object]) -> None:
        assert isinstance(values["regions"], dict)
        values["regions"]["eu"] = values["regions"]["us-west-2"]

    assert [finding.path for finding in refused(edited(tmp_path, three))] == ["regions"]


@pytest.mark.parametrize(
    ("text", "found", "line"),
    [
        ("", "an empty file", 1),
        ("# only a comment\n", "an empty file", 1),
        ("null\n", "an empty file", 1),
        ("- a\n", "not a mapping", 1),
        ("just words\n", "not a mapping", 1),
        ("a: b\n---\nc: d\n", "a second document", 2),
        ("a: [1, 2\n", "malformed YAML", 2),
        ("a: {b: c\n", "malformed YAML", 2),
        ("a: b: c\n", "malformed YAML", 1),
        ("name: 'x\n", "malformed YAML", 2),
        ("extends: hms\ntraffic:\n\tttl: 5\n", "malformed YAML", 3),
        ("extends: hms\nname: a\nname: b\n", "a second time (first on line 2)", 3),
        ("extends: hms\nname: *nobody\n", "the alias *nobody", 2),
        ("extends: hms\nname: !!python/object:os.system x\n", "the tag", 2),
        ("extends: hms\n? [a, b]\n: c\n", "a key that is not a text", 2),
        ('extends: hms\nname: "a\\0b"\n', "a control character", 2),
        ('extends: hms\nname: "\\ud800"\n', "a control character", 2),
        ("extends: hmss\n", "the unknown playbook 'hmss'", 1),
        ("extends: ./nowhere.yaml\n", "a file that does not exist", 1),
        ("extends: ./\n", "a directory", 1),
        ("extends: [hms]\n", "not a text", 1),
        ("extends: ./playbook.yaml\n", "extends itself", 1),
        (f"extends: ./{'x' * 5000}.yaml\n", "a file that does not exist", 1),
        ("extends: hms\nname: ${env:}\n", "a malformed reference", 2),
        ("extends: hms\nname: see ${env:HOME} there\n", "a malformed reference", 2),
    ],
)
def test_text_that_is_no_playbook(tmp_path: Path, text: str, found: str, line: int) -> None:
    finding = refused(write(tmp_path, text))[0]
    assert found in finding.found
    assert finding.mark
    assert finding.mark.line == line


def test_tabs_get_a_remedy(tmp_path: Path) -> None:
    (finding,) = refused(write(tmp_path, "extends: hms\ntraffic:\n\tttl: 5\n"))
    assert "spaces" in finding.remedy


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.yaml")[0].found
    assert "a directory" in refused(tmp_path)[0].found
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refused(tmp_path / "pipe")[0].found
    assert "not a usable file name" in refused(Path("a\0b"))[0].found
    assert refused(tmp_path / ("x" * 5000))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("extends: hms\nname: Krankenhäuser\n".encode("latin-1"))
    (finding,) = refused(latin)
    assert finding.found == "the byte 0xe4"
    assert finding.mark
    assert (finding.mark.line, finding.mark.column) == (2, 15)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfextends: hms\n")
    assert load(path, environ=SECRETS).name == "HMS"


def test_an_overlay_may_not_extend(tmp_path: Path) -> None:
    over = write(tmp_path, "extends: hms\n")
    with pytest.raises(PlaybookError, match="an overlay that extends"):
        load("hms", overlay=over, environ=SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: " + "[" * 100_000,
        "a: " + "{x: " * 50_000,
        "- " * 50_000,
        "a: [" + "1," * 100_000 + "]",
        "x" * 600_000,
    ],
    ids=["aliases", "deep list", "deep mapping", "deep block", "wide", "large"],
)  # fmt: skip
def test_bombs_are_refused_quickly(tmp_path: Path, text: str) -> None:
    (finding,) = refused(write(tmp_path, text))
    assert "at most" in finding.allowed


def test_words_that_yaml_1_1_would_twist_stay_words(tmp_path: Path) -> None:
    assert load(write(tmp_path, "extends: hms\nname: no\n"), environ=SECRETS).name == "no"


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("regions: {us-west-2: {postgres: {port: true}}}", "regions.us-west-2.postgres.port", "a number"),
        ("regions: {us-west-2: {postgres: {port: '5432'}}}", "regions.us-west-2.postgres.port", "a number"),
        ("thresholds: {verification: {sites: 'two'}}", "thresholds.verification.sites", "a number"),
        ("database: {drift_margin: true}", "database.drift_margin", "a number"),
        (
            "database: {failover_without_fencing_proof: 1}",
            "database.failover_without_fencing_proof",
            "true or false",
        ),
        ("services: {auth: {critical: 'yes'}}", "services.auth.critical", "true or false"),
    ],
)
def test_a_value_of_another_type_is_not_guessed_at(
    tmp_path: Path, text: str, path: str, allowed: str
) -> None:
    (finding,) = refused(write(tmp_path, f"extends: hms\n{text}\n"))
    assert (finding.path, finding.allowed.partition(",")[0]) == (path, allowed)
