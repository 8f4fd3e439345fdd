"""What all gridworlds share, compared with loops over single cells; and the helpers of the other gridworld tests."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch._subclasses.fake_tensor import FakeTensorMode

from metarl.envs.grid.engine import DOOR, GOAL, KEY, WALL, GridFamily, SightedGrid
from metarl.envs.grid.gridnavi import GridNavi
from metarl.envs.grid.keys import KeyAndDoor
from metarl.envs.grid.mazes import RandomMazes
from metarl.envs.grid.moving_goal import MovingGoal
from metarl.envs.grid.rooms import FourRooms
from metarl.envs.grid.rules import HUE, KIND, RuleWorlds
from metarl.errors import InputError
from metarl.families.tensor_family import State
from metarl.worlds.vector_env import TaskVectorEnv

STAY, UP, RIGHT, DOWN, LEFT, USE = range(6)
STEPS = {STAY: (0, 0), UP: (0, 1), RIGHT: (1, 0), DOWN: (0, -1), LEFT: (-1, 0), USE: (0, 0)}
SIGHTED = [FourRooms, MovingGoal, RandomMazes, KeyAndDoor, RuleWorlds]
Cell = tuple[int, int]


def worlds(family: GridFamily, tasks: TensorDict) -> TaskVectorEnv:
    env = TaskVectorEnv(family, len(tasks), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(tasks)
    env.reset(seed=0)
    return env


def drawn(family: GridFamily, count: int, seed: int = 0) -> TensorDict:
    return family.sample_tasks(count, torch.Generator().manual_seed(seed))


def random_actions(family: GridFamily, steps: int, count: int, seed: int = 0) -> torch.Tensor:
    """Draw actions ``[steps, count]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(int(family.action_space.n), (steps, count), generator=generator)


def walls_of(family: GridFamily, task: TensorDict) -> np.ndarray:
    """Return walls ``[size, size]``, indexed (y, x), of a task ``[]``."""
    return np.asarray(task["walls"] if "walls" in task.keys() else family.layout()).astype(bool)


def stepped(walls: np.ndarray, cell: Cell, action: int) -> Cell:
    """Move as the docstrings say, one world at a time."""
    x, y = cell[0] + STEPS[action][0], cell[1] + STEPS[action][1]
    on_map = 0 <= min(x, y) <= max(x, y) < len(walls)
    return (x, y) if on_map and not walls[y, x] else cell


def agent_on(family: GridFamily, observation: torch.Tensor) -> Cell:
    """Read the agent's cell from an observation of the map."""
    plane = observation[: family.size**2]
    assert plane.sum() == 1
    number = int(plane.argmax())
    return number % family.size, number // family.size


def seen(family: SightedGrid, walls: np.ndarray, agent: Cell, codes: dict[Cell, int], hand: int = 0) -> list[float]:
    """Return the planes of the window around ``agent``, cell by cell."""
    assert family.view is not None
    reach, numbers = family.view // 2, []
    for bit in family.in_window:
        for y in range(agent[1] - reach, agent[1] + reach + 1):
            for x in range(agent[0] - reach, agent[0] + reach + 1):
                on_map = 0 <= min(x, y) <= max(x, y) < family.size
                code = codes.get((x, y), int(walls[y, x]) * WALL) if on_map else WALL
                numbers.append(float(bool(code & bit)))
        numbers += [float(bool(hand & bit))] * family.carries
    return numbers


