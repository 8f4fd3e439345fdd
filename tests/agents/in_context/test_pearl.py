import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from metarl.agents.in_context.pearl import Pearl
from metarl.agents.in_context.pearl_config import PearlConfig, TaskEncoderName
from metarl.agents.in_context.pearl_networks import drawn
from metarl.agents.in_context.replay import Transitions, TrialReplay
from metarl.agents.in_context.task_encoders import Belief, MetricEncoder, divergence
from metarl.devices.processes import ONE_PROCESS
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.numerics.distributions import DiagonalGaussian, SquashedGaussian
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut
from tests.agents.test_all_learners import numbers as everything
from tests.runs import numbers, same, tiny

TASKS, SIDE_BY_SIDE, HORIZON = 2, 3, 6
SMALL: dict[str, Any] = {"hidden_sizes": (16,), "updates_per_iteration": 2, "batch_size": 8}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(family: str = "navigation-2d", seed: int = 1, **settings: Any) -> tuple[Pearl, Sampler]:
    """Return an untrained learner and a sampler of its family."""
    run = RunConfig(horizon=HORIZON, seed=seed)
    config = TrainConfig("pearl", family, run, PearlConfig(**{**SMALL, **settings}))
    learner = config.make_learner()
    assert isinstance(learner, Pearl)
    return learner, Sampler(config.make_family())


def trials(learner: Pearl, sampler: Sampler, seed: int = 0) -> list[Rollout]:
    """Return the rollouts of whole trials, in which every second episode is cut short."""
    tasks = sampler.family.sample_tasks(TASKS, stream(seed))
    state, rollouts = learner.begin(TASKS), []
    for episode in range(learner.inner_steps + 1):
        rollouts.append(cut(sampler.collect(learner, state, tasks, SIDE_BY_SIDE, 10 * seed + episode), 4))
        state = learner.adapt(state, rollouts[-1])
    return rollouts


def learner_and_trials(**settings: Any) -> tuple[Pearl, list[Rollout]]:
    learner, sampler = made(**settings)
    return learner, trials(learner, sampler)


def transitions(count: int, seed: int = 0, size: int = 2) -> Transitions:
    """Return random transitions ``[count]`` of observations and actions of one size, every third terminated."""
    draws = stream(seed)
    observations, actions, following = (torch.randn(count, size, generator=draws) for _ in range(3))
    terminated = (torch.arange(count) % 3 == 0).float()
    rewards = torch.randn(count, generator=draws)
    return Transitions(observations, actions.tanh(), rewards, following, terminated, torch.ones(count) > 0)


def indexed(steps: Transitions, index: Any) -> Transitions:
    return Transitions(**{name: value[index] for name, value in vars(steps).items()})


def test_a_belief_is_the_product_of_its_gaussians_and_the_prior() -> None:
    means, deviations = torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([0.7, 1.5, 0.4]).double()
    points = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    factors = [Normal(0.0, 1.0), *(Normal(mean, deviation) for mean, deviation in zip(means, deviations, strict=True))]
    density = torch.stack([factor.log_prob(points) for factor in factors]).sum(0).exp()
    density /= density.sum()
    mean = (density * points).sum()
    variance = (density * (points - mean).square()).sum()
    precisions = deviations.pow(-2)
    posterior = Belief(precisions.sum()[None], (precisions * means).sum()[None]).posterior()
    torch.testing.assert_close(posterior.mean[0], mean)
    torch.testing.assert_close(posterior.log_std[0].exp().square(), variance)


def test_nothing_seen_is_the_prior() -> None:
    learner, _ = made()
    prior = learner.begin(TASKS).posterior()
    assert torch.equal(prior.mean, torch.zeros(TASKS, 1, 5))
    assert torch.equal(prior.log_std, torch.zeros(TASKS, 1, 5))


def test_the_divergence_from_the_prior_is_that_of_torch() -> None:
    mean, log_std = torch.randn(2, 4, 5, generator=stream()).unbind(0)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(divergence(DiagonalGaussian(mean, log_std)), expected)


