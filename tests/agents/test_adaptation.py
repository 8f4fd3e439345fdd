"""The meta-gradient is held against finite differences on MDPs that are small enough to enumerate.

An episode stands for one trajectory and carries its probability in its advantage, so that a "sampled" mean is the
expectation itself and every identity holds to rounding.
"""

from dataclasses import replace
from typing import cast

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.adaptation import Episodes, inner_step, surrogate
from metarl.distributions import Categorical
from metarl.params import flatten, gradient, leaf, per_task, unflatten
from metarl.policies import Policy
from metarl.returns import per_task_mean
from metarl.rollout import Rollout
from tests.runs import central_differences, learner_and_rollouts, one_task

TASKS, STATES, ACTIONS = 3, 2, 2
INNER_LR = 0.7
STATE_PROBABILITIES = torch.tensor([0.3, 0.7], dtype=torch.float64)
REWARDS = torch.randn(TASKS, STATES, ACTIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
START = TensorDict({"logits": torch.tensor([[0.4, -0.3], [0.2, 0.9]], dtype=torch.float64)})


class Table:
    """A softmax over the logits ``[S, A]`` of the state that is observed."""

    def distribution(self, params: TensorDict, observations: Tensor) -> Categorical:
        count = observations.shape[0]
        return Categorical(params["logits"][torch.arange(count).view(-1, 1, 1), observations])


TABLE = cast(Policy, Table())


def episodes_of(observations: Tensor, actions: Tensor, advantages: Tensor, params: TensorDict) -> Episodes:
    """Make episodes ``[N, E, T]`` that were sampled by ``params`` ``[N]``."""
    distribution = TABLE.distribution(params, observations).map(Tensor.detach)
    nowhere = torch.zeros(observations.shape, dtype=torch.bool)
    rollout = Rollout(
        tasks=TensorDict(batch_size=[len(observations)]),
        observations=observations,
        actions=actions,
        rewards=advantages,
        terminated=nowhere,
        truncated=nowhere,
        valid=~nowhere,
        final_observations=observations[..., -1],
        log_probs=distribution.log_prob(actions),
        distribution=distribution,
    )
    return Episodes(rollout, advantages)


def bandit_episodes(params: TensorDict) -> Episodes:
    """Enumerate a contextual bandit: a state is drawn, an action taken, and REWARDS[task, state, action] paid."""
    states, actions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    observations = states.view(1, 4, 1).expand(TASKS, 4, 1)
    taken = actions.view(1, 4, 1).expand(TASKS, 4, 1)
    chances = (
        TABLE.distribution(params, observations).log_prob(taken).exp().detach() * STATE_PROBABILITIES[states][:, None]
    )
    # The surrogate's mean divides by the 4 episodes.
    return episodes_of(observations, taken, 4 * chances * REWARDS[:, states, actions].unsqueeze(-1), params)


def bandit_return(logits: Tensor) -> Tensor:
    """Return the expected reward ``[N]`` of logits ``[N, S, A]``, by its definition."""
    return (STATE_PROBABILITIES[:, None] * logits.softmax(-1) * REWARDS).sum((1, 2))


def adapted_bandit_return(vector: Tensor) -> Tensor:
    """Return the mean over tasks of J_i(theta + a grad J_i(theta)), its gradient being exact."""
    logits = vector.view(STATES, ACTIONS).expand(TASKS, STATES, ACTIONS).clone().requires_grad_()
    (slope,) = torch.autograd.grad(bandit_return(logits).sum(), logits)
    return bandit_return(logits + INNER_LR * slope).mean().detach()


def naive_step(params: TensorDict, episodes: Episodes) -> TensorDict:
    """Take the inner step on log pi * A, which forgets that the data came from the parameters."""
    distribution = TABLE.distribution(params, episodes.rollout.observations)
    objective = distribution.log_prob(episodes.rollout.actions) * episodes.advantages
    slope = gradient(per_task_mean(objective, episodes.rollout.valid).sum(), params, create_graph=True)
    return cast(TensorDict, params + INNER_LR * slope)


def meta_gradient(kind: str) -> Tensor:
    """Return the gradient of the query surrogate at the adapted parameters, with respect to START."""
    params = leaf(START)
    stacked = per_task(params, TASKS)
    support = bandit_episodes(stacked)
    if kind == "naive":
        adapted = naive_step(stacked, support)
    else:
        adapted = inner_step(TABLE, stacked, support, INNER_LR, create_graph=kind == "second order")
    query = bandit_episodes(adapted)
    objective = surrogate(TABLE.distribution(adapted, query.rollout.observations), query).mean()
    return flatten(gradient(objective, params))


TRUE_META_GRADIENT = central_differences(adapted_bandit_return, flatten(START))


def test_the_meta_gradient_is_the_derivative_of_the_adapted_return() -> None:
    torch.testing.assert_close(meta_gradient("second order"), TRUE_META_GRADIENT, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["first order", "naive"])
def test_without_the_whole_second_order_term_it_is_not(kind: str) -> None:
    distance = (meta_gradient(kind) - TRUE_META_GRADIENT).norm() / TRUE_META_GRADIENT.norm()
    assert distance > 0.05


def test_the_naive_surrogate_takes_the_same_inner_step() -> None:
    params = per_task(leaf(START), TASKS)
    episodes = bandit_episodes(params)
    ours = inner_step(TABLE, params, episodes, INNER_LR)
    torch.testing.assert_close(naive_step(params, episodes)["logits"], ours["logits"], rtol=1e-12, atol=1e-12)


def test_the_surrogates_hessian_is_that_of_the_expected_return() -> None:
    def objective(logits: Tensor) -> Tensor:
        episodes = bandit_episodes(per_task(START, TASKS))
        stacked = TensorDict({"logits": logits.view(STATES, ACTIONS).expand(TASKS, STATES, ACTIONS)})
        return surrogate(TABLE.distribution(stacked, episodes.rollout.observations), episodes).sum()

    def slope(vector: Tensor) -> Tensor:
        point = vector.clone().requires_grad_()
        expected = bandit_return(point.view(STATES, ACTIONS).expand(TASKS, STATES, ACTIONS)).sum()
        return torch.autograd.grad(expected, point)[0]

    found = torch.autograd.functional.hessian(objective, flatten(START))
    torch.testing.assert_close(found, central_differences(slope, flatten(START)), rtol=1e-7, atol=1e-9)


class TwoSteps:
    """All 8 trajectories (a0, s1, a1) of a two-step MDP that starts in state 0, with the next state depending on a0."""

    first = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    state = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    second = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    moves = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)

    def log_probs(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return log pi of both actions of every trajectory, ``[8]`` each."""
        table = vector.view(STATES, ACTIONS).log_softmax(-1)
        return table[0, self.first], table[self.state, self.second]

    def chances(self, vector: Tensor) -> Tensor:
        first, second = self.log_probs(vector)
        return self.moves[self.first, self.state] * (first + second).exp()

    def rewards(self) -> tuple[Tensor, Tensor]:
        return REWARDS[0, 0, self.first], REWARDS[0, self.state, self.second]

    def expected_return(self, vector: Tensor) -> Tensor:
        return (self.chances(vector) * sum(self.rewards())).sum()

    def surrogate(self, vector: Tensor) -> Tensor:
        """Return the surrogate of ``vector`` on the trajectories of START, with rewards-to-go as advantages."""
        first, second = self.rewards()
        to_go = torch.stack([first + second, second], -1)
        # The mean divides by 8 episodes of 2 steps.
        advantages = (16 * self.chances(flatten(START)).unsqueeze(-1) * to_go)[None]
        observations = torch.stack([torch.zeros_like(self.state), self.state], -1)[None]
        actions = torch.stack([self.first, self.second], -1)[None]
        episodes = episodes_of(observations, actions, advantages, START.unsqueeze(0))
        params = TensorDict({"logits": vector.view(1, STATES, ACTIONS)})
        return surrogate(TABLE.distribution(params, observations), episodes).sum()


def test_in_two_steps_the_surrogates_gradient_is_that_of_the_expected_return() -> None:
    world, start = TwoSteps(), flatten(START)
    (found,) = torch.autograd.functional.jacobian(world.surrogate, (start,))
    expected = central_differences(world.expected_return, start)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_in_two_steps_the_surrogates_hessian_lacks_the_cross_terms_of_different_steps() -> None:
    # Per step ratios are the LVC estimate: low variance for a bias of E[(g0 g1' + g1 g0') r1], with g_t = grad log pi_t
    # (Rothfuss et al. 2019, section 4: H_12). This pins the bias that is accepted, and that nothing else is missing.
    world, start = TwoSteps(), flatten(START)
    jacobian = torch.autograd.functional.jacobian(lambda vector: torch.stack(world.log_probs(vector)), start)
    weights = world.chances(start) * world.rewards()[1]
    one_way = torch.einsum("k,ki,kj->ij", weights, jacobian[0], jacobian[1])
    true = torch.autograd.functional.hessian(world.expected_return, start)
    found = torch.autograd.functional.hessian(world.surrogate, start)
    torch.testing.assert_close(true - found, one_way + one_way.T, rtol=1e-9, atol=1e-12)


SAMPLED = learner_and_rollouts()


def sampled_episodes() -> tuple[Policy, TensorDict, Episodes]:
    learner, rollouts = SAMPLED
    return learner.policy, per_task(learner.params, 3), Episodes.of(rollouts[0], learner.policy, 0.99, 1.0)


def test_at_the_sampling_parameters_the_surrogate_is_the_mean_advantage() -> None:
    policy, params, episodes = sampled_episodes()
    shifted = replace(episodes, advantages=episodes.advantages + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1))
    value = surrogate(policy.distribution(params, episodes.rollout.observations), shifted)
    torch.testing.assert_close(value, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_surrogate_does_not_see_steps_behind_the_end() -> None:
    policy, params, episodes = sampled_episodes()
    valid = episodes.rollout.valid.clone()
    valid[:, :, 3:] = False
    advantages = episodes.advantages.clone()
    advantages[:, :, 3:] = 1e6
    rollout = replace(episodes.rollout, valid=valid)
    value = surrogate(policy.distribution(params, rollout.observations), Episodes(rollout, advantages))
    torch.testing.assert_close(value, episodes.advantages[:, :, :3].mean((1, 2)), rtol=0, atol=1e-9)


def test_its_gradient_is_the_policy_gradient() -> None:
    policy, params, episodes = sampled_episodes()
    params = leaf(params)
    distribution = policy.distribution(params, episodes.rollout.observations)
    found = gradient(surrogate(distribution, episodes).sum(), params)
    log_probs = policy.distribution(params, episodes.rollout.observations).log_prob(episodes.rollout.actions)
    expected = gradient((log_probs * episodes.advantages).mean((1, 2)).sum(), params)
    torch.testing.assert_close(flatten(found), flatten(expected), rtol=1e-9, atol=1e-12)


def test_the_inner_step_is_the_finite_difference_gradient_of_each_task() -> None:
    policy, params, episodes = sampled_episodes()

    def objective(vector: Tensor) -> Tensor:
        stacked = per_task(unflatten(vector, SAMPLED[0].params), 3)
        return surrogate(policy.distribution(stacked, episodes.rollout.observations), episodes)

    step = inner_step(policy, leaf(params), episodes, INNER_LR) - params
    found = torch.stack([flatten(step[task]) for task in range(3)], 1)
    slope = central_differences(objective, flatten(SAMPLED[0].params))
    torch.testing.assert_close(found, INNER_LR * slope, rtol=1e-6, atol=1e-8)


def test_all_tasks_at_once_step_as_each_alone() -> None:
    policy, params, episodes = sampled_episodes()
    together = inner_step(policy, leaf(params), episodes, INNER_LR)
    for task in range(3):
        alone = Episodes.of(one_task(episodes.rollout, task), policy, 0.99, 1.0)
        stepped = inner_step(policy, leaf(params[task : task + 1]), alone, INNER_LR)
        torch.testing.assert_close(flatten(together[task]), flatten(stepped), rtol=1e-9, atol=1e-12)


def test_a_tasks_rewards_move_no_other_tasks_parameters() -> None:
    policy, params, episodes = sampled_episodes()
    rewards = episodes.rollout.rewards.clone()
    rewards[1] = 100 * rewards[1].square()
    other = Episodes.of(replace(episodes.rollout, rewards=rewards), policy, 0.99, 1.0)
    before, after = (inner_step(policy, leaf(params), each, INNER_LR) for each in (episodes, other))
    assert [torch.equal(flatten(before[task]), flatten(after[task])) for task in range(3)] == [True, False, True]


def test_a_tasks_scale_of_reward_does_not_matter() -> None:
    # Advantages are normalised within each task: 1000 times the reward is the same step.
    policy, params, episodes = sampled_episodes()
    rewards = episodes.rollout.rewards * torch.tensor([1.0, 1000.0, 1.0]).view(3, 1, 1)
    scaled = Episodes.of(replace(episodes.rollout, rewards=rewards), policy, 0.99, 1.0)
    before, after = (inner_step(policy, leaf(params), each, INNER_LR) for each in (episodes, scaled))
    torch.testing.assert_close(flatten(after[1]), flatten(before[1]), rtol=1e-4, atol=1e-6)


def test_advantages_carry_no_graph() -> None:
    learner, rollouts = SAMPLED
    rollout = replace(rollouts[0], rewards=rollouts[0].rewards.clone().requires_grad_())
    assert not Episodes.of(rollout, learner.policy, 0.99, 1.0).advantages.requires_grad


def test_the_first_episodes_keep_their_advantages() -> None:
    _, _, episodes = sampled_episodes()
    part = episodes.first_episodes(0.5)
    assert torch.equal(part.advantages, episodes.advantages[:, :2])
    assert torch.equal(part.rollout.actions, episodes.rollout.actions[:, :2])


def test_a_gaussians_deviation_adapts_too() -> None:
    policy, params, episodes = sampled_episodes()
    assert not torch.equal(inner_step(policy, leaf(params), episodes, INNER_LR)["log_std"], params["log_std"])
