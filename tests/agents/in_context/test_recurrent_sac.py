"""Recurrent soft actor-critic: its losses by hand, what reaches which network, replay, and learning."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.recurrent_sac import RecurrentSac, RecurrentSacConfig
from metarl.agents.in_context.soft_actions import BoxActions, DiscreteActions
from metarl.errors import InputError, RunError
from metarl.numerics.distributions import Categorical, Distribution, SquashedGaussian
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut
from tests.agents.language.models import memory_settings
from tests.agents.test_all_learners import numbers as everything
from tests.runs import numbers, tiny

TASKS, SIDE_BY_SIDE, HORIZON = 2, 2, 6
SMALL: dict[str, Any] = {"hidden_size": 8, "embedding_size": 8, "hidden_sizes": (8,), "updates_per_iteration": 2}
both_kinds = pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner_and_rollouts(family: str = "navigation-2d", **settings: Any) -> tuple[RecurrentSac, list[Rollout]]:
    """Return an untrained learner and the two episodes of some trials, every second one cut short."""
    chosen = RecurrentSacConfig(**{**SMALL, **settings})
    config = TrainConfig("recurrent-sac", family, RunConfig(horizon=HORIZON), chosen)
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, RecurrentSac)
    tasks, rollouts = config.split().train_tasks(TASKS, 0), []
    state: Any = learner.begin(TASKS)
    for episode in range(2):
        rollouts.append(cut(sampler.collect(learner, state, tasks, SIDE_BY_SIDE, episode), 4))
        state = learner.adapt(state, rollouts[-1])
    return learner, rollouts


def say(critics: Perceptrons, *values: float) -> None:
    """Let each critic give one value at everything."""
    for parameter in critics.parameters():
        parameter.data.zero_()
    critics.biases[-1].data.copy_(torch.tensor(values)[:, None])


@pytest.mark.parametrize("episode_discount", [1.0, 0.3])
@pytest.mark.parametrize("terminates", [False, True])
def test_targets_by_hand(terminates: bool, episode_discount: float) -> None:
    discounts = {"discount": 0.9, "episode_discount": episode_discount}
    learner, rollouts = learner_and_rollouts(initial_temperature=0.5, **discounts)
    first, last = (replace(each, terminated=torch.zeros_like(each.valid)) for each in rollouts)
    first.terminated[:, 1, 3] = True  # an episode that is not the trial's last
    last.terminated[:, 1, HORIZON - 1] = terminates
    trials = Trials.of([first, last])[torch.tensor([1])]
    say(learner.network.critics.heads, 0.0, 0.0)
    say(learner.network.targets.heads, 3.0, 7.0)  # the pessimist says 3 everywhere
    critic_loss, _, _ = learner.losses(trials, stream())
    inputs = learner.inputs_to_the_end(trials)
    policy: Any = learner.network.policy_and_memory(inputs, learner.network.initial(1))[0]
    log_probs = policy.of_noise(torch.randn(len(inputs), inputs.shape[1], 2, generator=stream()))[1][0]
    assert len(log_probs) == 2 * HORIZON + 1
    following = 0.9 * (3.0 - 0.5 * log_probs[1:])
    following[HORIZON - 1] *= episode_discount
    targets = trials.rewards[0] + following
    if terminates:
        targets[-1] = trials.rewards[0, -1]
    torch.testing.assert_close(critic_loss, 2 * targets.square().mean())


def test_after_the_last_step_comes_what_it_led_to() -> None:
    learner, rollouts = learner_and_rollouts()
    trials = Trials.of(rollouts)
    inputs = learner.inputs_to_the_end(trials)
    torch.testing.assert_close(inputs[:, :-1][trials.valid], learner.trial_inputs(trials)[trials.valid])
    rows = torch.arange(len(inputs))
    final = torch.cat([rollouts[1].final_observations.flatten(0, 1), trials.actions[rows, trials.lengths - 1]], -1)
    torch.testing.assert_close(inputs[rows, trials.lengths, :4], final.clamp(-1, 1))
    torch.testing.assert_close(inputs[rows, trials.lengths, 4], trials.rewards[rows, trials.lengths - 1])
    assert (inputs[rows, trials.lengths, 5] == 0).all()


@pytest.mark.parametrize("memory", list(MEMORIES))
@both_kinds
def test_reading_a_trial_at_once_is_acting_through_it(family: str, memory: str) -> None:
    learner, rollouts = learner_and_rollouts(family, **memory_settings(memory))
    trials = Trials.of(rollouts[:1])
    inputs = learner.inputs_to_the_end(trials)
    policy, _ = learner.network.policy_and_memory(inputs, learner.network.initial(len(inputs)))
    acted: Distribution = rollouts[0].known_distribution()
    for whole, stepwise in zip(policy.tensors(), acted.tensors(), strict=True):
        torch.testing.assert_close(whole[:, :-1][trials.valid], stepwise.flatten(0, 1)[trials.valid])


def linear_critics(weights: list[list[list[float]]], biases: list[list[float]]) -> Perceptrons:
    critics = Perceptrons(2, [len(weights[0]), len(biases[0])], stream())
    critics.weights[0].data, critics.biases[0].data = torch.tensor(weights), torch.tensor(biases)
    return critics


def test_discrete_actions_are_valued_by_their_expectation() -> None:
    actions = DiscreteActions(3, 0.0)
    critics = linear_critics([[[0.0] * 3], [[0.0] * 3]], [[1.0, 2.0, 3.0], [3.0, 1.0, 4.0]])
    policy = Categorical(torch.tensor([[0.5, 0.25, 0.25]]).log())
    value, entropy = actions.soft_values(critics, torch.zeros(1, 1), policy, torch.zeros(1, 3), torch.tensor(2.0))
    # The lesser values are 1, 1 and 3; the entropy is 1.5 ln 2.
    torch.testing.assert_close(entropy, torch.tensor([1.5 * math.log(2)]))
    torch.testing.assert_close(value, torch.tensor([0.5 * 1 + 0.25 * 1 + 0.25 * 3 + 2 * 1.5 * math.log(2)]))
    taken = actions.values(critics, torch.zeros(1, 1), torch.tensor([[0.0, 0.0, 1.0]]))
    assert taken.tolist() == [[3.0], [4.0]]


def test_actions_in_a_box_are_valued_by_the_one_that_is_drawn() -> None:
    actions = BoxActions(1, 0.0)
    critics = linear_critics([[[1.0], [2.0]], [[1.0], [-2.0]]], [[0.0], [1.0]])  # x + 2a and x - 2a + 1
    policy = SquashedGaussian(torch.tensor([[0.3]]), torch.tensor([[math.log(0.5)]]))
    value, entropy = actions.soft_values(critics, torch.ones(1, 1), policy, torch.tensor([[0.4]]), torch.tensor(0.1))
    before = 0.3 + 0.5 * 0.4
    action = math.tanh(before)
    log_prob = -0.5 * 0.4**2 - math.log(0.5 * math.sqrt(2 * math.pi)) - math.log(1 - action**2)
    assert entropy.item() == pytest.approx(-log_prob, rel=1e-5)
    assert value.item() == pytest.approx(min(1 + 2 * action, 2 - 2 * action) - 0.1 * log_prob, rel=1e-5)


@pytest.mark.parametrize("family", ["navigation-2d", "gridnavi-image"])
def test_a_step_follows_each_networks_own_loss_and_the_critics_train_the_encoder(family: str) -> None:
    learner, rollouts = learner_and_rollouts(family)
    trials, network = Trials.of(rollouts), learner.network
    critic_loss, actor_loss, entropy = learner.losses(trials, stream())
    critics = [*network.critics.parameters(), *learner.inputs.encoder.parameters()]
    assert len(critics) > len(list(network.critics.parameters())) or not learner.inputs.encoder.learned
    actor = list(network.actor.parameters())
    expected = [*torch.autograd.grad(critic_loss, critics), *torch.autograd.grad(actor_loss, actor)]
    learner._step(trials, stream())
    for parameter, slope in zip([*critics, *actor], expected, strict=True):
        assert slope.any()
        torch.testing.assert_close(parameter.grad, slope)
    # Of temperature times surplus, by the temperature's logarithm; it was 0.1.
    surplus = entropy.detach() - network.actions.target_entropy
    torch.testing.assert_close(network.log_temperature.grad, 0.1 * surplus)
    assert all(value.grad is None for value in network.targets.parameters())


@pytest.mark.parametrize(("target", "warmer"), [(0.99, True), (0.01, False)])
def test_the_temperature_leads_the_entropy_to_its_target(target: float, warmer: bool) -> None:
    # A new policy over actions is neither uniform nor sure.
    learner, rollouts = learner_and_rollouts("gridnavi", discrete_entropy=target)
    head: Any = learner.network.actor["head"]
    head.weights[-1].data *= 3
    before = learner.network.log_temperature.item()
    metrics = learner.update(rollouts)
    assert 0.01 * math.log(5) < metrics["entropy"] < 0.99 * math.log(5)
    assert (learner.network.log_temperature.item() > before) == warmer


def test_targets_follow_the_critics() -> None:
    learner, rollouts = learner_and_rollouts(tau=0.25, updates_per_iteration=1)
    before = [value.clone() for value in learner.network.targets.parameters()]
    learner.update(rollouts)
    parts = zip(before, learner.network.critics.parameters(), learner.network.targets.parameters(), strict=True)
    for old, critic, target in parts:
        assert not torch.equal(old, critic)
        torch.testing.assert_close(target, old + 0.25 * (critic - old))


def test_a_batch_is_drawn_from_all_trials_that_are_remembered() -> None:
    learner, rollouts = learner_and_rollouts(buffer_trials=6)
    for count in (4, 6, 6):
        assert learner.update(rollouts)["replay_trials"] == count
    assert (learner.past.added, learner.past.kept) == (12, 6)


def test_it_learns_from_episodes_of_an_unknown_policy() -> None:
    learner, rollouts = learner_and_rollouts()
    known = learner.update(rollouts)
    other, _ = learner_and_rollouts()
    assert other.update([replace(each, log_probs=None, distribution=None) for each in rollouts]) == known


def test_an_update_that_is_not_finite_leaves_the_learner() -> None:
    learner, rollouts = learner_and_rollouts()
    learner.update(rollouts)
    before, remembered = everything(learner.state_dict()).clone(), learner.past.newest
    broken = replace(rollouts[1], rewards=torch.full_like(rollouts[1].rewards, math.nan))
    with pytest.raises(RunError, match="the update is not finite"):
        learner.update([rollouts[0], broken])
    assert torch.equal(everything(learner.state_dict()), before)
    assert learner.past.newest is remembered
    assert learner.past.added == TASKS * SIDE_BY_SIDE


def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path) -> None:
    run = {"iterations": 3, "checkpoint_every": 1}
    # Of 4 trials an iteration the second one drops the oldest.
    settings = RecurrentSacConfig(**SMALL, buffer_trials=6, anneal_iterations=4)
    whole = replace(tiny("recurrent-sac", tmp_path / "whole", **run), settings=settings)
    parts = replace(tiny("recurrent-sac", tmp_path / "parts", **{**run, "iterations": 2}), settings=settings)
    train(whole)
    train(parts)
    resume(tmp_path / "parts", 3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_the_step_size_falls_to_nothing_if_it_is_to() -> None:
    (learner, rollouts), (constant, _) = (learner_and_rollouts(anneal_iterations=count) for count in (2, 0))
    after = []
    for _ in range(3):
        learner.update(rollouts)
        after.append(torch.cat([value.detach().flatten() for value in learner._trained]))
    constant.update(rollouts)
    assert torch.equal(torch.cat([value.detach().flatten() for value in constant._trained]), after[0])
    assert not torch.equal(after[0], after[1])
    assert torch.equal(after[1], after[2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"episode_discount": -0.1}, "episode_discount must lie in"),
        ({"episode_discount": 0.9, "episodes_per_trial": 1}, "needs --episodes-per-trial 2 or more"),
        ({"buffer_trials": 0}, "buffer_trials must be at least 1"),
        ({"anneal_iterations": -1}, "anneal_iterations must be 0 or more, not -1"),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive"),
        ({"discrete_entropy": 1.5}, "discrete_entropy must lie in"),
        ({"hidden_sizes": (0,)}, "every hidden layer needs at least one unit"),
        ({"memory": "transformer", "hidden_size": 6}, "the memory transformer.s size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RecurrentSacConfig(**settings)