@pytest.mark.parametrize("encode_dynamics", [False, True])
def test_the_encoder_multiplies_one_factor_for_each_transition_in_any_order(encode_dynamics: bool) -> None:
    learner, _ = made(encode_dynamics=encode_dynamics)
    steps = transitions(7)
    whole = learner.networks.encoder.belief(steps)
    shuffled = learner.networks.encoder.belief(indexed(steps, torch.tensor([3, 0, 6, 2, 5, 1, 4])))
    product = learner.begin(1)
    for number in range(7):
        product = product + learner.networks.encoder.belief(indexed(steps, slice(number, number + 1)))
    for other in (shuffled, Belief(product.precision[0, 0], product.shift[0, 0])):
        torch.testing.assert_close(other.precision, whole.precision)
        torch.testing.assert_close(other.shift, whole.shift)
    assert (whole.precision > 0).all()


def test_what_is_no_step_has_no_factor() -> None:
    learner, _ = made()
    steps = transitions(7)
    padded = replace(steps, valid=torch.arange(7) < 4)
    torch.testing.assert_close(
        learner.networks.encoder.belief(padded).shift, learner.networks.encoder.belief(indexed(steps, slice(4))).shift
    )


@pytest.mark.parametrize(("encode_dynamics", "sees"), [(False, False), (True, True)])
def test_the_encoder_sees_where_a_transition_leads_if_it_is_to(encode_dynamics: bool, sees: bool) -> None:
    learner, _ = made(encode_dynamics=encode_dynamics)
    steps = transitions(7)
    elsewhere = replace(steps, next_observations=steps.next_observations + 1)
    same = torch.equal(learner.networks.encoder.belief(steps).shift, learner.networks.encoder.belief(elsewhere).shift)
    assert same != sees


def test_adapting_episode_by_episode_equals_all_at_once() -> None:
    learner, rollouts = learner_and_trials(episodes_per_trial=3)
    state = learner.begin(TASKS)
    for rollout in rollouts:
        state = learner.adapt(state, rollout)
    whole = learner.networks.encoder.belief(learner.transitions(rollouts))
    torch.testing.assert_close(state.precision, whole.precision)
    torch.testing.assert_close(state.shift, whole.shift)


def test_a_step_of_a_recorded_episode_is_as_good_as_in_the_episode() -> None:
    learner, rollouts = learner_and_trials()
    steps = learner.transitions(rollouts[:1])
    halves = [indexed(steps, (slice(None), slice(None), part)) for part in (slice(3), slice(3, None))]
    state = learner.networks.encoder.belief(halves[0]) + learner.networks.encoder.belief(halves[1])
    torch.testing.assert_close(state.shift, learner.adapt(learner.begin(TASKS), rollouts[0]).shift)


def test_trials_of_a_task_know_nothing_of_each_other() -> None:
    learner, rollouts = learner_and_trials()
    rewards = rollouts[0].rewards.clone()
    rewards[:, 0] += 1.0
    before, after = (
        learner.adapt(learner.begin(TASKS), rollout).shift
        for rollout in (rollouts[0], replace(rollouts[0], rewards=rewards))
    )
    assert (before[:, 0] != after[:, 0]).any()
    assert torch.equal(before[:, 1:], after[:, 1:])


def test_another_number_of_trials_is_refused() -> None:
    learner, rollouts = learner_and_trials()
    state = learner.adapt(learner.begin(TASKS), rollouts[0])
    with pytest.raises(InputError, match="3 trials of each task need 3 episodes, not 2"):
        learner.open(state, 2, stream())


def test_every_trial_draws_its_own_sample_of_the_belief() -> None:
    learner, _ = made()
    belief = Belief(torch.full((1, 1, 5), 3.0), torch.full((1, 1, 5), 8.0))  # with the prior: mean 2, deviation 1/2
    latent = learner.open(belief, 20_000, stream()).latent
    torch.testing.assert_close(latent.mean((0, 1)), torch.full((5,), 2.0), atol=0.02, rtol=0)
    torch.testing.assert_close(latent.std((0, 1)), torch.full((5,), 0.5), atol=0.02, rtol=0)
    assert torch.equal(learner.open(belief, 3, stream(), deterministic=True).latent, torch.full((1, 3, 5), 2.0))
    sampling, _ = made(deterministic_latent=False)
    drawn = [sampling.open(belief, 3, stream(), deterministic).latent for deterministic in (True, False)]
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], torch.full((1, 3, 5), 2.0))


