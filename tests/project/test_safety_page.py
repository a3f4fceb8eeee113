"""docs/safety.md points to tests and breakages: each must exist, and every breakage must be pointed to."""

from __future__ import annotations

import re
from pathlib import Path

from hmsdr.sim.breakages import BREAKAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "safety.md").read_text()


def test_every_test_that_the_argument_points_to_exists() -> None:
    pointers = re.findall(r"\[([\w/]+\.py)::(\w+)\]", PAGE)
    assert len(pointers) > 20
    for file, name in pointers:
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"def {name}\(", text), f"{file}::{name}"


def test_every_breakage_stands_behind_a_sentence_and_no_other() -> None:
    named = set(re.findall(r"\[breakage:([\w-]+)\]", PAGE))
    assert named == {each.name for each in BREAKAGES}


def test_no_claim_of_the_argument_stands_alone() -> None:
    argument = PAGE.split("## The argument")[1].split("## What is assumed")[0]
    for paragraph in re.split(r"\n\n|\n- ", argument):
        if paragraph.strip() and not paragraph.startswith("#"):
            assert "[" in paragraph, paragraph
