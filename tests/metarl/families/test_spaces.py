"""Elements of spaces as numbers, and actions between a policy's units and an environment's."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, strategies

from metarl.errors import InputError
from metarl.families.spaces import (
    action_features,
    feature_space,
    features,
    is_image,
    observed,
    observed_space,
    packed,
    unit_scale,
    unit_space,
    unpacked,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 3)),
        spaces.Box(-1, 1, ()),
        spaces.Box(-9, 9, (2,), np.int64),
        spaces.Discrete(4),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([2, 4], start=[1, -3]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary((2, 2)),
    ],
)
@pytest.mark.parametrize("axes", [(), (5,), (2, 5)])
def test_features_are_what_gymnasium_flattens_an_element_to(space: spaces.Space, axes: tuple[int, ...]) -> None:
    space.seed(0)
    elements = [space.sample() for _ in range(int(np.prod(axes)))]
    expected = np.stack([spaces.flatten(space, element) for element in elements]).reshape(*axes, -1)
    values = torch.as_tensor(np.stack(elements)).reshape((*axes, *(space.shape or ())))
    assert features(space, values).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("space", "given", "kind"),
    [
        (np.float32, torch.float32, torch.float32),
        (np.float32, torch.float64, torch.float64),  # for derivatives by finite differences
        (np.float64, torch.float64, torch.float32),
        (np.uint8, torch.uint8, torch.float32),
        (np.int64, torch.int64, torch.float32),
    ],
)
def test_features_are_float32_unless_more_is_given_for_it(space: type, given: torch.dtype, kind: torch.dtype) -> None:
    assert features(spaces.Box(0, 255, (2,), space), torch.zeros(3, 2, dtype=given)).dtype == kind


def test_pixels_of_an_image_are_features_in_the_unit_interval() -> None:
    space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    assert is_image(space)
    found = features(space, torch.full((3, 2, 2, 1), 51, dtype=torch.uint8))
    torch.testing.assert_close(found, torch.full((3, 4), 0.2))
    assert feature_space(space) == spaces.Box(0.0, 1.0, (4,))


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(0, 1, (2, 2, 3)), spaces.MultiBinary((2, 2, 3))]
)
def test_what_has_no_three_axes_of_uint8_is_no_image(space: spaces.Space) -> None:
    assert not is_image(space)


NESTED = spaces.Dict(
    {
        "place": spaces.Box(-1, 1, (2,), np.float64),
        "kind": spaces.Discrete(3, start=2),
        "parts": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 2])]),
    }
)


def test_elements_of_nested_spaces_are_flattened_as_gymnasium_flattens_them() -> None:
    NESTED.seed(0)
    elements = [NESTED.sample() for _ in range(5)]
    expected = np.stack([spaces.flatten(NESTED, element) for element in elements])
    values = {
        "place": torch.as_tensor(np.stack([each["place"] for each in elements])),
        "kind": torch.as_tensor(np.stack([each["kind"] for each in elements])),
        "parts": tuple(torch.as_tensor(np.stack([each["parts"][index] for each in elements])) for index in (0, 1)),
    }
    one = observed(NESTED, values)
    assert torch.equal(one, torch.as_tensor(expected, dtype=torch.float32))
    assert observed_space(NESTED).contains(one[0].numpy())
    assert torch.equal(features(NESTED, one), one)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict({"word": spaces.Text(3)})])
def test_observations_without_a_fixed_number_of_numbers_are_refused(space: spaces.Space) -> None:
    with pytest.raises(InputError, match="no learner can observe Text"):
        observed_space(space)


@given(
    space=strategies.sampled_from(
        [
            spaces.Box(0, 255, (3, 3, 3), np.uint8),
            spaces.Box(-1, 1, (2, 2)),
            spaces.Box(-1, 1, (), np.float64),
            spaces.Discrete(4, start=3),
            spaces.MultiBinary(3),
        ]
    ),
    seed=strategies.integers(0, 1000),
)
def test_packed_observations_are_unpacked_to_the_bit(space: spaces.Space, seed: int) -> None:
    space.seed(seed)
    values = torch.as_tensor(np.stack([space.sample() for _ in range(6)])).view(2, 3, *(space.shape or ()))
    rows = packed(space, values)
    assert rows.dtype == torch.float32
    assert torch.equal(unpacked(space, rows), values)


def test_an_image_takes_no_more_memory_packed() -> None:
    space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert packed(space, torch.zeros(8, 8, 3, dtype=torch.uint8)).nbytes == 8 * 8 * 3


def test_policies_act_in_units_on_bounded_boxes_alone() -> None:
    assert unit_space(spaces.Box(-3, 5, (2,))) == spaces.Box(-1, 1, (2,))
    for space in (spaces.Box(-np.inf, 1, (2,)), spaces.Discrete(3)):
        assert unit_space(space) is space


def test_unit_actions_are_scaled_into_a_box() -> None:
    # From [-1, 1] to [0, 4]: 2 + 2 a.
    to_env = unit_scale(spaces.Box(0.0, 4.0, (3,)), CPU)
    assert to_env(torch.tensor([-1.0, 0.5, 1.0])).tolist() == [0.0, 3.0, 4.0]


@given(low=strategies.integers(-5, 5), count=strategies.integers(1, 6))
def test_every_integer_of_a_box_has_an_equal_share_of_the_units(low: int, count: int) -> None:
    to_env = unit_scale(spaces.Box(low, low + count - 1, (1,), np.int64), CPU)
    middles = -1 + (2 * torch.arange(5 * count) + 1) / (5 * count)
    found = to_env(torch.cat([middles, torch.tensor([-1.0, 1.0, -7.0, 7.0])]).unsqueeze(-1)).squeeze(-1)
    for value in range(low, low + count):
        assert (found[:-4] == value).sum() == 5
    assert found[-4:].tolist() == [low, low + count - 1, low, low + count - 1]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2.0, 2.0, (), np.float64),
        spaces.Box(-2.0, 2.0, (2, 3)),
        spaces.Box(0, 9, (2,), np.uint8),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]]),
        spaces.MultiBinary((2, 2)),
    ],
)
def test_actions_of_the_units_become_elements_of_the_space(space: spaces.Space) -> None:
    units = unit_space(space)
    units.seed(0)
    actions = torch.as_tensor(np.stack([units.sample() for _ in range(20)]))
    for found in unit_scale(space, CPU)(actions):
        element = np.asarray(found.numpy(), space.dtype)
        assert space.contains(np.int64(element) if isinstance(space, spaces.Discrete) else element)
    assert action_features(space)(actions).shape == (20, spaces.flatdim(space))


def test_unit_actions_are_clipped_first() -> None:
    to_env = unit_scale(spaces.Box(-0.1, 0.1, (2,)), CPU)
    torch.testing.assert_close(to_env(torch.tensor([-7.0, 7.0])), torch.tensor([-0.1, 0.1]))


def test_unit_scale_works_on_each_axis_by_its_own_bounds() -> None:
    low, high = torch.tensor([-1.0, 0.0]).numpy(), torch.tensor([1.0, 10.0]).numpy()
    assert unit_scale(spaces.Box(low, high), CPU)(torch.zeros(1, 2)).tolist() == [[0.0, 5.0]]


def test_actions_of_an_unbounded_box_pass_through() -> None:
    actions = torch.tensor([-7.0, 7.0])
    assert unit_scale(spaces.Box(-np.inf, np.inf, (2,)), CPU)(actions) is actions


def test_discrete_actions_pass_through() -> None:
    actions = torch.tensor([0, 3])
    assert unit_scale(spaces.Discrete(5), CPU)(actions) is actions


def test_scaled_actions_stay_float32() -> None:
    assert unit_scale(spaces.Box(-0.1, 0.1, (2,)), CPU)(torch.zeros(2)).dtype == torch.float32