def test_an_episode_keeps_to_its_latent_variables() -> None:
    learner, sampler = made()
    seen: list[Tensor] = []
    policy = learner.networks.policy

    def note(observations: Tensor, latent: Tensor) -> SquashedGaussian:
        seen.append(latent)
        return policy(observations, latent)

    learner.networks.policy = note  # type: ignore[method-assign]
    first, second = (
        sampler.collect(learner, learner.begin(TASKS), sampler.family.sample_tasks(TASKS, stream()), 3, seed).rewards
        for seed in (0, 1)
    )
    steps = first.shape[-1]
    assert all(torch.equal(latent, seen[0]) for latent in seen[:steps])
    assert all(torch.equal(latent, seen[-1]) for latent in seen[steps:])
    assert len(seen[0].flatten(0, 1).unique(dim=0)) == 6
    assert not torch.equal(seen[0], seen[-1])
    assert second.shape[-1] == len(seen) - steps


def drawn_inputs(learner: Pearl) -> tuple[Transitions, DiagonalGaussian, Tensor]:
    """Return 8 transitions of 3 tasks, the beliefs from them, and a sample of these, with the encoder's graph."""
    steps = Transitions(**{name: value.unflatten(0, (3, 8)) for name, value in vars(transitions(24)).items()})
    belief = learner.networks.encoder.belief(steps).posterior()
    return steps, belief, belief.sample(stream()).unsqueeze(1).expand(-1, 8, -1)


def slopes(loss: Tensor, part: torch.nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(part.parameters()), allow_unused=True, retain_graph=True))


def test_the_encoders_gradient_comes_from_critics_and_divergence_only() -> None:
    learner, _ = made()
    steps, belief, latent = drawn_inputs(learner)
    networks = learner.networks
    actor_loss, entropy = learner.actor_loss(steps, latent, stream())
    for loss in (learner.critic_loss(steps, latent, stream()), divergence(belief)):
        assert all(slope is not None and slope.any() for slope in slopes(loss, networks.encoder))
    for loss in (actor_loss, entropy):
        assert all(slope is None for slope in slopes(loss, networks.encoder))
    assert any(slope is not None and slope.any() for slope in slopes(actor_loss, networks.actor))
    assert all(slope is None for slope in slopes(learner.critic_loss(steps, latent, stream()), networks.actor))


@pytest.mark.parametrize("kl_weight", [0.0, 3.0])
def test_a_step_moves_the_encoder_down_critic_loss_and_weighted_divergence(
    kl_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = made(kl_weight=kl_weight, reward_scale=2.0, batch_size=8)
    steps, belief, latent = drawn_inputs(learner)
    loss = learner.critic_loss(steps, latent, stream(7)) + kl_weight / 4 * divergence(belief)
    expected = slopes(loss, learner.networks.encoder)
    monkeypatch.setattr(TrialReplay, "draw_tasks", lambda *_: torch.arange(3))
    monkeypatch.setattr(TrialReplay, "local_slots", lambda _, tasks, given: (tasks, 1.0, given))
    monkeypatch.setattr(TrialReplay, "draw_replay", lambda *_: steps)
    monkeypatch.setattr(TrialReplay, "draw_contexts", lambda *_: indexed(steps, (slice(None), None)))
    draws = stream()
    torch.randn(belief.mean.shape, generator=draws)  # the sample of the belief; the next ones are those of the critics
    monkeypatch.setattr(learner, "critic_loss", lambda *given: Pearl.critic_loss(learner, *given[:2], stream(7)))
    learner._step(stream())
    for parameter, slope in zip(learner.networks.encoder.parameters(), expected, strict=True):
        assert slope is not None
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, slope)


