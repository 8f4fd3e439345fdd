"""The values that published work states for doing nothing and for knowing the task, met by our own environments.

They are those of shared/reference/tasks.md. Where nothing else is said, the sampler runs over drawn tasks. Means are
held to four of their standard errors; against published numbers there is a slack on top: the rounding of their last
digit, or the standard error of those that were simulated themselves.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.basic.bandit import Bandit
from metarl.envs.basic.navigation import MAX_MOVE, Navigation2D
from metarl.envs.basic.tabular import TabularMDP
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.families.family import TaskFamily, make_family
from metarl.numerics.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.sampling.sampler import Sampler
from tests.fakes import DrawingActor

Policy = Callable[[Tensor, TensorDict], Distribution]


@dataclass
class Knowing(DrawingActor):
    """An actor that knows the tasks, which are its state."""

    policy: Policy

    def action_distribution(self, working: Any, observations: Tensor) -> Distribution:
        return self.policy(observations, working.state)


def drawn(family: TaskFamily, count: int) -> TensorDict:
    return family.sample_tasks(count, torch.Generator().manual_seed(0))


def totals(
    family: TaskFamily, policy: Policy, tasks: TensorDict, episodes: int = 1, deterministic: bool = True
) -> Tensor:
    """Return the total reward of every task over all of its episodes, ``[N]``."""
    rollout = Sampler(family).collect(Knowing(policy), tasks, tasks, episodes, seed=0, deterministic=deterministic)
    return rollout.rewards.sum((1, 2))


def assert_mean(values: Tensor, expected: float, slack: float = 0.0) -> None:
    """Hold the mean of independent values against ``expected``: within four standard errors and ``slack``."""
    error = values.std().item() / len(values) ** 0.5
    assert values.mean().item() == pytest.approx(expected, abs=4 * error + slack)


def at_random(observations: Tensor, actions: int) -> Categorical:
    return Categorical(torch.zeros(*observations.shape[:2], actions))


def resting(observations: Tensor, actions: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.zeros(*observations.shape[:2], actions), torch.zeros(1, 1, actions))


def choosing(chosen: Tensor, actions: int) -> Categorical:
    """Return distributions whose modes are ``chosen`` ``[N, E]``."""
    return Categorical(torch.nn.functional.one_hot(chosen, actions).float())


# --- Bernoulli bandits: total reward of n pulls (RL², table 1) --------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "pulls", "published", "slack"), [(10, 100, 49.9, 0.5), (5, 100, 49.9, 0.5), (5, 10, 5.0, 0.1)]
)
def test_bandit_at_random(arms: int, pulls: int, published: float, slack: float) -> None:
    # Half of the pulls are rewarded. The published means are those of 1000 simulated tasks: totals of 100 pulls have
    # standard deviations of 10 (k = 10) to 14 (k = 5), those of 10 pulls of 2: standard errors of 0.3 to 0.5, and 0.06.
    family = Bandit(arms=arms)
    found = totals(family, lambda seen, _: at_random(seen, arms), drawn(family, 5000), pulls, deterministic=False)
    assert_mean(found, pulls / 2)
    assert_mean(found, published, slack)


@pytest.mark.parametrize(
    ("arms", "pulls", "published", "rounding"), [(10, 100, 90.9, 0.05), (5, 100, 83.3, 0.05), (5, 10, 8.33, 0.005)]
)
def test_bandit_with_the_best_arm_known(arms: int, pulls: int, published: float, rounding: float) -> None:
    # The largest of k uniform numbers is k / (k + 1) on average; the published values are that, rounded.
    def best(observations: Tensor, tasks: TensorDict) -> Categorical:
        return choosing(tasks["probabilities"].argmax(-1, keepdim=True).expand(observations.shape[:2]), arms)

    assert pulls * arms / (arms + 1) == pytest.approx(published, abs=rounding)
    family = Bandit(arms=arms)
    assert_mean(totals(family, best, drawn(family, 5000), pulls), published, rounding)


# --- Tabular MDP: total reward of n = 10 episodes (RL², table 2) ------------------------------------------------------

MDP = TabularMDP()
EPISODES = 10


def action_values(tasks: TensorDict) -> list[Tensor]:
    """Return what each action ``[N, S, A]`` is worth at each step of an episode, by backward induction."""
    values, following = [], torch.zeros(len(tasks), MDP.states)
    for _ in range(MDP.horizon):
        values.append(tasks["means"] + torch.einsum("nsat,nt->nsa", tasks["transitions"], following))
        following = values[-1].amax(-1)
    return values[::-1]


def knowing_the_mdp(tasks: TensorDict) -> Policy:
    step, values = itertools.count(), action_values(tasks)

    def policy(observations: Tensor, _: TensorDict) -> Categorical:
        return choosing((observations @ values[next(step)]).argmax(-1), MDP.actions)

    return policy


def test_tabular_mdp_at_random() -> None:
    # A hundred rewards of mean 1. The published mean is one of simulated tasks: totals deviate by 20, so that 1000
    # tasks leave an error of 0.6.
    found = totals(MDP, lambda seen, _: at_random(seen, MDP.actions), drawn(MDP, 5000), EPISODES, deterministic=False)
    assert_mean(found, 100.0)
    assert_mean(found, 100.1, slack=0.6)


def test_tabular_mdp_known_is_worth_what_is_published() -> None:
    # 400,000 tasks put the mean at 218.31 with a standard error of 0.04; published as 218.
    values = EPISODES * action_values(drawn(MDP, 20_000))[0][:, 0].amax(-1)
    assert_mean(values, 218.31)
    assert_mean(values, 218.0, slack=0.5)


def test_tabular_mdp_known_earns_what_it_is_worth() -> None:
    # Task by task, so that only the rewards and transitions of the run are chance.
    tasks = drawn(MDP, 2000)
    worth = EPISODES * action_values(tasks)[0][:, 0].amax(-1)
    found = totals(MDP, knowing_the_mdp(tasks), tasks, EPISODES)
    assert_mean(found - worth, 0.0)
    assert_mean(found, 218.0, slack=0.5)


# --- 2D navigation ----------------------------------------------------------------------------------------------------


def steering(gain: float) -> Policy:
    """Return the policy that moves by ``gain`` times the way to the goal, as far as one step may go."""

    def policy(observations: Tensor, tasks: TensorDict) -> DiagonalGaussian:
        moves = gain * (tasks["goal"][:, None] - observations)
        return DiagonalGaussian(moves / MAX_MOVE, torch.zeros(1, 1, 2))

    return policy


def test_navigation_staying_at_the_origin() -> None:
    # The mean distance of a point of the unit square from its centre is (√2 + asinh 1) / 6 = 0.3826; a hundred times.
    # One goal in 2500 lies within 0.01 of the origin and ends the episode at once; it costs next to nothing anyway. The
    # published -38.4 was simulated: returns deviate by 14, so that even 10,000 goals leave an error of 0.14.
    family = Navigation2D()
    found = totals(family, steering(0.0), drawn(family, 10_000))
    assert_mean(found, -38.26)
    assert_mean(found, -38.4, slack=0.14)


def test_navigation_straight_to_the_goal() -> None:
    # At full speed on each axis until it is reached; the episode ends there, or up to 0.01 short of it.
    family = Navigation2D()
    assert_mean(totals(family, steering(1.0), drawn(family, 10_000)), -0.51, slack=0.005)


# --- HalfCheetahVel: by the family's own reward, as no controller here runs at a constant speed -----------------------


def constant_speed(family: LocomotionFamily, speed: float, tasks: TensorDict) -> Tensor:
    """Return what an episode at a constant speed without control costs earns on every task, ``[N]``."""
    count = len(tasks)
    velocity, actions = torch.full((count, 1), speed), torch.zeros(count, family.model.nu)
    terms = family.reward_terms(velocity, torch.zeros(count, family.model.nq), actions, tasks)
    return family.horizon * sum((term for key, term in terms.items() if key.startswith("reward_")), torch.zeros(count))


@pytest.mark.parametrize(
    ("preset", "standing", "best", "best_speed"),
    [("0-3-h200", -300, -150, 1.5), ("0-2-h200", -200, -100, 1.0), ("0-2-h100", -100, -50, 1.0)],
)
def test_half_cheetah_at_constant_speed(preset: str, standing: float, best: float, best_speed: float) -> None:
    # The mean distance of v* ~ U[0, m] is m / 2 from 0, and at its least, from the middle, m / 4.
    family = make_family("half-cheetah-vel", preset)
    assert isinstance(family, LocomotionFamily)
    tasks = drawn(family, 50_000)
    returns = {speed / 10: constant_speed(family, speed / 10, tasks) for speed in range(31)}
    assert_mean(returns[0.0], standing)
    fastest = max(returns, key=lambda speed: returns[speed].mean().item())
    assert fastest == best_speed
    assert_mean(returns[fastest], best)


def test_a_half_cheetah_without_control_is_still() -> None:
    # In the simulator: it starts with speeds of about 0.1 m/s and settles within 0.1 m or so. A way of 0.25 m changes
    # the return by 0.25 / 0.05 = 5 at most.
    family = make_family("half-cheetah-vel", "0-3-h200")
    tasks = drawn(family, 40)
    found = totals(family, lambda seen, _: resting(seen, actions=6), tasks)
    torch.testing.assert_close(found, -200 * tasks["velocity"], rtol=0, atol=5)
