"""The measures of a continual experiment, by hand."""

import numpy as np
import pytest

from metarl.experiments.continual.measures import AVERAGE, BACKWARD, FORGETTING, FORWARD, forgotten, measures
from metarl.experiments.continual.performance import Performance

# Two seeds, three tasks: the rows are after each task.
MATRIX = np.array(
    [
        [[0.8, 0.0, 0.0], [0.5, 0.6, 0.0], [0.2, 0.7, 0.9]],
        [[1.0, 0.2, 0.0], [1.0, 0.8, 0.0], [0.6, 0.4, 0.5]],
    ]
)
CURVES = np.array([[[0.0, 0.4], [0.2, 0.6], [0.4, 0.8]], [[0.2, 0.6], [0.4, 0.8], [0.6, 1.0]]])
FROM_SCRATCH = np.full((2, 3, 2), 0.2)


def test_what_is_forgotten_of_each_task() -> None:
    np.testing.assert_allclose(forgotten(MATRIX), [[0.6, -0.1, 0.0], [0.4, 0.4, 0.0]], atol=1e-12)


@pytest.mark.parametrize(("normalized", "forward"), [(True, 0.3 / 0.8), (False, 0.3)])
def test_measures(normalized: bool, forward: float) -> None:
    found = measures(Performance(MATRIX, CURVES), Performance(None, FROM_SCRATCH), normalized)
    expected = {
        AVERAGE: (0.2 + 0.7 + 0.9 + 0.6 + 0.4 + 0.5) / 6,
        FORGETTING: (0.6 - 0.1 + 0.4 + 0.4) / 6,
        BACKWARD: -(0.6 - 0.1 + 0.4 + 0.4) / 4,
        FORWARD: forward,
    }
    assert {name: float(value.estimate) for name, value in found.items()} == pytest.approx(expected)
    assert all(value.low <= value.estimate <= value.high for value in found.values())


def test_a_single_seed_has_intervals_over_tasks() -> None:
    one = Performance(MATRIX[:1], CURVES[:1]), Performance(None, FROM_SCRATCH[:1])
    assert all(np.isfinite(value.low) for value in measures(*one, normalized=True).values())