def test_targets_by_hand() -> None:
    learner, _ = made(reward_scale=5.0, discount=0.9)
    for parameter in learner.networks.targets.parameters():
        parameter.data.zero_()
    learner.networks.targets.biases[-1].data.copy_(torch.tensor([[3.0], [7.0]]))  # the pessimist says 3 everywhere
    rollout = cut(learner_and_trials()[1][0], 2)
    terminated, truncated = torch.zeros_like(rollout.valid), torch.zeros_like(rollout.valid)
    terminated[:, 0, 1], truncated[:, 2, 1] = True, True  # episodes 0 and 2 end after 2 steps, in either way
    rollout = replace(rollout, terminated=terminated, truncated=truncated)
    steps, latent = learner.transitions([rollout]), torch.zeros(TASKS, SIDE_BY_SIDE, HORIZON, 5)
    log_probs = drawn(learner.networks.policy(steps.next_observations, latent), stream())[1]
    targets = learner.targets(steps, latent, stream())
    torch.testing.assert_close(targets[:, 0, 1], rollout.rewards[:, 0, 1])
    for episode in (1, 2):
        expected = rollout.rewards[:, episode, 1] + 0.9 * (3.0 - log_probs[:, episode, 1] / 5)
        torch.testing.assert_close(targets[:, episode, 1], expected)
    assert torch.equal(steps.next_observations[:, 2, 1], rollout.final_observations[:, 2])


def test_a_drawn_actions_density_is_that_of_the_distribution() -> None:
    mean, log_std = torch.randn(2, 100, 3, generator=stream()).unbind(0)
    distribution = SquashedGaussian(mean, 0.3 * log_std - 1)
    actions, log_probs = drawn(distribution, stream(1))
    torch.testing.assert_close(log_probs, distribution.log_prob(actions), atol=1e-3, rtol=1e-3)
    assert torch.equal(actions.clamp(-0.999, 0.999), distribution.sample(stream(1)).clamp(-0.999, 0.999))


def test_entropy_leads_saturated_policies_back() -> None:
    mean = torch.tensor([[20.0, -20.0]], requires_grad=True)
    log_prob = drawn(SquashedGaussian(mean, torch.zeros(1, 2)), stream())[1]
    (slope,) = torch.autograd.grad(log_prob.sum(), mean)
    torch.testing.assert_close(slope, torch.tensor([[2.0, -2.0]]))


def test_critics_are_side_by_side() -> None:
    networks = made()[0].networks
    steps, latent = transitions(6), torch.randn(6, 5, generator=stream())
    values = networks.values(networks.critics, steps.observations, steps.actions, latent)
    inputs = torch.cat([steps.observations, steps.actions, latent], -1)
    for critic in (0, 1):
        (weight, head), (bias, shift) = networks.critics.weights, networks.critics.biases
        alone = (inputs @ weight[critic] + bias[critic]).relu() @ head[critic] + shift[critic]
        torch.testing.assert_close(values[critic], alone.squeeze(-1))
    assert not torch.equal(values[0], values[1])


def test_targets_follow_the_critics() -> None:
    networks = made()[0].networks
    before = [value.clone() for value in networks.targets.parameters()]
    for value in networks.critics.parameters():
        value.data += 1.0
    networks.follow(0.25)
    for value, old in zip(networks.targets.parameters(), before, strict=True):
        torch.testing.assert_close(value, old + 0.25)


def numbered(tasks: range, episodes: tuple[tuple[int, ...], ...]) -> tuple[Transitions, Tensor]:
    """Return steps whose observation encodes task, trial, episode and step; trial r's episodes have these lengths."""
    longest = max(map(sum, episodes))
    observations = torch.zeros(len(tasks), len(episodes), longest, 4)
    for row, task in enumerate(tasks):
        for trial, lengths in enumerate(episodes):
            steps = [(task, trial, episode, step) for episode, length in enumerate(lengths) for step in range(length)]
            observations[row, trial, : len(steps)] = torch.tensor(steps).float()
    ones = torch.ones(observations.shape[:3])
    ends = torch.tensor(episodes).cumsum(-1).expand(len(tasks), -1, -1)
    return Transitions(observations, observations[..., :1], ones, observations + 1, 0 * ones, ones > 0), ends


