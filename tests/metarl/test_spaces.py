"""Elements of spaces as numbers, and actions between a policy's units and an environment's."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.spaces import features, unit_scale, unit_space

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, ()), spaces.Discrete(4), spaces.Discrete(4, start=-2)]
)
@pytest.mark.parametrize("axes", [(), (5,), (2, 5)])
def test_features_are_what_gymnasium_flattens_an_element_to(space: spaces.Space, axes: tuple[int, ...]) -> None:
    space.seed(0)
    elements = [space.sample() for _ in range(int(np.prod(axes)))]
    expected = np.stack([spaces.flatten(space, element) for element in elements]).reshape(*axes, -1)
    values = torch.as_tensor(np.stack(elements)).reshape((*axes, *(space.shape or ())))
    assert features(space, values).tolist() == expected.tolist()


def test_features_keep_the_precision_of_floating_point_numbers() -> None:
    box = spaces.Box(0, 255, (2,))
    assert features(box, torch.zeros(3, 2, dtype=torch.float64)).dtype == torch.float64
    assert features(box, torch.zeros(3, 2, dtype=torch.uint8)).dtype == torch.float32


def test_policies_act_in_units_on_bounded_boxes_alone() -> None:
    assert unit_space(spaces.Box(-3, 5, (2,))) == spaces.Box(-1, 1, (2,))
    for space in (spaces.Box(-np.inf, 1, (2,)), spaces.Discrete(3)):
        assert unit_space(space) is space


def test_unit_actions_are_scaled_into_a_box() -> None:
    # From [-1, 1] to [0, 4]: 2 + 2 a.
    to_env = unit_scale(spaces.Box(0.0, 4.0, (3,)), CPU)
    assert to_env(torch.tensor([-1.0, 0.5, 1.0])).tolist() == [0.0, 3.0, 4.0]


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
