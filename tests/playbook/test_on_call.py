"""An on-call schedule that is wrong is refused with its place, before the night it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from books import SECRETS, refused, write

from hmsdr.playbook.load import load

ROLE = "extends: hms\non_call: {roles: {incident-commander: {%s}}}"


@pytest.mark.req("CO-1", "CO-4")
@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("extends: hms\non_call: {time_zone: Mars/Olympus}", "on_call.time_zone", "'Mars/Olympus'"),
        ("extends: hms\non_call: {time_zone: ../../etc/passwd}", "on_call.time_zone", "'../../etc/passwd'"),
        (ROLE % "rotation: {people: [], starts: '2026-01-05T08:00'}", "people", "too few"),
        (ROLE % "rotation: {people: [Ada Quil], starts: '2026-01-05T08:00'}", "people", "person 'Ada Quil'"),
        (
            ROLE % "rotation: {people: [Ada Quill], starts: '2026-02-30T08:00'}",
            "starts",
            "'2026-02-30T08:00'",
        ),
        (ROLE % "rotation: {people: [Ada Quill], starts: tomorrow}", "starts", "'tomorrow'"),
        (
            ROLE % "rotation: {people: [Ada Quill], starts: '2026-01-05T08:00Z'}",
            "starts",
            "2026-01-05T08:00Z",
        ),
        (ROLE % "rotation: {people: [Ada Quill], starts: '2026-01-05T08:00', days: 0}", "days", "0"),
        (
            ROLE % "overrides: [{person: Ada Quill, begins: '2026-01-05T08:00', ends: '2026-01-05T08:00'}]",
            "overrides",
            "a mapping",
        ),
        (
            ROLE % "overrides: [{person: Nobody, begins: '2026-01-05T08:00', ends: '2026-01-06T08:00'}]",
            "person",
            "person 'Nobody'",
        ),
        ("extends: hms\non_call: {roles: {incident-comander: {}}}", "incident-comander", "unknown role"),
        ("extends: hms\non_call: {quiet_hours: {begins: '24:00', ends: '06:00'}}", "begins", "'24:00'"),
        (
            "extends: hms\non_call: {quiet_hours: {begins: '06:00', ends: '06:00'}}",
            "quiet_hours",
            "a mapping",
        ),
        ("extends: hms\non_call: {calling: {step: 0s}}", "calling", "a mapping"),
    ],
)
def test_a_wrong_schedule_is_refused(tmp_path: Path, text: str, place: str, found: str) -> None:
    (finding,) = refused(write(tmp_path, text))
    assert place in ".".join(map(str, finding.keys))
    assert found in finding.found


def test_the_shipped_schedule_is_one_and_a_playbook_may_do_without(tmp_path: Path) -> None:
    assert load("hms", environ=SECRETS).on_call.roles["incident-commander"].rotation is not None
    without = load(write(tmp_path, "extends: hms\non_call: null"), environ=SECRETS)
    assert without.on_call.roles == {}
