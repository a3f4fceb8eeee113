"""A link says who may answer what, and nobody else can make one."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.links import Link, read, sign

KEY = b"k" * 32
MOMENTS = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
LINKS = st.builds(
    Link,
    incident=st.integers(1, 10_000).map(lambda number: f"INC-{number}"),
    number=st.integers(1, 99),
    seq=st.integers(0, 2**40),
    person=st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=60),
    expires=MOMENTS,
)


@given(LINKS)
def test_what_was_signed_is_read_as_it_was(link: Link) -> None:
    token = sign(KEY, link)
    assert read(KEY, token) == link
    assert token.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert read(b"l" * 32, token) is None


@given(LINKS, st.data())
def test_a_link_with_one_sign_changed_is_none(link: Link, data: st.DataObject) -> None:
    token = sign(KEY, link)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("Aa0-_.").filter(lambda sign: sign != token[place]))
    assert read(KEY, token[:place] + other + token[place + 1 :]) is None


@given(st.text(max_size=700))
def test_any_text_is_read_without_harm(text: str) -> None:
    assert read(KEY, text) is None


@given(LINKS)
def test_a_link_that_was_cut_off_is_none(link: Link) -> None:
    token = sign(KEY, link)
    assert all(read(KEY, token[:length]) is None for length in range(len(token)))
