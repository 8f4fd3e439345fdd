"""The meta-gradient is compared with finite differences on MDPs that are small enough to enumerate.

An episode represents one trajectory and carries its probability in its advantage, so that a "sampled" mean is the
expectation itself and every identity holds to rounding.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import cast

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient.adaptation import (
    STEP_SIZE,
    SURROGATES,
    Episodes,
    SurrogateName,
    dice,
    inner_step,
    likelihood_ratio,
    naive,
    surrogate,
)
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.learning.policies import Policy
from metarl.numerics.distributions import Categorical
from metarl.numerics.params import flatten, gradient, leaf, names, per_task, unflatten
from metarl.rollouts.returns import per_task_mean
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
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


def episodes_of(
    observations: Tensor, actions: Tensor, advantages: Tensor, params: TensorDict, valid: Tensor | None = None
) -> Episodes:
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
        valid=~nowhere if valid is None else valid,
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


class Tree:
    """All 32 trajectories (a0, s1, a1, s2, a2) of three steps from state 0; action 1 in state 1 ends the episode.

    What follows an end has chance 1/2 each, whatever the policy, so that the chances of all trajectories sum to 1.
    The ``terms`` are those of Rothfuss et al. 2019, proposition 1: the Hessian of the expected return is
    H1 + H2 + H12 + H12'.
    """

    moves = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]]], dtype=torch.float64)
    plan = torch.cartesian_prod(*[torch.arange(2)] * 5)
    actions = plan[:, 0::2]
    states = torch.cat([torch.zeros(32, 1, dtype=torch.int64), plan[:, 1::2]], 1)
    ends = (states == 1) & (actions == 1)
    valid = torch.cat([torch.ones(32, 1, dtype=torch.bool), ~ends[:, :-1].cummax(1)[0]], 1)
    drawn = torch.where(valid[:, 1:], moves[states[:, :-1], actions[:, :-1], states[:, 1:]], 0.25)
    luck = drawn.prod(1)
    rewards = REWARDS[:, states, actions] * valid
    to_go = rewards.flip(-1).cumsum(-1).flip(-1)
    baseline = torch.randn(TASKS, STATES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))[:, states]

    def log_probs(self, logits: Tensor) -> Tensor:
        """Return log pi of each action that was taken, ``[..., 32, 3]``; 0 after the end."""
        return logits.log_softmax(-1)[..., self.states, self.actions] * self.valid

    def chances(self, logits: Tensor) -> Tensor:
        return self.luck * self.log_probs(logits).sum(-1).exp()

    def returns(self, logits: Tensor) -> Tensor:
        """Return the expected return ``[N]`` of logits ``[N, S, A]``, by its definition."""
        return (self.chances(logits) * self.to_go[..., 0]).sum(-1)

    def episodes(self, params: TensorDict, shift: Tensor | float = 0.0) -> Episodes:
        """Return the trajectories with their chances under ``params`` ``[N]``, and returns-to-go less ``shift``."""
        # The surrogates' mean divides by the valid steps. Values after an end must not count.
        weights = self.valid.sum() * self.chances(params["logits"]).detach().unsqueeze(-1)
        advantages = torch.where(self.valid, weights * (self.to_go - shift), 1e3)
        shape = (TASKS, *self.states.shape)
        valid = self.valid.expand(shape)
        return episodes_of(self.states.expand(shape), self.actions.expand(shape), advantages, params, valid)

    def values(self, logits: Tensor, task: int) -> Tensor:
        """Return Q of each step, state and action, ``[3, S, A]``, by backward induction."""
        going_on = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        found = [REWARDS[task]]
        for _ in range(2):
            following = (logits.softmax(-1) * found[0]).sum(-1)
            found.insert(0, REWARDS[task] + going_on * (self.moves @ following))
        return torch.stack(found)

    @cached_property
    def derivatives(self) -> tuple[Tensor, Tensor]:
        """The first and second derivatives of log pi of each step at START, ``[32, 3, P]`` and ``[32, 3, P, P]``."""

        def slopes(vector: Tensor) -> Tensor:
            found: Tensor = torch.autograd.functional.jacobian(
                lambda point: self.log_probs(point.view(STATES, ACTIONS)), vector, create_graph=True
            )
            return found

        return slopes(flatten(START)).detach(), torch.autograd.functional.jacobian(slopes, flatten(START))

    def terms(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return H1 = E sum g_t g_t' R_t, H2 = E sum h_t R_t and H12 = E sum g_t dQ_t' of a task at START.

        g_t and h_t are the first and second derivatives of log pi(a_t|s_t), R_t the return-to-go.
        """
        start, (first, second) = START["logits"], self.derivatives
        slopes = torch.autograd.functional.jacobian(lambda logits: self.values(logits, task), start).flatten(3)
        ahead = slopes[torch.arange(3), self.states, self.actions] * self.valid.unsqueeze(-1)
        chances, to_go = self.chances(start), self.to_go[task]
        return (
            torch.einsum("k,kti,ktj,kt->ij", chances, first, first, to_go),
            torch.einsum("k,ktij,kt->ij", chances, second, to_go),
            torch.einsum("k,kti,ktj->ij", chances, first, ahead),
        )


