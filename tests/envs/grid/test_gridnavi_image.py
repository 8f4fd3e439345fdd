import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from metarl.envs.grid.gridnavi import GridNavi
from metarl.envs.grid.gridnavi_image import GridNaviImage
from metarl.errors import InputError
from metarl.families.family import Part
from metarl.families.pictures import AGENT
from metarl.families.splits import TaskSplit
from metarl.worlds.vector_env import TaskVectorEnv

BLUE = torch.tensor(AGENT, dtype=torch.uint8)


def watched(family: GridNavi, actions: list[int]) -> tuple[list[torch.Tensor], list[float]]:
    """Return the observations and rewards of a walk in one world with the goal (3, 4)."""
    env = TaskVectorEnv(family, 1)
    env.set_tasks(TensorDict({"goal": torch.tensor([[3, 4]])}, [1]))
    seen, rewards = [env.reset(seed=0)[0][0]], []
    for action in actions:
        observations, reward, *_ = env.step(torch.tensor([action]))
        seen.append(observations[0])
        rewards.append(float(reward))
    return seen, rewards


@pytest.mark.parametrize("pixels", [1, 2, 3, 6])
def test_the_agent_is_the_blue_cell_of_the_picture(pixels: int) -> None:
    family = GridNaviImage(cell_pixels=pixels)
    walk = [2, 2, 1, 1, 1, 1, 4, 3, 0]
    pictures, rewards = watched(family, walk)
    cells, same = watched(GridNavi(), walk)
    assert rewards == same
    for picture, (x, y) in zip(pictures, cells, strict=True):
        assert family.observation_space.contains(picture.numpy())
        rows, columns = (picture == BLUE).all(-1).nonzero(as_tuple=True)
        assert set((rows // pixels).tolist()) == {4 - int(y)}
        assert set((columns // pixels).tolist()) == {int(x)}


def test_a_picture_is_uint8_with_channels_last() -> None:
    assert GridNaviImage().observation_space == spaces.Box(0, 255, (15, 15, 3), np.uint8)


def test_the_goal_is_not_on_the_picture() -> None:
    env = TaskVectorEnv(GridNaviImage(), 2)
    env.set_tasks(TensorDict({"goal": torch.tensor([[3, 4], [2, 2]])}, [2]))
    one, other = env.reset(seed=0)[0]
    assert torch.equal(one, other)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_its_held_out_tasks_are_gridnavis(part: Part) -> None:
    one, other = (TaskSplit(family).held_out_tasks(part, 4)["goal"] for family in (GridNaviImage(), GridNavi()))
    assert torch.equal(one, other)


def test_a_cell_has_at_least_one_pixel() -> None:
    with pytest.raises(InputError, match="cell_pixels must be at least 1, not 0"):
        GridNaviImage(cell_pixels=0)


def test_compare_draws_no_positions_of_pictures() -> None:
    family = GridNaviImage(size=5, horizon=3)
    assert family.positions(torch.zeros(2, 15, 15, 3)) is None
    assert family.staying() is None
