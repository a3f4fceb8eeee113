"""What of a server's log is a sign of damage, how far it was read over lives and rotations, and what pg_amcheck's words are."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmsdr.control.amcheck import judged
from hmsdr.control.damage import DamageBook, damage_in
from hmsdr.decide.soundness import DamageKind

PAGE = b'2026-11-24 20:25:15.743 UTC [10155] XX001 LOG:  invalid page in block 5 of relation "base/16384/16407"\n'
VERIFICATION = b"2026-11-24 20:25:15.743 UTC [1] XX001 LOG:  page verification failed, calculated checksum 1 but expected 2\n"
PANIC = (
    b"2026-11-24 20:25:15.743 UTC [10155] XX000 PANIC:  could not locate a valid checkpoint record at 0/1\n"
)
FULL = (
    b'2026-11-24 20:25:15.743 UTC [10155] 53100 PANIC:  could not write to file "pg_wal/x": No space left\n'
)
SECRET = b"2026-11-24 20:25:15.743 UTC [10155] XX001 ERROR:  broken: patient Mary Stone\n"
STATEMENT = b"2026-11-24 20:25:15.743 UTC [10155] XX001 STATEMENT:  SELECT 'PANIC:  x'\n"
CALM = b"2026-11-24 20:25:15.743 UTC [10155] 00000 LOG:  database system is ready to accept connections\n"


@pytest.mark.req("FA-1")
@pytest.mark.parametrize(
    ("line", "kind", "where"),
    [
        (PAGE, DamageKind.PAGE, "base/16384/16407"),
        (PANIC, DamageKind.PANIC, "server"),
        (SECRET, DamageKind.HEAP, "unnamed"),
        (SECRET.replace(b"XX001", b"XX002"), DamageKind.INDEX, "unnamed"),
        (VERIFICATION, None, ""),
        (FULL, None, ""),
        (STATEMENT, None, ""),
        (CALM, None, ""),
        (b"PANIC:  without our prefix\n", None, ""),
    ],
)
def test_lines_of_the_log(line: bytes, kind: DamageKind | None, where: str) -> None:
    found = damage_in(line.rstrip(b"\n"))
    assert (None if found is None else found[:2]) == (None if kind is None else (kind, where))
    assert found is None or "Mary" not in found[2]


class Place:
    def __init__(self, directory: Path) -> None:
        self.log, self.kept, self.data = (
            directory / "postgres.log",
            directory / "damage.json",
            directory / "data",
        )
        self.data.mkdir()
        (self.data / "PG_VERSION").write_text("18")

    def open(self) -> DamageBook:
        return DamageBook(self.kept, self.log, self.data)

    def add(self, *lines: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(b"".join(lines))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def where(book: DamageBook) -> list[tuple[str, str]]:
    return [(str(sign.kind), sign.where) for sign in book.signs]


@pytest.mark.req("FA-1")
def test_what_was_there_before_says_nothing_and_what_comes_is_kept_over_lives(place: Place) -> None:
    place.add(PANIC)
    book = place.open()
    book.read_log(1)
    assert where(book) == []
    place.add(CALM, PAGE, PAGE[:30])
    book.read_log(7)
    assert where(book) == [("page", "base/16384/16407")]
    assert book.signs[0].lsn == 7
    # The next life goes on in the middle of the line that was not whole yet.
    place.add(PAGE[30:].replace(b"16407", b"16999"), PANIC)
    book = place.open()
    book.read_log(9)
    assert where(book) == [("page", "base/16384/16407"), ("page", "base/16384/16999"), ("panic", "server")]


def test_a_log_that_is_put_away_is_read_to_its_end(place: Place) -> None:
    place.add(CALM)
    book = place.open()
    place.add(PAGE)
    place.log.replace(place.log.with_suffix(".1"))
    place.add(PANIC)
    book.read_log(1)
    assert where(book) == [("page", "base/16384/16407"), ("panic", "server")]


@pytest.mark.req("FA-1")
def test_a_clean_check_disproves_what_it_looks_at_and_no_bad_page(place: Place) -> None:
    book = place.open()
    for kind in DamageKind:
        book.note(kind, "somewhere", "seen", 5)
    book.checked(began="9999-01-01", lsn=10, timeline=1)
    assert {sign.kind for sign in book.signs} == {DamageKind.CHECKSUM, DamageKind.PAGE}
    assert place.open().as_json()["checked_lsn"] == 10
    book.note(DamageKind.HEAP, "somewhere", "seen", 12)
    book.checked(began="2020-01-01", lsn=11, timeline=1)
    assert DamageKind.HEAP in {sign.kind for sign in book.signs}, "it was seen after the check began"


def test_whether_the_last_check_looked_at_everything_is_remembered_until_the_data_are_others(
    place: Place,
) -> None:
    book = place.open()
    book.look_at_data(100)
    book.unchecked("damage in patients_pkey", whole=True)
    assert place.open().as_json()["check_whole"]
    book.unchecked("not complete: it was stopped")
    assert not place.open().as_json()["check_whole"]
    book.checked(began="2020-01-01", lsn=90, timeline=1)
    assert book.as_json()["check_whole"]
    place.data.rename(place.data.with_name("old"))
    place.data.mkdir()
    (place.data / "PG_VERSION").write_text("18")
    book.look_at_data(100)
    assert not book.as_json()["check_whole"]


def test_other_data_are_not_what_was_damaged_nor_what_was_checked(place: Place) -> None:
    book = place.open()
    book.look_at_data(100)
    book.note(DamageKind.PAGE, "somewhere", "seen", 5)
    book.checked(began="2020-01-01", lsn=90, timeline=1)
    book.look_at_data(89)
    assert book.as_json()["checked_lsn"] is None, "set back behind what was checked"
    assert book.signs
    place.data.rename(place.data.with_name("old"))
    place.data.mkdir()
    (place.data / "PG_VERSION").write_text("18")
    book = place.open()
    book.look_at_data(100)
    assert book.signs == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"signs": 7, "log": null}', '{"signs": [{"kind": "x"}], "log": null}']
)
def test_a_file_that_cannot_be_read_is_none(place: Place, text: str) -> None:
    place.kept.write_text(text)
    assert place.open().signs == ()


HEAP = 'heap table "hms.public.patients", block 0, offset 3:\n    tuple data begins at offset 0\n'
INDEX = 'btree index "hms.public.patients_pkey":\n    ERROR:  item order invariant violated\n'
CANCELLED = (
    'heap table "hms.public.patients":\n    ERROR:  canceling statement due to conflict with recovery\n'
)


@pytest.mark.req("FA-1")
@pytest.mark.parametrize(
    ("status", "output", "errors", "complete", "found"),
    [
        (0, "", "", True, set()),
        (2, HEAP + INDEX, "", True, {("heap", "public.patients"), ("index", "public.patients_pkey")}),
        (2, CANCELLED, "", False, set()),
        (2, CANCELLED + INDEX, "", False, {("index", "public.patients_pkey")}),
        (1, "", "pg_amcheck: error: connection failed", False, set()),
        (
            1,
            INDEX,
            "pg_amcheck: error: server closed the connection",
            False,
            {("index", "public.patients_pkey")},
        ),
    ],
)
def test_words_of_pg_amcheck(
    status: int, output: str, errors: str, complete: bool, found: set[tuple[str, str]]
) -> None:
    checked = judged(status, output, errors)
    assert checked.complete is complete
    assert {(str(kind), relation) for kind, relation in checked.found} == found
    assert complete == (not checked.why)