def replay(tasks: int, room: int = 4) -> TrialReplay:
    """Return a replay with room for some tasks, to which tasks 0, 1, ... were added two by two."""
    made_up = TrialReplay(room * 2 * 10, 10, 4, torch.device("cpu"))
    for first in range(0, tasks, 2):
        made_up.add(*numbered(range(first, first + 2), ((3, 2, 4), (4, 3, 1))))
    return made_up


def test_memory_follows_what_is_stored() -> None:
    few, many = ([value for value in vars(replay(4, room)).values() if isinstance(value, Tensor)] for room in (4, 1000))
    sizes = [sum(value.nbytes for value in each if value.is_floating_point()) for each in (few, many)]
    assert sizes[1] == sizes[0]


def context(memory: TrialReplay, tasks: Tensor, count: int, draws: torch.Generator) -> Transitions:
    """Draw one context of each task, ``[M, C]``."""
    return indexed(memory.draw_contexts(tasks, 1, count, draws), (slice(None), 0))


def steps_drawn(steps: Transitions) -> set[tuple[int, ...]]:
    return {tuple(row) for row in steps.observations[steps.valid].int().tolist()}


def test_everything_is_replayed() -> None:
    steps = replay(2).draw_replay(torch.arange(2), 500, stream())
    lengths = ((3, 2, 4), (4, 3, 1))
    assert steps_drawn(steps) == {
        (task, trial, episode, step)
        for task in range(2)
        for trial in range(2)
        for episode in range(3)
        for step in range(lengths[trial][episode])
    }
    assert torch.equal(steps.next_observations, steps.observations + 1)
    assert torch.equal(steps.actions, steps.observations[..., :1])
    assert torch.equal(steps.rewards, torch.ones(2, 500))
    assert (steps.observations[0, :, 0] == 0).all()
    assert (steps.observations[1, :, 0] == 1).all()


def test_a_context_is_the_first_episodes_of_one_trial_but_not_its_last() -> None:
    memory, met = replay(2), set()
    for seed in range(60):
        steps = context(memory, torch.tensor([0, 1]), 100, stream(seed))
        for task in (0, 1):
            met.add(frozenset(steps_drawn(indexed(steps, task))))
            assert int(steps.valid[task].sum()) == len(steps_drawn(indexed(steps, task)))  # none twice
    first = {
        (task, trial): {(task, trial, 0, step) for step in range(3 + trial)} for task in (0, 1) for trial in (0, 1)
    }
    both = {key: steps | {(*key, 1, step) for step in range(2 + key[1])} for key, steps in first.items()}
    assert met == {frozenset(steps) for steps in [*first.values(), *both.values()]}


def test_contexts_of_a_task_are_of_different_trials_or_share_no_step() -> None:
    lengths = ((3, 2), (4, 3))
    for seed in range(20):
        steps = replay(2).draw_contexts(torch.tensor([0, 1]), 3, 100, stream(seed))
        for task in (0, 1):
            one, two, last = (steps_drawn(indexed(steps, (task, number))) for number in range(3))
            assert not one & two
            trial, known = next(iter(one))[1], max(row[2] for row in one | two)
            # The first two are of one trial, and have all of its episodes that are known; the last is of the other.
            assert one | two == {
                (task, trial, episode, step) for episode in range(known + 1) for step in range(lengths[trial][episode])
            }
            assert {row[:2] for row in last} == {(task, 1 - trial)}
            assert {row[2] for row in last} <= set(range(known + 1))


def test_uninformed_contexts_are_of_first_episodes() -> None:
    for seed in range(10):
        steps = replay(2).draw_contexts(torch.tensor([0, 1]), 3, 100, stream(seed), uninformed=True)
        assert {row[2] for row in steps_drawn(steps)} == {0}


def test_a_context_has_no_more_steps_than_it_may() -> None:
    counts = [context(replay(2), torch.tensor([0]), 4, stream(seed)).valid.sum().item() for seed in range(30)]
    assert set(counts) == {3, 4}
    met = set.union(*(steps_drawn(context(replay(2), torch.tensor([0]), 4, stream(seed))) for seed in range(60)))
    assert len(met) == 5 + 7  # any of the steps, not always the first ones


def ends_of(rollouts: list[Rollout]) -> Tensor:
    """Return where each episode of the trials ends ``[N, R, E]``."""
    return torch.stack([rollout.valid.sum(-1) for rollout in rollouts], -1).cumsum(-1)


