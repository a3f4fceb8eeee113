"""The source's three messages with all their fields, in each audience's words, with nothing in them that must not be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casebook import BOOK, START, Log, declared
from hmsdr.decide.harmless import WITHHELD, tells_of_a_patient
from hmsdr.decide.incident import Word
from hmsdr.decide.messages import MISSING, TEAM, Message, compose, ours
from hmsdr.decide.wording import PATIENT_SUBJECTS, PATIENTS

AUDIENCES = (TEAM, *BOOK.audiences)
FIELDS = {
    Word.FIRST: (
        "INCIDENT DETAILS:", "- Time:", "- Severity:", "- Impact:", "- Services Affected:", "- Current Status:", "NEXT STEPS:",
        "- ETA for next update:", "CONTACT:", "- Incident Commander:", "- Technical Lead:",
    ),
    Word.UPDATE: (
        "INCIDENT STATUS:", "- Duration:", "- Severity:", "- Progress:", "- Issues:", "- Next Steps:", "IMPACT ASSESSMENT:",
        "- Patients Affected:", "- Services Impacted:", "- Workarounds:", "NEXT UPDATE:",
    ),
    Word.RESOLUTION: (
        "INCIDENT RESOLVED:", "- Resolution Time:", "- Duration:", "- Root Cause:", "- Resolution:", "IMPACT SUMMARY:",
        "- Patients Affected:", "- Services Impacted:", "- Data Loss:", "PREVENTIVE ACTIONS:", "POST-MORTEM:",
        "- Post-mortem scheduled for:", "- All stakeholders invited to attend", "THANK YOU:",
        "- Thank you for your patience and cooperation during this incident.",
    ),
}  # fmt: skip
FACTS = (
    "impact", "patients", "services", "cause", "progress", "issues", "next-steps", "workarounds", "mitigation", "resolution",
    "data-loss", "actions-taken", "improvements",
)  # fmt: skip


def message(log: Log, word: Word, audience: str = TEAM) -> Message:
    return compose(log.incident(), BOOK, audience, word, log.now)


def noted(log: Log, **facts: str) -> Log:
    for name, text in facts.items():
        log.add("incident.noted", "INC-1", "Ada Quill", field=name.replace("_", "-"), text=text)
    return log


@pytest.mark.req("CM-4")
@pytest.mark.parametrize("word", Word)
@pytest.mark.parametrize("audience", [name for name in AUDIENCES if name != "patients"])
def test_every_field_of_the_source_stands_in_its_template(word: Word, audience: str) -> None:
    made = message(declared(), word, audience)
    at = [made.body.find(field) for field in FIELDS[word]]
    assert -1 not in at
    assert at[0] == 0
    subject = {
        Word.FIRST: "[SEV-1] HMS System Incident - Initial Alert",
        Word.UPDATE: "[SEV-1] HMS System Incident - Status Update",
        Word.RESOLUTION: "[SEV-1] HMS System Incident - RESOLVED",
    }
    assert made.subject == subject[word]


@pytest.mark.req("CM-4")
def test_fields_fill_themselves_and_what_nobody_knows_is_marked() -> None:
    log = declared()
    first = message(log, Word.FIRST)
    assert "- Time: 2026-06-03 11:00 EDT (15:00 UTC)" in first.body
    assert "- Impact: the database of us-east-1, which all services use, is damaged" in first.body
    assert "- Services Affected: all: Patient service, " in first.body
    assert "- ETA for next update: 2026-06-03 11:15 EDT (15:15 UTC)" in first.body
    commander = next(
        each for each in BOOK.people if each.name == log.incident().roles["incident-commander"][0]
    )
    assert f"- Incident Commander: {commander.name}, {commander.phone}, {commander.email}" in first.body
    assert first.missing == ("mitigation",)
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    last = message(log.later(minutes=5), Word.RESOLUTION)
    assert set(last.missing) == {
        "cause",
        "resolution",
        "patients",
        "data-loss",
        "actions-taken",
        "improvements",
    }
    assert last.body.count(MISSING) == 6
    assert "between 2026-06-04 11:00 EDT (15:00 UTC) and 2026-06-05 11:00 EDT (15:00 UTC)" in last.body


def test_what_the_team_notes_stands_in_its_field() -> None:
    log = noted(declared(), **{name.replace("-", "_"): f"about {name}" for name in FACTS})
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    bodies = "\n".join(message(log, word).body for word in Word)
    # The signals say which services are affected; all else is what was noted.
    assert {name for name in FACTS if f"about {name}" not in bodies} == {"services"}
    assert all(message(log, word).missing == () for word in Word)


def test_what_was_noted_before_it_came_back_is_not_said_again() -> None:
    log = noted(declared(), cause="a disk")
    log.later(minutes=1).add("incident.status", "INC-1", "Ada Quill", status="resolved")
    log.later(minutes=1).add("incident.reopened", "INC-1", "Ada Quill", reason="back")
    assert "a disk" not in message(log, Word.RESOLUTION).body


@pytest.mark.req("CM-3")
def test_clinical_staff_learn_what_to_do_at_the_bedside_and_which_procedure_applies() -> None:
    log = Log()
    alert = {"key": "am/1", "text": "down", "effect": "down", "services": ["clinical"]}
    log.add("alerts.received", "alertmanager", "alertmanager", alerts=[alert])
    log.route()
    first = message(log, Word.FIRST, "clinical-staff").body
    assert "AT THE BEDSIDE:" in first
    assert "- Clinical service: DT-3" in first
    assert "DT-1" not in first
    assert "DT-3" not in message(log, Word.RESOLUTION, "clinical-staff").body


@pytest.mark.req("CM-3")
def test_each_audience_has_what_it_needs_and_no_more() -> None:
    log = declared()
    text = {name: message(log, Word.FIRST, name).body for name in AUDIENCES}
    assert [name for name in AUDIENCES if "ALERTS (1):" in text[name]] == [TEAM]
    assert [name for name in AUDIENCES if BOOK.traffic.public_url in text[name]] == ["partners"]
    assert [name for name in AUDIENCES if "AT THE BEDSIDE" in text[name]] == ["clinical-staff"]


def syllables(word: str) -> int:
    return max(1, len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", word.lower()))))


@pytest.mark.req("CM-3")
@pytest.mark.parametrize("word", Word)
def test_patients_read_short_sentences_of_short_words_in_their_languages(word: Word) -> None:
    for language in BOOK.audiences["patients"].languages:
        assert PATIENT_SUBJECTS[language][word]
        assert set(PATIENTS[language][word]) == {"all", "some", "slow"}
    for sentences in PATIENTS["en"][word].values():
        parts = [each for line in sentences for each in re.split(r"(?<=[.!?])\s+", line)]
        words = [each for part in parts for each in re.findall(r"[A-Za-z']+", part)]
        # Flesch-Kincaid grade: years of school.
        grade = 0.39 * len(words) / len(parts) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59
        assert grade < 6
        assert max(len(re.findall(r"[A-Za-z']+", part)) for part in parts) <= 14


def test_patients_are_told_nothing_that_anybody_wrote() -> None:
    log = noted(declared(), impact="SECRET", cause="SECRET", patients="SECRET")
    for severity in ("SEV-0", "SEV-2", "SEV-3"):
        log.add("incident.severity", "INC-1", "Ada Quill", severity=severity, reason="SECRET")
        for word in Word:
            for language in ("en", "es"):
                made = compose(log.incident(), BOOK, "patients", word, log.now, language)
                assert "SECRET" not in made.body + made.subject
                assert made.missing == ()


@pytest.mark.req("CM-4")
def test_a_patients_data_is_withheld_and_said_to_be() -> None:
    log = noted(declared(), impact="MRN 1234567 cannot be opened", issues="patient John Smith waits")
    first, update = message(log, Word.FIRST), message(log, Word.UPDATE)
    assert f"- Impact: {WITHHELD}" in first.body
    assert [(each.where, each.looks_like) for each in first.withheld] == [("impact", "a record number")]
    assert [(each.where, each.looks_like) for each in update.withheld] == [("issues", "a patient's name")]
    assert "1234567" not in first.body + repr(first)
    assert "Smith" not in update.body + repr(update)


texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "x\nSUBJECT: y",
            "@channel <!here>",
            "MRN 12345678",
            "patient Max Muster",
            "https://x.example",
            "+1 303 555 0199",
            "SSN 123-45-6789",
        ]
    ),
)


@pytest.mark.req("CM-4")
@settings(deadline=None)
@given(alert=texts, facts=st.dictionaries(st.sampled_from(FACTS), texts), word=st.sampled_from(list(Word)))
def test_whatever_is_written_no_message_calls_breaks_or_names_anybody(alert, facts, word):
    log = Log(START)
    log.began("damage/us-east-1", alert)
    log.route("us-east-1")
    for name, text in facts.items():
        log.add("incident.noted", "INC-1", "Ada Quill", field=name, text=text)
    for audience in AUDIENCES:
        made = message(log, word, audience)
        assert "\n" not in made.subject
        assert len(made.subject) <= 140
        assert not re.search(r"@(channel|here)|<[!@#A-Za-z/]|\x1b|\r", made.body)
        for line in made.body.splitlines():
            assert tells_of_a_patient(line, ours(BOOK)) is None
