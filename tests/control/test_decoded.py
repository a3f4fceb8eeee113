"""Reading the text of `test_decoding`: every kind of value, names that need quotes, and nothing of it in an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.control.decoded import Change, read_change


def test_values_stay_the_text_that_postgresql_prints() -> None:
    (change,) = read_change(
        "table public.patients: INSERT: id[bigint]:1 n[numeric]:1.50 ok[boolean]:true gone[text]:null "
        "a[integer[]]:'{1,2}' b[bit varying]:B'101' j[jsonb]:'{\"a\": null}' t[timestamp with time zone]:'2026-01-02 03:04:05+00'"
    )
    assert change == Change(
        "public.patients",
        "insert",
        None,
        {
            "id": "1",
            "n": "1.50",
            "ok": "true",
            "gone": None,
            "a": "{1,2}",
            "b": "101",
            "j": '{"a": null}',
            "t": "2026-01-02 03:04:05+00",
        },
    )


def test_a_text_that_says_null_is_no_null() -> None:
    (change,) = read_change("table public.t: INSERT: a[text]:'null' b[text]:null c[text]:''")
    assert change.new == {"a": "null", "b": None, "c": ""}


def test_an_update_tells_the_old_key_and_what_it_left_alone() -> None:
    (change,) = read_change(
        "table public.t: UPDATE: old-key: id[integer]:2 new-tuple: id[integer]:7 scan[bytea]:unchanged-toast-datum n[text]:'x'"
    )
    assert change == Change("public.t", "update", {"id": "2"}, {"id": "7", "n": "x"}, ("scan",))


def test_what_postgresql_did_not_log_is_not_made_up() -> None:
    assert read_change("table public.t: DELETE: (no-tuple-data)") == [
        Change("public.t", "delete", None, None)
    ]
    assert read_change("table public.t: DELETE: id[integer]:3") == [
        Change("public.t", "delete", {"id": "3"}, None)
    ]


def test_a_truncation_of_several_tables_is_one_change_of_each() -> None:
    assert read_change('table public.t, "Odd, schema"."a: b": TRUNCATE: restart_seqs cascade') == [
        Change("public.t", "truncate", None, None),
        Change('"Odd, schema"."a: b"', "truncate", None, None),
    ]


def test_a_message_of_an_application_is_kept() -> None:
    text = "message: transactional: 1 prefix: audit, sz: 3 content:a:b"
    assert read_change(text) == [
        Change("", "message", None, {"content": "transactional: 1 prefix: audit, sz: 3 content:a:b"})
    ]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.none() | st.text(st.characters(codec="utf-8")), max_size=5), NAMES)
def test_any_names_and_any_text_come_back(row: dict[str, str | None], kind: str) -> None:
    def quoted(text: str, mark: str) -> str:
        return mark + text.replace(mark, mark * 2) + mark

    columns = " ".join(
        f"{quoted(name, chr(34))}[{quoted(kind, chr(34))}[]]:{'null' if value is None else quoted(value, chr(39))}"
        for name, value in row.items()
    )
    (change,) = read_change(f"table public.t: INSERT: {columns}")
    assert change.new == row


@given(st.text())
def test_what_cannot_be_read_is_an_error_without_data(text: str) -> None:
    secret = f"table public.t: INSERT: name[text]:'{text.replace(chr(39), '')}"
    with pytest.raises(ValueError, match=r"^expected a closing ' at character \d+$"):
        read_change(secret)
