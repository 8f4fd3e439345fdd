import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces

import metarl  # noqa: F401 (registers families)
from metarl.agents.baselines.random_policy import RandomConfig, RandomPolicy, UniformUnits
from metarl.errors import InputError
from metarl.experiments.commands.main import main
from metarl.families.family import make_family
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from tests.fakes import EchoFamily

CPU = torch.device("cpu")


def collect(name: str, episodes: int, deterministic: bool = False) -> Rollout:
    family = make_family(name)
    tasks = family.sample_tasks(4, torch.Generator().manual_seed(0))
    policy = RandomPolicy(family, RandomConfig(), 1, CPU)
    return Sampler(family).collect(policy, policy.begin(4), tasks, episodes, 1, deterministic)


def test_discrete_actions_are_equally_frequent() -> None:
    rollout = collect("gridnavi", 200)
    shares = torch.bincount(rollout.actions.flatten(), minlength=5) / rollout.actions.numel()
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.02, rtol=0)
    torch.testing.assert_close(rollout.log_probs, torch.full_like(rollout.log_probs, -math.log(5)))


def test_real_actions_fill_the_units() -> None:
    rollout = collect("navigation-2d", 20)
    actions = rollout.actions[rollout.valid]
    assert actions.abs().max() <= 1
    torch.testing.assert_close(actions.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(actions.var(0), torch.full((2,), 1 / 3), atol=0.03, rtol=0)
    torch.testing.assert_close(rollout.log_probs[rollout.valid], torch.full((len(actions),), -2 * math.log(2)))


def test_a_bandit_pays_what_pulling_at_random_pays() -> None:
    rollout = collect("bandit", 2000)
    expected = rollout.tasks["probabilities"].mean(1)
    torch.testing.assert_close(rollout.episode_returns().mean(1), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(("name", "action"), [("gridnavi", 0), ("navigation-2d", 0.0)])
def test_deterministic_actions_are_always_the_same(name: str, action: float) -> None:
    assert (collect(name, 2, deterministic=True).actions == action).all()


def test_the_same_seed_gives_the_same_actions() -> None:
    assert torch.equal(collect("navigation-2d", 2).actions, collect("navigation-2d", 2).actions)


def test_nothing_is_learned() -> None:
    policy = RandomPolicy(make_family("gridnavi"), RandomConfig(), 1, CPU)
    assert policy.update([collect("gridnavi", 2)]) == {"learned_env_steps": 0.0}
    assert policy.state_dict() == {}


def test_uniform_distributions_do_not_diverge() -> None:
    one = UniformUnits(torch.zeros(3, 2))
    assert one.kl(one).tolist() == [0, 0, 0]


@dataclass(frozen=True)
class AnyActions(EchoFamily):
    """A family with actions of one's choice."""

    space: spaces.Space[Any] = field(default_factory=lambda: spaces.Discrete(2))

    @property
    def action_space(self) -> spaces.Space[Any]:
        return self.space


@pytest.mark.parametrize(
    ("space", "values", "chance"),
    [
        (spaces.Box(-1.0, 1.0, (2, 3)), 6, 0.5**6),
        (spaces.MultiDiscrete([2, 3]), 2, 1 / 6),
        (spaces.MultiBinary(3), 3, 1 / 8),
        (spaces.Discrete(3, start=5), 1, 1 / 3),
    ],
)
def test_every_action_of_a_space_is_as_likely(space: spaces.Space[Any], values: int, chance: float) -> None:
    policy = RandomPolicy(AnyActions(space=space), RandomConfig(), 1, CPU)
    stream = torch.Generator().manual_seed(0)
    actions, distribution = policy.act(policy.open(None, 50, stream), torch.zeros(2, 50, 3), stream)
    assert actions.numel() == 2 * 50 * values
    torch.testing.assert_close(distribution.log_prob(actions).exp(), torch.full((2, 50), chance))


def test_a_space_without_a_policy_is_refused() -> None:
    with pytest.raises(InputError, match="no policy can act in Text"):
        RandomPolicy(AnyActions(space=spaces.Text(3)), RandomConfig(), 1, CPU)


def test_it_is_trained_and_evaluated_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--iterations 2 --tasks-per-batch 2 --episodes-per-task 3 --track disabled --out run"
    assert main(["train", "random", "gridnavi", *words.split()]) == 0
    assert main(["evaluate", "run", "--tasks", "3", "--steps", "1"]) == 0