TREE = Tree()
NAMES: list[SurrogateName] = ["likelihood-ratio", "dice", "naive"]
every_surrogate = pytest.mark.parametrize("name", NAMES)


def stacked(vector: Tensor) -> TensorDict:
    return TensorDict({"logits": vector.view(STATES, ACTIONS).expand(TASKS, STATES, ACTIONS)}, [TASKS])


def tree_surrogate(name: SurrogateName, task: int, shift: Tensor | float = 0.0) -> Callable[[Tensor], Tensor]:
    """Return a task's surrogate on the trajectories of START, as a function of a vector."""
    episodes = TREE.episodes(stacked(flatten(START)), shift)

    def function(vector: Tensor) -> Tensor:
        return SURROGATES[name](TABLE.distribution(stacked(vector), episodes.rollout.observations), episodes)[task]

    return function


def tree_return(task: int) -> Callable[[Tensor], Tensor]:
    return lambda vector: TREE.returns(stacked(vector)["logits"])[task]


def hessian(function: Callable[[Tensor], Tensor], create_graph: bool = False) -> Callable[[Tensor], Tensor]:
    return lambda vector: torch.autograd.functional.hessian(function, vector, create_graph=create_graph)


def test_the_trees_chances_sum_to_one() -> None:
    totals = TREE.chances(REWARDS).sum(-1)  # any numbers do as logits
    torch.testing.assert_close(totals, torch.ones(TASKS, dtype=torch.float64), rtol=1e-12, atol=0)
    assert not TREE.valid.all()