def test_the_latest_tasks_are_remembered() -> None:
    memory = replay(tasks=10, room=4)
    assert memory.num_tasks == 4
    assert memory.num_transitions == 4 * 17
    tasks = torch.arange(4)
    for steps in (memory.draw_replay(tasks, 100, stream()), context(memory, tasks, 100, stream())):
        assert {row[0] for row in steps_drawn(steps)} == {6, 7, 8, 9}


def test_tasks_are_drawn_without_replacement() -> None:
    assert sorted(replay(4).draw_tasks(16, stream()).tolist()) == [0, 1, 2, 3]
    assert len(replay(4).draw_tasks(2, stream()).unique()) == 2


def test_tasks_that_are_drawn_together_are_of_one_iteration() -> None:
    memory, met = replay(10, room=7), set()  # the oldest of the seven tasks is alone
    for seed in range(30):
        slots, _, _ = memory.local_slots(memory.draw_tasks(5, stream(seed), together=True), stream())
        met.add(frozenset(row[0] for row in steps_drawn(memory.draw_replay(slots, 50, stream()))))
    assert met == {frozenset({4, 5}), frozenset({6, 7}), frozenset({8, 9})}


def contents(memory: TrialReplay) -> dict[str, Tensor]:
    """Return all that a replay remembers, in the order of its slots."""
    return memory.draw_replay(torch.arange(memory.num_tasks), 200, stream()).__dict__


@pytest.mark.parametrize("tasks", [0, 2, 6, 10])
def test_a_replay_is_restored_from_pieces(tasks: int) -> None:
    memory, other = replay(tasks), replay(2)
    pieces = [memory.read(start, start + 2) for start in range(memory.added - memory.kept, memory.added, 2)]
    other.restore(memory.added, pieces)
    for each in (memory, other):
        each.add(*numbered(range(20, 22), ((3, 2, 4), (4, 3, 1))))
    assert other.added == memory.added == tasks + 2
    assert same(contents(other), contents(memory))


def test_older_pieces_than_are_kept_are_left_out() -> None:
    memory, other = replay(8, room=6), replay(0, room=6)
    pieces = [replay(8, room=8).read(0, 4), memory.read(4, 8)]
    other.restore(8, pieces)
    assert same(contents(other), contents(memory))


@pytest.mark.parametrize("tasks", [2, 4, 6])
def test_the_last_addition_is_undone(tasks: int) -> None:
    memory = replay(tasks)
    before = contents(memory)
    memory.add(*numbered(range(20, 22), ((3, 2, 4), (4, 3, 1))))
    memory.undo()
    assert memory.added == tasks
    assert same(contents(memory), before)


def test_what_a_replay_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="room for 1 tasks with 2 trials, but an iteration has 2"):
        replay(2, room=1)
    with pytest.raises(InputError, match="a replay buffer with 2 trials of each task cannot store 1"):
        replay(2).add(*numbered(range(2), ((3, 2, 4),)))


def test_the_learner_replays_all_episodes_and_infers_from_all_but_the_last() -> None:
    learner, rollouts = learner_and_trials(episodes_per_trial=3)
    learner.update(rollouts)
    first, second, last = (rollout.env_steps for rollout in rollouts)
    assert learner.replay.num_transitions == first + second + last
    rewards = {name: {round(value, 5) for value in r.rewards[r.valid].tolist()} for name, r in enumerate(rollouts)}
    contexts = [context(learner.replay, torch.arange(TASKS), 100, stream(seed)) for seed in range(50)]
    met = {round(value, 5) for steps in contexts for value in steps.rewards[steps.valid].tolist()}
    assert met == rewards[0] | rewards[1]
    assert rewards[2] - met


def test_episodes_keep_to_random_actions_at_first() -> None:
    learner, sampler = made(random_iterations=1)
    rollouts = trials(learner, sampler)
    means = rollouts[0].distribution.tensors()[0]
    assert torch.equal(means[:, 1], means[:, 1, :1].expand_as(means[:, 1]))  # an episode that was not cut
    assert len(means[:, :, 0].flatten(0, 1).unique(dim=0)) == TASKS * SIDE_BY_SIDE
    learner.update(rollouts)
    latent = learner.open(learner.begin(TASKS), SIDE_BY_SIDE, stream())
    assert latent.kept is None


