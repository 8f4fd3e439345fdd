from typing import get_args

import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.grid.gridnavi import GridNavi
from metarl.errors import InputError
from metarl.families.family import Part, make_family
from metarl.families.splits import TaskSplit
from metarl.worlds.vector_env import TaskVectorEnv

FAMILY = GridNavi()
STAY, UP, RIGHT, DOWN, LEFT = range(5)


def worlds(goals: torch.Tensor) -> TaskVectorEnv:
    env = TaskVectorEnv(FAMILY, len(goals), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(TensorDict({"goal": goals}, [len(goals)]))
    env.reset(seed=0)
    return env


def walk(*actions: int) -> list[float]:
    """Take actions from the start; return the last cell."""
    env = worlds(torch.tensor([[4, 4]]))
    for action in actions:
        observations, *_ = env.step(torch.tensor([action]))
    cell: list[float] = observations[0].tolist()
    return cell


@pytest.mark.parametrize(
    ("actions", "cell"),
    [
        ([STAY], [0, 0]),
        ([UP], [0, 1]),
        ([RIGHT], [1, 0]),
        ([UP, RIGHT, DOWN], [1, 0]),
        ([UP, RIGHT, LEFT], [0, 1]),
    ],
)
def test_moves(actions: list[int], cell: list[float]) -> None:
    assert walk(*actions) == cell


@pytest.mark.parametrize(
    ("actions", "cell"), [([DOWN], [0, 0]), ([LEFT], [0, 0]), ([UP] * 6, [0, 4]), ([RIGHT] * 6, [4, 0])]
)
def test_walls_hold(actions: list[int], cell: list[float]) -> None:
    assert walk(*actions) == cell


def test_only_steps_that_end_on_the_goal_pay() -> None:
    env = worlds(torch.tensor([[2, 0]]))
    rewards = [env.step(torch.tensor([action]))[1].item() for action in (RIGHT, RIGHT, STAY, LEFT)]
    assert rewards == pytest.approx([-0.1, 1.0, 1.0, -0.1])


def test_the_goal_does_not_end_the_episode() -> None:
    env = worlds(torch.tensor([[2, 0]]))
    assert not any(env.step(torch.tensor([action]))[2].item() for action in (RIGHT, RIGHT, STAY))


def test_there_are_21_goals_away_from_the_start() -> None:
    goals = {tuple(goal) for goal in FAMILY.all_tasks()["goal"].tolist()}
    everywhere = {(x, y) for x in range(5) for y in range(5)}
    assert goals == everywhere - {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_sampled_goals_are_uniform_over_the_allowed_cells() -> None:
    # 21,000 draws: each of 21 cells about 1000 times, standard deviation √(1000 · 20/21) = 31; five of them.
    goals = FAMILY.sample_tasks(21_000, torch.Generator().manual_seed(0))["goal"]
    cells, counts = goals.unique(dim=0, return_counts=True)
    assert len(cells) == 21
    assert (counts - 1000).abs().max() < 155


def test_a_forbidden_goal_is_no_task() -> None:
    # Goals keep away from {0, 1}²; on the start itself the task would be solved by staying.
    with pytest.raises(InputError, match=r"gridnavi: there is no task \{'goal': \[0, 0\]\}"):
        FAMILY.make_task({"goal": [0, 0]})


def steer(cells: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
    """Return the moves that lead from cells ``[B, 2]`` on a shortest way: first across, then up, then stay."""
    across, up = cells[:, 0] < towards[:, 0], cells[:, 1] < towards[:, 1]
    return torch.where(across, RIGHT, torch.where(up, UP, STAY))


def test_full_knowledge_is_worth_what_is_published() -> None:
    goals = FAMILY.all_tasks()["goal"]
    env, total = worlds(goals), torch.zeros(len(goals))
    cells = torch.zeros(len(goals), 2)
    for _ in range(FAMILY.horizon):
        cells, rewards, *_ = env.step(steer(cells, goals))
        total += rewards
    assert total.mean().item() == pytest.approx(11.07, abs=0.005)


def test_the_best_goal_blind_plan_is_worth_what_is_published() -> None:
    # Goal-blind means that actions depend on nothing but the cell and the time. Backward induction over the cells, on
    # the reward that such an agent can expect: the mean over all goals. One world for each cell, action and goal.
    goals = FAMILY.all_tasks()["goal"]
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    begin, action, goal = torch.cartesian_prod(torch.arange(25), torch.arange(5), torch.arange(len(goals))).unbind(-1)
    env = worlds(goals[goal])
    cells, _ = env.reset()
    for _ in range(8):
        cells, *_ = env.step(steer(cells, places[begin]))
    assert torch.equal(cells, places[begin].float())
    reached, rewards, *_ = env.step(action)
    reward = rewards.view(25, 5, len(goals)).mean(-1)
    following = (reached @ torch.tensor([5.0, 1.0])).long().view(25, 5, len(goals))[..., 0]
    value = torch.zeros(25)
    for _ in range(FAMILY.horizon):
        value = (reward + value[following]).amax(-1)
    # 15 · -0.1 + 1.1 · 14/21: from the second step on it is on one of the 21 cells.
    assert value[0].item() == pytest.approx(-1.5 + 1.1 * 14 / 21, abs=1e-5)
    assert value[0].item() == pytest.approx(-0.77, abs=0.005)


def test_the_bayes_optimum_is_worth_what_is_published() -> None:
    # The agent tours the cells until one is rewarded, and in later episodes goes straight there. If none was, it tours
    # the others. The tours visit each new cell as early as possible, and the cells that the first one leaves are on one
    # shortest path, so that the second one finds the goal as soon as full knowledge would.
    first = [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (4, 3), (3, 3), (3, 2), (3, 1), (2, 1), (2, 2), (1, 2)]
    first += [(1, 3), (2, 3)]
    second = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    goals = FAMILY.all_tasks()["goal"]
    env, count = worlds(goals), len(goals)
    found, known = torch.zeros(count, dtype=torch.bool), torch.zeros(count, 2)
    means = []
    for tour in (first, second, second, second):
        cells, total = env.reset()[0], torch.zeros(count)
        for step in range(FAMILY.horizon):
            untried = torch.tensor(tour[min(step, len(tour) - 1)]).expand(count, 2)
            actions = moves(cells, torch.where(found[:, None], straight(cells, known), untried))
            cells, rewards, *_ = env.step(actions)
            total, found = total + rewards, found | (rewards > 0)
            known = torch.where((rewards > 0)[:, None], cells, known)
        means.append(total.mean().item())
    # 4.0 is also a bound: a step tries one cell, none can be tried before the second, and 14 steps try 14 of 21.
    assert means == pytest.approx([4.0, 11.0714, 11.0714, 11.0714], abs=1e-4)


def straight(cells: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """Return the next cells on the way from cells to goals ``[B, 2]``: first across, then up."""
    across = torch.stack([(goals - cells)[:, 0].sign(), torch.zeros(len(cells))], -1)
    up = torch.stack([torch.zeros(len(cells)), (goals - cells)[:, 1].sign()], -1)
    return cells + torch.where((across != 0).any(-1, keepdim=True), across, up)


def moves(cells: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Return the actions that lead from cells to the neighbours ``following`` ``[B, 2]``."""
    steps = torch.tensor([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
    matches: torch.Tensor = ((following - cells)[:, None] == steps).all(-1)
    assert matches.any(-1).all(), "not a neighbour"
    return matches.long().argmax(-1)


def test_a_grid_needs_three_cells_a_side() -> None:
    with pytest.raises(InputError, match="at least 3 cells per side, not 2"):
        GridNavi(size=2)


def test_a_larger_grid_has_more_goals() -> None:
    assert len(GridNavi(size=7).all_tasks()) == 45


def test_shared_goals_are_in_every_part() -> None:
    split = TaskSplit(make_family("gridnavi", "varibad-shared"))
    assert all(len(split.held_out_tasks(part, 40)) == 21 for part in get_args(Part))
