"""Two that take writes are told by `hmsdr lab status`, whatever else is well."""

from __future__ import annotations

from hmsdr.lab.report import Status, judge_writers


def test_two_writable_databases_are_a_problem() -> None:
    found = Status("d", writable_databases=["a", "b"], redis_masters=["b"])
    judge_writers(found)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "the databases of a and b are both writable"
    ]
    assert found.as_json()["writable_databases"] == ["a", "b"]


def test_one_of_each_is_none() -> None:
    found = Status("d", writable_databases=["a"], redis_masters=["a"])
    judge_writers(found)
    assert found.whole