def test_metrics_are_of_the_update() -> None:
    learner, rollouts = learner_and_trials()
    metrics = learner.update(rollouts)
    assert set(metrics) == set(Pearl.metrics) - {"metric_loss"}
    assert metrics["replay_transitions"] == sum(rollout.env_steps for rollout in rollouts)
    assert metrics["critic_loss"] > 0
    assert metrics["latent_kl"] > 0


def test_an_update_that_is_not_finite_leaves_the_learner() -> None:
    learner, rollouts = learner_and_trials()
    learner.update(rollouts)
    before, remembered = everything(learner.state_dict()), contents(learner.replay)
    rewards = rollouts[0].rewards.clone()
    rewards[:] = math.nan
    with pytest.raises(RunError, match="the update is not finite"):
        learner.update([replace(rollouts[0], rewards=rewards), *rollouts[1:]])
    assert torch.equal(everything(learner.state_dict()), before)
    assert same(contents(learner.replay), remembered)


def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path) -> None:
    run = {"iterations": 3, "checkpoint_every": 1}
    # The third iteration overwrites.
    settings = PearlConfig(**{**SMALL, "replay_size": 2 * 2 * 2 * 6 * 2, "anneal_iterations": 4})
    whole = replace(tiny("pearl", tmp_path / "whole", **run), settings=settings)
    parts = replace(tiny("pearl", tmp_path / "parts", **{**run, "iterations": 2}), settings=settings)
    train(whole)
    train(parts)
    resume(tmp_path / "parts", 3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_the_step_size_falls_to_nothing_if_it_is_to() -> None:
    (learner, rollouts), (constant, _) = learner_and_trials(anneal_iterations=2), learner_and_trials()
    after: list[dict[str, Tensor]] = []
    for _ in range(3):
        learner.update(rollouts)
        parameters = learner.parameters().items()  # the targets follow on
        after.append({name: value.clone() for name, value in parameters if not name.startswith("targets")})
    constant.update(rollouts)
    assert all(torch.equal(constant.parameters()[name], value) for name, value in after[0].items())
    assert not any(torch.equal(after[0][name], value) for name, value in after[1].items())
    assert same(after[1], after[2])


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    def after(seed: int) -> Tensor:
        learner, sampler = made(seed=seed)
        for iteration in range(2):
            learner.update(trials(learner, sampler, iteration))
        return everything(learner.networks.state_dict())

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))


METRIC_ENCODERS = [name for name in get_args(TaskEncoderName) if name != "critic"]


@pytest.mark.parametrize("name", METRIC_ENCODERS)
def test_a_metric_trains_the_encoder_and_nothing_else_does(name: str) -> None:
    learner, rollouts = learner_and_trials(task_encoder=name)
    learner.replay.add(learner.transitions(rollouts), ends_of(rollouts))
    encoder = learner.networks.encoder

    def draw(contexts: int, uninformed: bool = False) -> Transitions:
        return learner.replay.draw_contexts(torch.arange(TASKS), contexts, 8, stream(), uninformed)

    inferred = encoder.inferred(draw, 1.0, stream(), ONE_PROCESS)
    assert not inferred.latents.requires_grad
    for part in (encoder, learner.networks.critics, learner.networks.actor):
        reached = [slope is not None and bool(slope.any()) for slope in slopes(inferred.loss, part)]
        assert any(reached) == (part is encoder)
    embedded = encoder.likeliest(encoder.belief(draw(3, uninformed=True)))
    assert isinstance(encoder, MetricEncoder)
    torch.testing.assert_close(inferred.loss, encoder.metric.loss(embedded[:, :2], embedded[:, 2:]))


def test_a_metric_needs_trials_to_compare() -> None:
    learner, sampler = made(task_encoder="relation")
    state = learner.begin(TASKS)
    rollout = sampler.collect(learner, state, sampler.family.sample_tasks(TASKS, stream()), 1, 0)
    with pytest.raises(InputError, match="the task encoder relation compares trials of one task: it needs --episodes"):
        learner.update([rollout, rollout])


