"""Every random configuration of every learner runs, or is refused or ended in one line."""

import pytest

from benchmarks.random_configurations import FAMILIES, outcome
from tests.runs import SELF_CONTAINED


def outcomes(learner: str, numbers: range) -> list[tuple[str, str]]:
    return [outcome(learner, FAMILIES[number % len(FAMILIES)], number) for number in numbers]


def check(found: list[tuple[str, str]]) -> None:
    assert [said for kind, said in found if kind not in ("ran", "refused", "ended")] == []
    assert "ran" in {kind for kind, _ in found}


@pytest.mark.parametrize("learner", sorted(SELF_CONTAINED))
def test_a_few_random_configurations(learner: str) -> None:
    check(outcomes(learner, range(108, 113)))


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(SELF_CONTAINED))
def test_many_random_configurations(learner: str) -> None:
    check(outcomes(learner, range(1000, 1050)))
