"""What families of torch functions are made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.families.tensor_family import uniform


@given(st.floats(-5, 5), st.floats(0.1, 5))
@settings(deadline=None, max_examples=30)
def test_uniform_stays_in_range(low: float, width: float) -> None:
    draws = uniform(torch.Generator().manual_seed(0), (200,), low, low + width)
    assert draws.min() >= low - 1e-5
    assert draws.max() <= low + width + 1e-5


def test_uniform_has_the_right_mean() -> None:
    # Standard error 4/√12/√40000 = 0.0058; four of them.
    draws = uniform(torch.Generator().manual_seed(0), (40_000,), -1.0, 3.0)
    assert draws.mean().item() == pytest.approx(1.0, abs=0.024)
    assert draws.dtype == torch.float32
