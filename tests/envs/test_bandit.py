import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.bandit import Bandit
from metarl.errors import InputError
from metarl.vector_env import TaskVectorEnv

TASKS, PULLS = 2000, 100


def pull(arms: torch.Tensor, probabilities: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Pull each bandit's arm of ``arms`` ``[B]`` PULLS times; return the total rewards ``[B]``."""
    family = Bandit(arms=probabilities.shape[1])
    env = TaskVectorEnv(family, len(arms), autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks(TensorDict({"probabilities": probabilities}, [len(arms)]))
    env.reset(seed=seed)
    return sum((env.step(arms)[1] for _ in range(PULLS)), torch.zeros(len(arms)))


def assert_mean(totals: torch.Tensor, expected: float) -> None:
    """Hold the mean over tasks against its expectation, within four standard errors."""
    error = totals.std().item() / len(totals) ** 0.5
    assert totals.mean().item() == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize(("arms", "published"), [(10, 90.9), (5, 83.3)])
def test_the_best_arm_pays_what_is_published(arms: int, published: float) -> None:
    # The largest of K uniform numbers is K / (K + 1) on average: 10/11 and 5/6.
    probabilities = Bandit(arms=arms).sample_tasks(TASKS, torch.Generator().manual_seed(0))["probabilities"]
    assert 100 * arms / (arms + 1) == pytest.approx(published, abs=0.05)
    assert_mean(pull(probabilities.argmax(1), probabilities), 100 * arms / (arms + 1))


def test_an_arm_at_random_pays_half() -> None:
    # Published by simulation: 49.9. Tasks are exchangeable in their arms, so arm 0 is as random as any.
    probabilities = Bandit(arms=10).sample_tasks(TASKS, torch.Generator().manual_seed(0))["probabilities"]
    assert_mean(pull(torch.zeros(TASKS, dtype=torch.int64), probabilities), 50.0)


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
