import re
from pathlib import Path

import numpy as np
import pytest

from metarl.errors import InputError
from metarl.families.family import FAMILIES, make_family
from metarl.families.references import Reference
from metarl.run.config import RunConfig, TrainConfig

REFERENCES = {
    (name, preset): reference for name, family in FAMILIES.items() for preset, reference in family.references.items()
}


def found(family: str, preset: str, horizon: int | None = None) -> Reference | None:
    """Return the reference of a run."""
    return TrainConfig("random", family, RunConfig(preset=preset, horizon=horizon)).find_reference()


def test_families_have_references() -> None:
    assert {name for name, _ in REFERENCES} >= {"bandit", "gridnavi", "navigation-2d", "tabular-mdp"}


@pytest.mark.parametrize(("name", "preset"), REFERENCES)
def test_references_are_of_presets_that_exist_at_their_horizons(name: str, preset: str) -> None:
    assert preset in FAMILIES[name].presets
    assert REFERENCES[name, preset].horizon == make_family(name, preset).horizon
    assert found(name, preset) is REFERENCES[name, preset]


def test_there_is_no_reference_at_another_horizon() -> None:
    assert found("gridnavi", "varibad", 15) is FAMILIES["gridnavi"].references["varibad"]
    assert found("gridnavi", "varibad", 16) is None


def test_presets_without_references_have_none() -> None:
    assert found("four-rooms", "11x11") is None
    assert found("half-cheetah-vel", "0-3-h100") is None


def test_the_manual_has_them_all() -> None:
    page = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (\S+) \| (\S+) \|$", page, re.MULTILINE)

    def cell(value: float | None) -> str:
        return "unknown" if value is None else f"{round(value, 3):g}"

    values = [(reference.no_adaptation, reference.full_knowledge) for reference in REFERENCES.values()]
    expected = [(*key, *map(cell, pair)) for key, pair in zip(REFERENCES, values, strict=True)]
    assert sorted(rows) == sorted(expected)


# Totals as tests/envs/test_reference_values.py has them, by the episodes that they are of.
@pytest.mark.parametrize(
    ("name", "preset", "episodes", "no_adaptation", "full_knowledge"),
    [
        ("bandit", "k10", 100, 49.9, 90.9),
        ("bandit", "k5", 100, 49.9, 83.3),
        ("bandit", "k5", 10, 5.0, 8.33),
        ("tabular-mdp", "rl2", 10, 100.1, 218.0),
    ],
)
def test_references_are_published_totals_by_episode(
    name: str, preset: str, episodes: int, no_adaptation: float, full_knowledge: float
) -> None:
    reference = REFERENCES[name, preset]
    assert episodes * reference.no_adaptation == pytest.approx(no_adaptation, rel=3e-3)
    assert episodes * reference.full_knowledge == pytest.approx(full_knowledge, rel=1e-3)  # type: ignore[operator]


def test_published_learners_lie_between_their_references() -> None:
    # RL²'s totals: 83.5 of 100 pulls of 10 arms, 156.2 of 10 episodes of the MDP.
    shares = [
        REFERENCES["bandit", "k10"].normalize([[0.835]]).item(),
        REFERENCES["tabular-mdp", "rl2"].normalize([[15.62]]).item(),
    ]
    assert shares == pytest.approx([0.335 / (10 / 11 - 0.5), 5.62 / 11.8])


def test_returns_are_normalised_between_the_two() -> None:
    scores = REFERENCES["half-cheetah-vel", "0-3-h200"].normalize([[-150.0, -20.0], [-85.0, -280.0]])
    np.testing.assert_allclose(scores, [[0.0, 1.0], [0.5, -1.0]])


def test_unknown_full_knowledge_is_refused() -> None:
    with pytest.raises(InputError, match="the return with full knowledge, which is unknown for this preset"):
        REFERENCES["half-cheetah-dir", "h100"].normalize([[1.0]])


def test_equal_references_are_refused() -> None:
    with pytest.raises(InputError, match=r"a higher one with full knowledge, not between 1\.0 and 1\.0"):
        Reference(10, 1.0, 1.0, "none").normalize([[1.0]])
