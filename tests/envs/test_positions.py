"""What families provide for plots of paths and beliefs: positions, maps, and the steps of staying in a cell."""

import pytest
import torch

from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.solved import SolvedFamily
from metarl.families.views import AdvisedFamily, InformedFamily
from metarl.seeding import generator
from metarl.worlds.vector_env import TaskVectorEnv

# Families whose observations show the place of the agent, in their first preset.
SHOWN = {"navigation-2d", "sparse-point", "gridnavi", "four-rooms"}


def start(family: TaskFamily) -> torch.Tensor:
    """Return the observations ``[2, D]`` at the start of two episodes."""
    env = TaskVectorEnv(family, 2)
    env.set_tasks(family.sample_tasks(2, generator(0, "tasks")))
    observations, _ = env.reset(seed=0)
    env.close()
    return observations


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_positions_are_where_the_agent_is(name: str) -> None:
    family = make_family(name)
    positions = family.positions(start(family))
    assert positions is not None
    assert positions.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("name", ["bandit", "tabular-mdp", "half-cheetah-vel"])
def test_families_whose_observations_show_no_place_have_none(name: str) -> None:
    family = make_family(name)
    assert family.positions(torch.zeros(1, *family.observation_space.shape or ())) is None
    assert family.staying() is None


def test_a_grid_that_shows_a_window_shows_no_place() -> None:
    family = make_family("four-rooms", view=5)
    assert family.positions(start(family)) is None


def test_the_agents_mark_on_a_map_is_its_cell() -> None:
    family = make_family("four-rooms")
    assert family.observation_space.shape is not None
    observation = torch.zeros(family.observation_space.shape)
    observation[11 * 3 + 2] = 1.0  # y = 3, x = 2
    positions = family.positions(observation)
    assert positions is not None
    assert positions.tolist() == [2, 3]


def test_a_view_shows_what_is_left_of_the_places() -> None:
    family = make_family("gridnavi")
    assert isinstance(family, SolvedFamily)
    informed = InformedFamily(family)
    positions = informed.positions(start(informed))
    assert positions is not None
    assert positions.tolist() == [[0, 0], [0, 0]]
    assert AdvisedFamily(family).positions(torch.zeros(2, 1)) is None  # it observes the best actions
    (task,) = family.sample_tasks(1, generator(0, "task"))
    assert informed.map_of(task).goal == family.map_of(task).goal


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_task_has_a_map(name: str) -> None:
    family = make_family(name)
    (task,) = family.sample_tasks(1, generator(0, "task"))
    ground = family.map_of(task)
    # The picture fills the map, which is square.
    assert ground.image is None or (ground.image.ndim == 3 and ground.image.shape[0] == ground.image.shape[1])
    assert ground.half > 0 or name not in SHOWN


def test_a_grids_map_is_its_picture_over_all_cells() -> None:
    family = make_family("gridnavi")
    task = family.make_task({"goal": [4, 2]})[0]
    ground = family.map_of(task)
    assert (ground.centre, ground.half, ground.goal) == ((2.0, 2.0), 2.5, (4, 2))
    assert ground.image is not None
    assert ground.image.std() > 0


def test_a_points_map_is_its_view_with_the_goal() -> None:
    ground = make_family("sparse-point").map_of(make_family("sparse-point").make_task({"angle": 0.0})[0])
    assert (ground.centre, ground.half, ground.image) == ((0.0, 0.5), 1.7, None)
    assert (ground.goal, ground.goal_radius) == ((1.0, 0.0), 0.2)
    assert ground.goal_line[0] == pytest.approx((1.0, 0.0))


def test_staying_in_a_cell_stays_there_and_is_rewarded_within_the_range() -> None:
    family = make_family("gridnavi")
    staying = family.staying()
    assert staying is not None
    assert staying.observations.shape == (5, 5, 2)
    assert staying.observations[3, 1].tolist() == [1, 3]  # indexed (y, x)
    env = TaskVectorEnv(family, 1)
    env.set_tasks(family.make_task({"goal": [4, 4]}))
    env.reset(seed=0)
    observations, rewards, *_ = env.step(staying.actions[0, :1])
    assert observations.tolist() == staying.observations[0, :1].tolist()
    assert staying.rewards == (pytest.approx(rewards.item()), 1.0)
