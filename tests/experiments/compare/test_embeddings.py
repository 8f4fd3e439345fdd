from pathlib import Path

import numpy as np
import pytest

from metarl.experiments.compare.comparison import Protocol, measure
from metarl.experiments.compare.embeddings import embedding_figures, linear_readout, observe, principal
from metarl.experiments.compare.runs import group_runs, read_runs
from tests.experiments.compared import trained


def test_components_are_those_in_which_the_last_embeddings_differ_most() -> None:
    last = np.array([[x, y, z] for x in (-5.0, 5.0) for y in (-0.01, 0.01) for z in (-1.0, 1.0)]) + 3
    places, share = principal(np.stack([np.full((8, 3), 3.0), last]))
    np.testing.assert_allclose(places[0], 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(places[1]), [[5, 1]] * 8)
    assert 0.999 < share < 1


def test_an_embedding_of_one_number_lies_on_a_line() -> None:
    places, share = principal(np.arange(4.0).reshape(1, 4, 1))
    np.testing.assert_allclose(np.abs(places[0]), [[1.5, 0], [0.5, 0], [0.5, 0], [1.5, 0]])
    assert share == 1


def test_a_readout_predicts_each_task_from_the_others() -> None:
    draws = np.random.default_rng(1)
    embeddings, parameters = draws.normal(size=(30, 2)), draws.normal(size=(30, 1))
    errors, spread = [], []
    for row in range(30):
        others = np.arange(30) != row
        inputs = np.column_stack([embeddings, np.ones(30)])
        fitted = np.linalg.lstsq(inputs[others], parameters[others], rcond=None)[0]
        errors.append(parameters[row] - inputs[row] @ fitted)
        spread.append(parameters[row] - parameters[others].mean())
    expected = 1 - np.sum(np.square(errors)) / np.sum(np.square(spread))
    assert linear_readout(embeddings, parameters) == pytest.approx(expected)
    assert linear_readout(embeddings, embeddings @ [[2.0], [-1.0]] + 3) == pytest.approx(1)
    assert linear_readout(embeddings, np.ones((30, 1))) == 0


def test_a_comparison_shows_the_embeddings_of_those_that_have_them(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path / "pearl", "pearl", "navigation-2d", 1, horizon=5, updates_per_iteration=1),
        trained(tmp_path / "rl2", "rl2", "navigation-2d", 1, horizon=5),
    ]
    comparison = measure(group_runs(read_runs(runs)), Protocol(5, {}, None, "test", False, 0))
    (picture,) = embedding_figures(comparison)
    assert picture.name.startswith("embeddings-pearl")
    assert "coloured by goal_0 and goal_1" in picture.alt
    entry = next(entry for entry in comparison.entries if entry.label.startswith("pearl"))
    before, after = observe(comparison, entry, [0, 1])
    assert (before == before[0]).all()  # nothing is known of any task
    assert len(np.unique(after, axis=0)) == 5