def test_some_tasks_of_a_step_are_unknown_as_in_a_first_episode() -> None:
    learner, rollouts = learner_and_trials(task_encoder="prototypical", episodes_per_trial=4)
    encoder = learner.networks.encoder
    steps = indexed(learner.transitions(rollouts), (slice(1), slice(3)))
    many = Transitions(**{name: value.repeat_interleave(2000, 0) for name, value in vars(steps).items()})
    found = encoder.inferred(lambda contexts, uninformed=False: many, 1.0, stream(), ONE_PROCESS).latents
    unknown = encoder.likeliest(learner.begin(1))[0, 0]
    known = encoder.likeliest(encoder.belief(steps))[0, 0]
    blind = (found - unknown).abs().amax(-1) < 1e-5
    assert blind.float().mean().item() == pytest.approx(1 / 4, abs=0.03)
    torch.testing.assert_close(found[~blind], known.expand(int((~blind).sum()), -1))


@pytest.mark.parametrize("name", ["critic", "contrastive", "siamese"])
def test_a_task_is_described_before_each_step_by_the_steps_before(name: str) -> None:
    learner, rollouts = learner_and_trials(task_encoder=name)
    joined = Trials.of(rollouts)
    found = learner.task_embeddings(joined)
    state, encoder = learner.begin(TASKS), learner.networks.encoder
    length = int(rollouts[0].valid[1, 1].sum())
    row = SIDE_BY_SIDE + 1  # trial 1 of task 1
    torch.testing.assert_close(found[row, 0], encoder.likeliest(state)[1, 0])
    adapted = encoder.likeliest(learner.adapt(state, rollouts[0]))[1, 1]
    torch.testing.assert_close(found[row, length], adapted)


def test_it_refuses_discrete_actions() -> None:
    with pytest.raises(
        InputError, match=re.escape("pearl needs actions in a bounded Box, not in Discrete(5); use rl2")
    ):
        made("gridnavi")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"episodes_per_trial": 1}, "2 or more episodes_per_trial, not 1"),
        ({"latent_size": 0}, "latent_size must be at least 1"),
        ({"replay_size": 0}, "replay_size must be at least 1"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"discount": 1.5}, "discount must lie in"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more"),
        ({"anneal_iterations": -1}, "anneal_iterations must be 0 or more"),
        ({"task_encoder": "cosine"}, "task_encoder must be one of critic, contrastive, .* not 'cosine'"),
        ({"hidden_sizes": (0,)}, "every hidden layer needs at least one unit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PearlConfig(**settings)


@pytest.mark.slow
def test_later_episodes_of_a_trial_are_better_on_navigation(tmp_path: Path) -> None:
    run = RunConfig(
        iterations=20, horizon=20, tasks_per_batch=20, episodes_per_task=1, track="disabled", out=str(tmp_path / "run")
    )
    settings = PearlConfig(learning_rate=1e-3, discount=0.9, reward_scale=20.0, episodes_per_trial=3)
    train(TrainConfig("pearl", "navigation-2d", run, settings))
    means = evaluate(tmp_path / "run").returns.mean(0)
    assert means[-1] > means[0] + 1


@pytest.mark.slow
def test_it_learns_from_what_a_random_policy_recorded(tmp_path: Path) -> None:
    run = RunConfig(iterations=20, horizon=20, episodes_per_task=1, track="disabled", out=str(tmp_path / "online"))
    settings = PearlConfig(learning_rate=1e-3, discount=0.9, reward_scale=20.0, episodes_per_trial=3)
    train(TrainConfig("pearl", "navigation-2d", replace(run, iterations=1), settings))
    collect(CollectOptions(str(tmp_path / "online"), str(tmp_path / "data"), episodes=4, policy="random"))
    offline = replace(run, data=str(tmp_path / "data"), out=str(tmp_path / "offline"))
    train(TrainConfig("pearl", "navigation-2d", offline, settings))
    means = evaluate(tmp_path / "offline").returns.mean(0)
    assert means[-1] > means[0] + 2
