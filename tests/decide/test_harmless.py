"""What may go into a message: nothing that calls, links or breaks a line from outside, and no patient's data from anybody."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.harmless import one_line, shown, tells_of_a_patient, written


@pytest.mark.req("CM-4")
@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("@channel look", "(at)channel look"),
        ("<!channel> <@U123> <http://x.y|click>", "(!channel> ((at)U123> (http[:]//x.y|click>"),
        ("a\r\nSUBJECT: b\x1b[2J\u202e", "a SUBJECT: b [2J"),
        ("see https://evil.example.com/x", "see https[:]//evil[.]example[.]com/x"),
        ("javascript:alert(1) mailto:x", "javascript[:]alert(1) mailto[:]x"),
        ("lag <30 s, 3.5 s, 99.9 %, 10.0.0.1", "lag <30 s, 3.5 s, 99.9 %, 10.0.0.1"),
    ],
)
def test_what_comes_from_outside_is_shown_and_never_obeyed(text: str, becomes: str) -> None:
    assert shown(text) == becomes


def test_what_the_team_writes_keeps_its_links_and_addresses_and_calls_nobody() -> None:
    text = "bridge https://meet.example/7, mail ada@hms.example\n@here <!everyone>"
    assert written(text) == "bridge https://meet.example/7, mail ada@hms.example (at)here (!everyone>"


@given(text=st.text(), most=st.integers(2, 300))
def test_any_text_is_one_printable_line_of_its_length(text: str, most: int) -> None:
    for made in (one_line(text, most), shown(text, most)):
        assert "\n" not in made
        assert "\r" not in made
        assert not {"\x00", "\x1b", "\u2028", "\u202e"} & set(made)
    assert len(one_line(text, most)) <= most


@given(before=st.text(), after=st.text(), who=st.sampled_from(["channel", "here", "everyone", "all", "U1"]))
def test_nobody_is_ever_mentioned_by_what_comes_from_outside(before: str, after: str, who: str) -> None:
    made = shown(f"{before}@{who}{after}<!{who}>", 10_000)
    assert f"@{who}" not in made
    assert not re.search(r"<[!@#A-Za-z/]", made)
    assert "://" not in shown(f"{before} https://{who}", 10_000)


@pytest.mark.req("CM-4")
@pytest.mark.parametrize(
    ("text", "looks_like"),
    [
        ("MRN 1234567 cannot be opened", "a record number"),
        ("mrn#A-12345", "a record number"),
        ("patient ID: 4711", "a record number"),
        ("SSN 123-45-6789", "a social security number"),
        ("DOB 3/4/1970", "a date of birth"),
        ("born on 1 May", "a date of birth"),
        ("patient John Smith waits", "a patient's name"),
        ("Patient: Mrs. Erna Müller", "a patient's name"),
        ("patient Élodie Öz waits", "a patient's name"),
        ("Mrs. Doe in room 4", "a patient's name"),
        ("record 123456789", "a long number"),
        ("write to jane@mail.example", "somebody's address"),
        ("call +1 303 555 01 99", "somebody's number"),
        ("line\nbreak MRN\n1234567", "a record number"),
    ],
)
def test_a_patients_data_is_seen(text: str, looks_like: str) -> None:
    assert tells_of_a_patient(text) == looks_like


@pytest.mark.parametrize(
    "text",
    [
        "40 wards on paper, some 12000 patients affected",
        "Patient service, Appointment service",
        "The Patient Portal Login does not answer",
        "the active region us-east-1 is lost; 5 services are down",
        "2026-11-25 03:45 UTC, epoch 17, lsn 0/3000148",
        "Patients are sent to the west wing",
        "HTTP 503 in 250 ms, 99.95 %",
    ],
)
def test_what_a_message_is_made_of_is_no_patients_data(text: str) -> None:
    assert tells_of_a_patient(text) is None


def test_the_teams_own_numbers_and_addresses_may_stand_there() -> None:
    text = "Ada Quill, +12025550101, ada.quill@hms.example"
    assert tells_of_a_patient(text) is not None
    assert tells_of_a_patient(text, {"+12025550101", "ada.quill@hms.example"}) is None