def test_the_trees_return_is_the_value_of_its_first_state() -> None:
    for task in range(TASKS):
        value = (START["logits"].softmax(-1) * TREE.values(START["logits"], task)[0]).sum(-1)[0]
        torch.testing.assert_close(tree_return(task)(flatten(START)), value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("task", range(TASKS))
@pytest.mark.parametrize("shift", [0.0, TREE.baseline], ids=["returns", "advantages"])
@every_surrogate
def test_the_gradient_of_every_surrogate_is_that_of_the_expected_return(
    name: SurrogateName, shift: Tensor | float, task: int
) -> None:
    found = torch.autograd.functional.jacobian(tree_surrogate(name, task, shift), flatten(START))
    expected = central_differences(tree_return(task), flatten(START))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("task", range(TASKS))
@pytest.mark.parametrize("shift", [0.0, TREE.baseline], ids=["returns", "advantages"])
def test_the_hessian_of_dice_is_that_of_the_expected_return(shift: Tensor | float, task: int) -> None:
    found = hessian(tree_surrogate("dice", task, shift))(flatten(START))
    torch.testing.assert_close(found, hessian(tree_return(task))(flatten(START)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, TREE.baseline], ids=["returns", "advantages"])
def test_the_third_derivative_of_dice_is_that_of_the_expected_return(shift: Tensor | float) -> None:
    found, expected = (
        torch.autograd.functional.jacobian(hessian(function, create_graph=True), flatten(START))
        for function in (tree_surrogate("dice", 0, shift), tree_return(0))
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", range(TASKS))
def test_the_expected_returns_hessian_has_the_terms_that_theory_says(task: int) -> None:
    own, bent, crossed = TREE.terms(task)
    expected = hessian(tree_return(task))(flatten(START))
    torch.testing.assert_close(own + bent + crossed + crossed.T, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", range(TASKS))
@pytest.mark.parametrize("shift", [0.0, TREE.baseline], ids=["returns", "advantages"])
def test_the_likelihood_ratios_hessian_lacks_the_cross_terms_of_different_steps(
    shift: Tensor | float, task: int
) -> None:
    # The LVC estimate is H1 + H2: low variance for the bias H12 + H12'. A baseline b(s) adds E (g g' + h) b = 0.
    own, bent, _ = TREE.terms(task)
    found = hessian(tree_surrogate("likelihood-ratio", task, shift))(flatten(START))
    torch.testing.assert_close(found, own + bent, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", range(TASKS))
def test_the_naive_hessian_is_the_bend_of_log_pi_alone(task: int) -> None:
    # It drops E sum g_t g_t' R_t, and the cross terms.
    found = hessian(tree_surrogate("naive", task))(flatten(START))
    torch.testing.assert_close(found, TREE.terms(task)[1], rtol=1e-9, atol=1e-12)


def test_a_baseline_moves_the_naive_hessian_by_what_it_drops() -> None:
    # E h b = -E g g' b, of which nothing cancels: its bias depends on the baseline.
    first, _ = TREE.derivatives
    weights = TREE.chances(START["logits"])[:, None] * TREE.baseline[0] * TREE.valid
    expected = torch.einsum("kt,kti,ktj->ij", weights, first, first)
    found = hessian(tree_surrogate("naive", 0, TREE.baseline))(flatten(START))
    torch.testing.assert_close(found - TREE.terms(0)[1], expected, rtol=1e-9, atol=1e-12)
    assert expected.norm() > 0.05


def tree_meta_gradient(name: SurrogateName) -> Tensor:
    params = leaf(START)
    stacked_params = per_task(params, TASKS)
    adapted = inner_step(
        TABLE, stacked_params, TREE.episodes(stacked_params), INNER_LR, create_graph=True, objective=SURROGATES[name]
    )
    query = TREE.episodes(adapted)
    objective = surrogate(TABLE.distribution(adapted, query.rollout.observations), query).mean()
    return flatten(gradient(objective, params))


def tree_ascent(vector: Tensor) -> Tensor:
    """Return logits ``[N, S, A]`` after one exact gradient step on each task's expected return."""
    logits = stacked(vector)["logits"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(TREE.returns(logits).sum(), logits)
    return (logits + INNER_LR * slope).detach()


TREE_META_GRADIENT = central_differences(lambda vector: TREE.returns(tree_ascent(vector)).mean(), flatten(START))


def test_the_meta_gradient_of_dice_is_the_derivative_of_the_adapted_return() -> None:
    torch.testing.assert_close(tree_meta_gradient("dice"), TREE_META_GRADIENT, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["likelihood-ratio", "naive"])
def test_the_other_meta_gradients_miss_what_their_hessians_miss(name: SurrogateName) -> None:
    # The meta-gradient is the mean of (1 + a H_i) grad J_i at theta_i.
    adapted = tree_ascent(flatten(START)).requires_grad_()
    slopes = torch.autograd.grad(TREE.returns(adapted).sum(), adapted)[0].flatten(1)
    missing = []
    for own, _, crossed in map(TREE.terms, range(TASKS)):
        missing.append(crossed + crossed.T + (own if name == "naive" else torch.zeros_like(own)))
    bias = INNER_LR * torch.stack([matrix @ slope for matrix, slope in zip(missing, slopes, strict=True)]).mean(0)
    torch.testing.assert_close(TREE_META_GRADIENT - tree_meta_gradient(name), bias, rtol=1e-6, atol=1e-8)
    assert bias.norm() > 0.01 * TREE_META_GRADIENT.norm()


SAMPLED = learner_and_rollouts()


def sampled_episodes() -> tuple[Policy, TensorDict, Episodes]:
    learner, rollouts = SAMPLED
    return learner.policy, per_task(learner.params, 3), Episodes.of(rollouts[0], learner.policy, 0.99, 1.0)


def test_at_the_sampling_parameters_the_surrogate_is_the_mean_advantage() -> None:
    policy, params, episodes = sampled_episodes()
    shifted = replace(episodes, advantages=episodes.advantages + torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1))
    value = surrogate(policy.distribution(params, episodes.rollout.observations), shifted)
    torch.testing.assert_close(value, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_surrogate_does_not_see_steps_after_the_end() -> None:
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


@every_surrogate
def test_every_surrogate_takes_the_same_first_step(name: SurrogateName) -> None:
    policy, params, episodes = sampled_episodes()
    ours, expected = (
        inner_step(policy, leaf(params), episodes, INNER_LR, objective=SURROGATES[each])
        for each in (name, "likelihood-ratio")
    )
    torch.testing.assert_close(flatten(ours), flatten(expected), rtol=1e-9, atol=1e-12)


def test_the_surrogates_differ_in_their_second_derivatives() -> None:
    policy, _, episodes = sampled_episodes()
    start = flatten(SAMPLED[0].params)
    direction = torch.randn(start.shape, dtype=start.dtype, generator=torch.Generator().manual_seed(4))

    def bend(name: SurrogateName) -> Tensor:
        point = leaf(SAMPLED[0].params)
        distribution = policy.distribution(per_task(point, 3), episodes.rollout.observations)
        slope = gradient(SURROGATES[name](distribution, episodes).sum(), point, create_graph=True)
        return flatten(gradient(flatten(slope) @ direction, point))

    for one, other in combinations(map(bend, NAMES), 2):
        assert (one - other).norm() > 0.1 * one.norm()


@pytest.mark.parametrize("steps", [0, 1], ids=["before adaptation", "after it"])
@pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])
def test_the_likelihood_ratio_is_one_at_the_sampling_parameters(family: str, steps: int) -> None:
    # In float32, as it is sampled: step by step there, all at once here.
    config = TrainConfig("maml-trpo", family, RunConfig(horizon=8), MamlTrpoConfig(inner_lr=0.5))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, MamlTrpo)
    tasks, state = config.split().train_tasks(3, 0), learner.begin(3)
    for step in range(steps):
        state = learner.adapt(state, sampler.collect(learner, state, tasks, 4, step))
    rollout = sampler.collect(learner, state, tasks, 4, steps)
    ratio = likelihood_ratio(learner.policy.distribution(state.params, rollout.observations), rollout)
    torch.testing.assert_close(ratio[rollout.valid], torch.ones(rollout.env_steps), rtol=0, atol=1e-5)


def test_the_likelihood_ratio_is_that_of_the_actions_chances() -> None:
    # Action 0 in state 0, then action 1 in state 1: pi of other logits over pi of START.
    other = TensorDict({"logits": torch.tensor([[[1.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)}, [1])
    states, actions = torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]])
    episodes = episodes_of(states, actions, torch.zeros(1, 1, 2, dtype=torch.float64), START.unsqueeze(0))
    found = likelihood_ratio(TABLE.distribution(other, states), episodes.rollout)
    chances = other["logits"][0].softmax(-1) / START["logits"].softmax(-1)
    torch.testing.assert_close(found[0, 0], torch.stack([chances[0, 0], chances[1, 1]]), rtol=1e-12, atol=0)


def test_at_the_sampling_parameters_dice_is_zero_and_naive_the_mean_of_log_pi() -> None:
    policy, params, episodes = sampled_episodes()
    distribution = policy.distribution(params, episodes.rollout.observations)
    assert torch.equal(dice(distribution, episodes), torch.zeros(3, dtype=torch.float64))
    expected = (episodes.rollout.log_probs * episodes.advantages).mean((1, 2))
    torch.testing.assert_close(naive(distribution, episodes), expected, rtol=1e-9, atol=1e-12)


@every_surrogate
def test_no_surrogate_sees_steps_after_the_end(name: SurrogateName) -> None:
    policy, params, episodes = sampled_episodes()
    valid = episodes.rollout.valid.clone()
    valid[:, 1, 3:] = False
    actions, advantages = episodes.rollout.actions.clone(), episodes.advantages.clone()
    actions[:, 1, 3:] += 1.0
    advantages[:, 1, 3:] = 1e6
    one = Episodes(replace(episodes.rollout, valid=valid), episodes.advantages)
    other = Episodes(replace(episodes.rollout, valid=valid, actions=actions), advantages)
    here, there = (inner_step(policy, leaf(params), each, 1.0, objective=SURROGATES[name]) for each in (one, other))
    assert torch.equal(flatten(here), flatten(there))


SIZED = ("weight_0", "weight_1")


def with_step_sizes(params: TensorDict) -> TensorDict:
    """Return parameters ``[N]`` with a step size of its own for each number of every weight."""
    stream = torch.Generator().manual_seed(3)
    sizes = {f"{STEP_SIZE}{name}": torch.rand(params[name].shape, generator=stream).double() for name in SIZED}
    return TensorDict({**{name: params[name] for name in names(params)}, **sizes}, params.batch_size)


def moves(before: TensorDict, after: TensorDict) -> dict[str, Tensor]:
    return {name: after[name] - before[name] for name in names(before)}


def test_only_the_named_parameters_move() -> None:
    policy, params, episodes = sampled_episodes()
    part = inner_step(policy, leaf(params), episodes, INNER_LR, adapted=["weight_1", "log_std"])
    whole = inner_step(policy, leaf(params), episodes, INNER_LR)
    assert names(part) == names(params)
    for name in names(params):
        assert torch.equal(part[name], (whole if name in ("weight_1", "log_std") else params)[name])


def test_a_step_size_of_its_own_scales_each_number() -> None:
    policy, params, episodes = sampled_episodes()
    sized = with_step_sizes(params)
    found = moves(sized, inner_step(policy, leaf(sized), episodes, INNER_LR))
    plain = moves(params, inner_step(policy, leaf(params), episodes, INNER_LR))
    for name in names(params):
        own = sized[f"{STEP_SIZE}{name}"] if name in SIZED else torch.ones(())
        torch.testing.assert_close(found[name], own * plain[name], rtol=1e-9, atol=1e-12)


def test_step_sizes_do_not_move_by_themselves() -> None:
    policy, params, episodes = sampled_episodes()
    sized = with_step_sizes(params)
    found = moves(sized, inner_step(policy, leaf(sized), episodes, INNER_LR))
    assert [name for name, move in found.items() if not move.any()] == [f"{STEP_SIZE}{name}" for name in SIZED]


def test_a_step_sizes_gradient_is_the_slope_times_that_of_the_parameter() -> None:
    # theta' = theta + a s slope(theta), so that dL/ds = a slope dL/dtheta'. Here L = |theta'|^2.
    policy, params, episodes = sampled_episodes()
    sized = leaf(with_step_sizes(params))
    stepped = inner_step(policy, sized, episodes, INNER_LR)
    slopes = moves(params, inner_step(policy, leaf(params), episodes, 1.0))
    sizes = sized.select(*[f"{STEP_SIZE}{name}" for name in SIZED])
    found = gradient(stepped["weight_0"].square().sum() + stepped["weight_1"].square().sum(), sizes)
    for name in SIZED:
        expected = INNER_LR * slopes[name] * 2 * stepped[name]
        torch.testing.assert_close(found[f"{STEP_SIZE}{name}"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_steps_own_derivative_is_kept_where_it_is_wanted(create_graph: bool) -> None:
    # Without it theta' moves as theta does: the derivative of the sum of theta' is 1 for each number.
    policy, params, episodes = sampled_episodes()
    start = leaf(params)
    found = flatten(gradient(flatten(inner_step(policy, start, episodes, 1.0, create_graph)).sum(), start))
    assert torch.equal(found, torch.ones_like(found)) is not create_graph
