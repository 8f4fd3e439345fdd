import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.basic.bandit import Bandit
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.families.pictures import GOAL, SIDE
from metarl.worlds.vector_env import TaskVectorEnv

PULLS = 100


def pull(arms: torch.Tensor, probabilities: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Pull each bandit's arm of ``arms`` ``[B]`` PULLS times; return the total rewards ``[B]``."""
    family = Bandit(arms=probabilities.shape[1])
    env = TaskVectorEnv(family, len(arms), autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks(TensorDict({"probabilities": probabilities}, [len(arms)]))
    env.reset(seed=seed)
    return sum((env.step(arms)[1] for _ in range(PULLS)), torch.zeros(len(arms)))


def test_an_arm_pays_at_its_own_probability() -> None:
    # 200 bandits of 100 pulls: standard error of the frequency √(0.3 · 0.7 / 20000) = 0.0032; four of them.
    totals = pull(torch.full((200,), 1), torch.tensor([[0.9, 0.3]]).expand(200, 2).contiguous())
    assert totals.mean().item() / PULLS == pytest.approx(0.3, abs=0.013)


def test_certain_arms_always_and_never_pay() -> None:
    totals = pull(torch.tensor([0, 1]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert totals.tolist() == [0.0, 100.0]


def test_bandits_pay_independently_of_each_other() -> None:
    probabilities = torch.full((50, 2), 0.5)
    assert len(pull(torch.zeros(50, dtype=torch.int64), probabilities).unique()) > 1


def test_every_pull_terminates() -> None:
    env = TaskVectorEnv(Bandit(), 3)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(torch.tensor([0, 1, 2]))
    assert terminated.tolist() == [True] * 3
    assert truncated.tolist() == [False] * 3


def test_there_is_nothing_to_observe() -> None:
    env = TaskVectorEnv(Bandit(), 3)
    assert env.reset(seed=0)[0].tolist() == [[0.0]] * 3
    assert env.step(torch.tensor([0, 1, 2]))[0].tolist() == [[0.0]] * 3


def test_tasks_are_uniform() -> None:
    # 10,000 uniform numbers: standard errors 0.0029 of the mean, and 0.0030 of the mean square 1/3; four of each.
    draws = Bandit(arms=5).sample_tasks(2000, torch.Generator().manual_seed(0))["probabilities"]
    assert draws.mean().item() == pytest.approx(1 / 2, abs=0.0116)
    assert draws.square().mean().item() == pytest.approx(1 / 3, abs=0.012)


def test_one_arm_is_no_choice() -> None:
    with pytest.raises(InputError, match="at least 2 arms, not 1"):
        Bandit(arms=1)


def test_an_episode_is_one_pull() -> None:
    with pytest.raises(InputError, match="its horizon is 1, not 10"):
        Bandit(horizon=10)


@pytest.mark.parametrize(("preset", "arms"), [("k5", 5), ("k10", 10), ("k50", 50)])
def test_presets(preset: str, arms: int) -> None:
    # n, the pulls, is how many episodes a trial has: the family has no say in it.
    assert make_family("bandit", preset) == Bandit(arms=arms, horizon=1)


def test_the_picture_is_a_bar_for_each_arm() -> None:
    # In the middle of each arm's share of the width, from the ground 20 pixels above the bottom, up to 216 pixels high.
    task = TensorDict({"probabilities": torch.tensor([1.0, 0.5, 0.0, 0.25])}, [])
    picture = Bandit(arms=4).picture({}, task)
    heights = [(picture[: SIDE - 22, int((arm + 0.5) * SIDE / 4)] == GOAL).all(-1).sum() for arm in range(4)]
    assert heights == pytest.approx([214, 106, 0, 52], abs=2)