def things_of(family: SightedGrid, task: TensorDict) -> dict[Cell, int]:
    """Return the codes of the things that lie in a world at first, by cell."""
    if isinstance(family, RuleWorlds):
        looks = [KIND * (1 + kind) + HUE * hue for kind, hue in task["objects"].tolist()]
        looks = looks[:1] + looks[1 + family.fusions :]
        return {(x, y): look for (x, y), look in zip(task["cells"].tolist(), looks, strict=True)}
    if isinstance(family, MovingGoal):
        return {cell_of(task["start"]): GOAL}
    things = {cell_of(task["goal"]): GOAL}
    if isinstance(family, KeyAndDoor):
        things |= {cell_of(task["key"]): KEY, (family.size // 2, int(task["door"])): DOOR}
    return things


def cell_of(pair: torch.Tensor) -> Cell:
    x, y = pair.tolist()
    return x, y


@pytest.mark.parametrize("kind", [FourRooms, MovingGoal, RandomMazes])
def test_agents_move_as_if_alone(kind: Any) -> None:
    family, count = kind(), 40
    tasks = drawn(family, count)
    env, cells = worlds(family, tasks), [(0, 0)] * count
    layouts = [walls_of(family, tasks[row]) for row in range(count)]
    for actions in random_actions(family, 60, count):
        observations, *_ = env.step(actions)
        cells = [stepped(*one) for one in zip(layouts, cells, actions.tolist(), strict=True)]
        assert [agent_on(family, observation) for observation in observations] == cells


@pytest.mark.parametrize("view", [3, 5, 7])
@pytest.mark.parametrize("kind", [FourRooms, RandomMazes, KeyAndDoor, RuleWorlds])
def test_the_window_shows_what_lies_around_the_agent(kind: Any, view: int) -> None:
    family, count = kind(view=view), 30
    tasks = drawn(family, count)
    env, cells = worlds(family, tasks), [(0, 0)] * count
    layouts = [walls_of(family, tasks[row]) for row in range(count)]
    things = [things_of(family, tasks[row]) for row in range(count)]
    places = len(seen(family, layouts[0], (0, 0), {}))
    for actions in random_actions(family, 25, count):
        walks = actions.where(actions != USE, STAY)
        observations, *_ = env.step(walks)
        cells = [stepped(*one) for one in zip(layouts, cells, walks.tolist(), strict=True)]
        for observation, walls, cell, codes in zip(observations, layouts, cells, things, strict=True):
            if codes.get(cell) == KEY:
                del codes[cell]
            assert observation[:places].tolist() == seen(family, walls, cell, codes)


@pytest.mark.parametrize("kind", SIGHTED)
def test_at_first_the_window_shows_the_corner(kind: Any) -> None:
    family = kind(view=5)
    tasks = drawn(family, 50)
    observations, _ = worlds(family, tasks).reset()
    for row, observation in enumerate(observations):
        expected = seen(family, walls_of(family, tasks[row]), (0, 0), things_of(family, tasks[row]))
        assert observation[: len(expected)].tolist() == expected


def test_the_map_of_a_maze_shows_its_walls() -> None:
    family = RandomMazes()
    tasks = drawn(family, 20)
    observations, _ = worlds(family, tasks).reset()
    assert torch.equal(observations[:, 81:].view(20, 9, 9), tasks["walls"].float())


@pytest.mark.parametrize("view", [None, 3])
@pytest.mark.parametrize("kind", [FourRooms, MovingGoal, KeyAndDoor])
def test_nothing_is_seen_of_a_hidden_task_before_there_is_evidence(kind: Any, view: int | None) -> None:
    # Two tasks with the same actions: as long as neither has paid or come into view, they look alike.
    family, count = kind(view=view), 1000
    pair = [worlds(family, drawn(family, count, seed)) for seed in (1, 2)]
    alike = torch.ones(count, dtype=torch.bool)
    for actions in random_actions(family, 12, count):
        for observations, rewards, *_ in (steps := [env.step(actions) for env in pair]):
            alike &= ~((rewards > 0) | things_in_view(family, observations))
        assert torch.equal(*(observations[alike] for observations, *_ in steps))
    assert 0 < alike.sum() < count


def things_in_view(family: SightedGrid, observations: torch.Tensor) -> torch.Tensor:
    """Return whether each observation shows a thing that is no wall; maps of these families show none."""
    cells = (family.view or 0) ** 2
    return observations[:, cells : cells * len(family.in_window)].any(-1)


@pytest.mark.parametrize("view", [None, 5])
@pytest.mark.parametrize("kind", SIGHTED)
def test_a_step_never_waits_for_the_device(kind: Any, view: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fake tensors have no numbers and refuse whatever would need one: item, a branch, a selection by a mask. And
    # numbers that the host hands over at each step would have to be copied to the device.
    family = kind(view=view)
    tasks = drawn(family, 4)
    real = family.initial_state(tasks, torch.Generator())
    actions = random_actions(family, 1, 4)[0]
    family.observation(family.transition(real, actions, tasks, torch.Generator())[0])  # makes the tables
    monkeypatch.setattr(torch, "tensor", None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        state: State = {key: mode.from_tensor(value) for key, value in real.items()}
        fake: Any = TensorDict({key: mode.from_tensor(value) for key, value in tasks.to_dict().items()}, [4])
        following, transition = family.transition(state, mode.from_tensor(actions), fake, torch.Generator())
        assert family.observation(following).shape == (4, *family.observation_space.shape)
    assert transition.rewards.shape == (4,)


@pytest.mark.parametrize("kind", [GridNavi, *SIGHTED])
def test_a_map_must_have_room(kind: Any) -> None:
    with pytest.raises(InputError, match=rf"{kind.name} needs at least \d cells per side, not 2"):
        kind(size=2)


@pytest.mark.parametrize("view", [-1, 0, 1, 4])
@pytest.mark.parametrize("kind", SIGHTED)
def test_a_window_has_a_middle(kind: Any, view: int) -> None:
    with pytest.raises(InputError, match=rf"{kind.name}: view must be None or an odd number of cells, .* not {view}"):
        kind(view=view)


@pytest.mark.parametrize("kind", SIGHTED)
def test_a_window_may_reach_beyond_the_map(kind: Any) -> None:
    family = kind(view=31)
    observations, _ = worlds(family, drawn(family, 2)).reset()
    assert observations.shape[1:] == family.observation_space.shape
