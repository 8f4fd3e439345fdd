import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from metaworld.utils import reward_utils

from metarl.envs.manipulation.terms import between, hamacher_product, near, near_gaussian, norm

UNIT = st.floats(0, 1)
DISTANCE = st.floats(0, 3)
RADIUS = st.floats(0, 0.5)
MARGIN = st.floats(1e-3, 2)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@given(DISTANCE, RADIUS, MARGIN)
def test_tails_are_those_of_the_package(distance: float, radius: float, margin: float) -> None:
    for ours, tail in ((near, "long_tail"), (near_gaussian, "gaussian")):
        theirs = reward_utils.tolerance(distance, (0, radius), margin, tail)
        assert ours(number(distance), radius, number(margin)).item() == pytest.approx(theirs, rel=1e-12)


@given(st.floats(-3, 3), RADIUS, MARGIN)
def test_between_falls_off_on_both_sides(value: float, low: float, margin: float) -> None:
    theirs = reward_utils.tolerance(value, (low, low + 0.1), margin, "long_tail")
    assert between(number(value), low, low + 0.1, margin).item() == pytest.approx(theirs, rel=1e-12)


@given(UNIT, UNIT)
def test_the_hamacher_product_is_that_of_the_package(first: float, second: float) -> None:
    theirs = reward_utils.hamacher_product(first, second)
    assert hamacher_product(number(first), number(second)).item() == pytest.approx(theirs, rel=1e-12, abs=1e-300)


def test_the_hamacher_product_with_zero_is_zero_in_either_precision() -> None:
    for dtype in (torch.float32, torch.float64):
        assert hamacher_product(torch.zeros(2, dtype=dtype), torch.tensor([0.0, 1.0], dtype=dtype)).tolist() == [
            0.0,
            0.0,
        ]


def test_a_tail_is_a_tenth_at_the_margin() -> None:
    for tail in (near, near_gaussian):
        assert tail(number(0.7), 0.2, 0.5).item() == pytest.approx(0.1)


def test_norm_is_the_length_along_the_last_axis() -> None:
    assert norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [5.0, 0.0]
