import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.gridworld import MOVES, GridNavi
from metarl.errors import InputError
from metarl.vector_env import TaskVectorEnv

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


def test_full_knowledge_is_worth_what_is_published() -> None:
    # On the shortest way to every goal: first across, then up, then stay.
    goals = FAMILY.all_tasks()["goal"]
    env, total = worlds(goals), torch.zeros(len(goals))
    cells = torch.zeros(len(goals), 2)
    for _ in range(FAMILY.horizon):
        across, up = cells[:, 0] < goals[:, 0], cells[:, 1] < goals[:, 1]
        actions = torch.where(across, RIGHT, torch.where(up, UP, STAY))
        cells, rewards, *_ = env.step(actions)
        total += rewards
    assert total.mean().item() == pytest.approx(11.07, abs=0.005)


def test_the_best_goal_blind_plan_is_worth_what_is_published() -> None:
    # Backward induction over the cells, on the reward that a goal-blind agent can expect: the mean over all goals.
    goals = FAMILY.all_tasks()["goal"]
    cells = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    grid = torch.cartesian_prod(torch.arange(25), torch.arange(len(MOVES)), torch.arange(len(goals)))
    state, transition = FAMILY.transition(
        {"cell": cells[grid[:, 0]]},
        grid[:, 1],
        TensorDict({"goal": goals[grid[:, 2]]}, [len(grid)]),
        torch.Generator(),
    )
    reward = transition.rewards.view(25, len(MOVES), len(goals)).mean(-1)
    following = (state["cell"] @ torch.tensor([5, 1])).view(25, len(MOVES), len(goals))[..., 0]
    value = torch.zeros(25)
    for _ in range(FAMILY.horizon):
        value = (reward + value[following]).amax(-1)
    # 15 · -0.1 + 1.1 · 14/21: from the second step on it stands on one of the 21 cells.
    assert value[0].item() == pytest.approx(-1.5 + 1.1 * 14 / 21, abs=1e-5)
    assert value[0].item() == pytest.approx(-0.77, abs=0.005)


def test_a_grid_needs_three_cells_a_side() -> None:
    with pytest.raises(InputError, match="at least 3 cells a side, not 2"):
        GridNavi(size=2)


def test_a_larger_grid_has_more_goals() -> None:
    assert len(GridNavi(size=7).all_tasks()) == 45
