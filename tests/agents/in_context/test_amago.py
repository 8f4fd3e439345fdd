"""AMAGO: returns as classes, targets, filter and losses by hand, what trains what, exploration, and resuming."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents.in_context.amago import Amago, AmagoConfig, entropies
from metarl.agents.in_context.amago_networks import explored
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.return_encodings import ScalarReturns, Spread, TwoHotReturns
from metarl.errors import InputError, RunError
from metarl.numerics.distributions import Categorical, Distribution, SquashedGaussian
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut
from tests.agents.test_all_learners import numbers as everything
from tests.runs import numbers, tiny

TASKS, SIDE_BY_SIDE, HORIZON = 2, 2, 6
SMALL: dict[str, Any] = {"hidden_size": 8, "embedding_size": 8, "hidden_sizes": (8,), "updates_per_iteration": 2}
SMALL |= {"layers": 1, "heads": 2, "discounts": (0.5, 0.9), "critics": 3, "bins": 7}
both_kinds = pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])
both_codes = pytest.mark.parametrize("critic", ["scalar", "two-hot"])


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner_and_rollouts(family: str = "navigation-2d", **settings: Any) -> tuple[Amago, list[Rollout]]:
    """Return an untrained learner and the two episodes of some trials, every second one cut short."""
    config = TrainConfig("amago", family, RunConfig(horizon=HORIZON), AmagoConfig(**{**SMALL, **settings}))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, Amago)
    tasks, rollouts = config.split().train_tasks(TASKS, 0), []
    state: Any = learner.begin(TASKS)
    for episode in range(2):
        rollouts.append(cut(sampler.collect(learner, state, tasks, SIDE_BY_SIDE, episode), 4))
        state = learner.adapt(state, rollouts[-1])
    return learner, rollouts


def say(heads: Perceptrons, outputs: Tensor) -> None:
    """Let each network of an ensemble give outputs ``[count, outputs]`` at everything."""
    for parameter in heads.parameters():
        parameter.data.zero_()
    heads.biases[-1].data.copy_(outputs)


def features(learner: Amago, trials: Trials) -> Tensor:
    return learner.network.reader.whole(learner.inputs_to_the_end(trials)).detach()


def test_bins_and_the_two_around_a_target_by_hand() -> None:
    code = TwoHotReturns(5, largest=(math.e**2 - 1) / 10, scale=10.0)
    one, two = (math.e - 1) / 10, (math.e**2 - 1) / 10
    torch.testing.assert_close(code.bins, torch.tensor([-two, -one, 0.0, one, two]))
    lower, share = code.encode(torch.tensor([0.3, -one, 0.0, two, 9.0, -9.0]))
    assert lower.tolist() == [3, 1, 2, 3, 3, 0]
    torch.testing.assert_close(share, torch.tensor([(0.3 - one) / (two - one), 0.0, 0.0, 1.0, 1.0, 0.0]))
    logits = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.5])
    probs = logits.softmax(0).tolist()
    loss = code.losses(logits, torch.tensor(0.3), torch.tensor(1.0)).item()
    above = (0.3 - one) / (two - one)
    assert loss == pytest.approx(-(1 - above) * math.log(probs[3]) - above * math.log(probs[4]), rel=1e-5)
    mean = (probs[4] - probs[0]) * two + (probs[3] - probs[1]) * one
    assert code.values(logits).item() == pytest.approx(mean, rel=1e-5)


@given(st.floats(-1000, 1000), st.integers(2, 64), st.floats(0.1, 100))
def test_the_mean_of_a_targets_code_is_the_target(target: float, bins: int, scale: float) -> None:
    code = TwoHotReturns(bins, largest=1000.0, scale=scale)
    lower, share = code.encode(torch.tensor([target]))
    probs = torch.zeros(bins)
    probs[lower], probs[lower + 1] = 1 - share, share
    assert code.values(probs.log()).item() == pytest.approx(target, rel=1e-3, abs=1e-3)


def test_errors_of_scalar_critics_are_in_units_of_the_targets_spread() -> None:
    loss = ScalarReturns().losses(torch.tensor([[3.0], [7.0]]), torch.tensor([1.0, 4.0]), torch.tensor([0.5, 2.0]))
    assert loss.tolist() == [16.0, 2.25]


def test_the_spread_is_that_of_all_targets_so_far() -> None:
    spread = Spread(2, rate=0.4)
    assert spread().tolist() == [1.0, 1.0]
    for mean, square in ((1.0, 2.0), (3.0, 12.0), (0.0, 4.0)):
        spread.update(torch.tensor([[mean, 0.0], [square, 0.0]]))
    # The third update counts 0.4: the mean is 0.6 * 2, that of squares 0.6 * 7 + 0.4 * 4.
    torch.testing.assert_close(spread(), torch.tensor([math.sqrt(5.8 - 1.44), 0.01]))


@both_codes
@pytest.mark.parametrize("terminates", [False, True])
def test_targets_of_all_discounts_by_hand(critic: str, terminates: bool) -> None:
    learner, rollouts = learner_and_rollouts("gridnavi", critic=critic, target_critics=2, largest_return=50.0)
    first, last = (replace(each, terminated=torch.zeros_like(each.valid)) for each in rollouts)
    first.terminated[:, 1, 3] = True  # an episode that is not the trial's last
    last.terminated[:, 1, HORIZON - 1] = terminates
    trials = Trials.of([first, last])[torch.tensor([1])]
    code = learner.network.critics.code
    outputs = torch.zeros(3, 2, 5, code.outputs)
    for number in range(3):
        for which in range(2):  # outputs that differ by critic and discount, but not by action
            outputs[number, which] = code.initial() + (number + 1.0) * (which + 1.0) * torch.linspace(
                0, 1, code.outputs
            ).add(1)
    say(learner.network.target_critics.heads, outputs.flatten(1))
    known = code.values(outputs[:, :, 0])
    targets = learner.targets(trials, features(learner, trials), stream())
    goes_on = torch.ones(2 * HORIZON, 1)
    goes_on[-1] = 1.0 - terminates
    discounts = torch.tensor([0.5, 0.9])
    # The lesser of two of three different critics is the first or the second.
    one, other = (trials.rewards[0].unsqueeze(-1) + discounts * goes_on * value for value in known.sort(0).values[:2])
    near = torch.isclose(targets[0], one), torch.isclose(targets[0], other)
    assert (near[0] | near[1]).all()
    assert all(each[:-1].any(0).all() for each in near)


def test_without_the_policy_gradient_targets_are_means() -> None:
    settings = {"policy_gradient_weight": 0.0, "imitation_weight": 1.0, "target_critics": 3}
    learner, rollouts = learner_and_rollouts("gridnavi", **settings)
    trials = Trials.of(rollouts)[torch.tensor([0])]
    say(learner.network.target_critics.heads, torch.tensor([1.0, 2.0, 6.0]).unsqueeze(-1).expand(3, 10))
    targets = learner.targets(trials, features(learner, trials), stream())
    torch.testing.assert_close(targets[0, 0, :], trials.rewards[0, 0] + torch.tensor([0.5, 0.9]) * 3.0)


def test_the_filter_and_all_losses_by_hand() -> None:
    weights = {"policy_gradient_weight": 2.0, "imitation_weight": 0.3, "entropy_weight": 0.7}
    learner, rollouts = learner_and_rollouts("gridnavi", **weights)
    network, trials = learner.network, Trials.of(rollouts)[torch.tensor([1, 3])]
    values = torch.stack([torch.arange(10.0) + each for each in (0.0, 3.0, -1.0)]).view(3, 2, 5)
    say(network.critics.heads, values.flatten(1))
    probs = torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2], [0.6, 0.1, 0.1, 0.1, 0.1]])
    say(network.policies, probs.log().flatten().unsqueeze(0))
    network.spread.moments.copy_(torch.tensor([[0.0, 0.0], [4.0, 16.0]]))
    targets = torch.full((*trials.rewards.shape, 2), 1.5)
    found = learner.losses(trials, features(learner, trials)[:, :-1], targets, stream())
    expected = dict.fromkeys(found, 0.0)
    actions = trials.actions[trials.valid].tolist()
    assert len(set(actions)) > 1
    nats = [-sum(float(prob) * math.log(prob) for prob in each) for each in probs]
    expected["entropy"] = nats[1]
    for action in actions:
        for which, spread in enumerate((2.0, 4.0)):
            value = float((values[:, which] * probs[which]).sum(-1).mean())
            taken = float(values[:, which, action].mean())
            imitated = float(taken > value)
            least = float((values[:, which] * probs[which]).sum(-1).amin())
            gain = 2.0 * least / spread + 0.3 * imitated * math.log(probs[which, action])
            expected["actor_loss"] -= (gain + 0.7 * nats[which]) / 2 / len(actions)
            errors = ((values[:, which, action] - 1.5) / spread).square().mean()
            expected["critic_loss"] += float(errors) / 2 / len(actions)
        expected["imitated_share"] += imitated / len(actions)
        expected["value"] += taken / len(actions)
    assert 0 < expected["imitated_share"] < 1
    assert {name: float(value.detach()) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


@both_kinds
@both_codes
@pytest.mark.parametrize("memory_losses", ["all", "critics"])
def test_what_trains_what(family: str, critic: str, memory_losses: str) -> None:
    weights = {"imitation_weight": 0.5, "entropy_weight": 0.5}
    learner, rollouts = learner_and_rollouts(family, critic=critic, memory_losses=memory_losses, **weights)
    network, trials = learner.network, Trials.of(rollouts)
    seen = network.reader.whole(learner.inputs_to_the_end(trials))
    targets = learner.targets(trials, seen.detach(), stream())
    found = learner.losses(trials, seen[:, :-1], targets, stream())
    parts = {"memory": network.reader, "policies": network.policies, "critics": network.critics}
    trains = {"actor_loss": {"memory", "policies"}, "critic_loss": {"memory", "critics"}}
    if memory_losses == "critics":
        trains["actor_loss"] = {"policies"}
    for loss, expected in trains.items():
        for name, part in parts.items():
            slopes = torch.autograd.grad(found[loss], list(part.parameters()), retain_graph=True, allow_unused=True)
            assert any(slope is not None and slope.any() for slope in slopes) == (name in expected), (loss, name)
    trained = {id(value) for value in learner._trained}
    targets_of = [*network.target_policies.parameters(), *network.target_critics.parameters()]
    assert not trained & {id(value) for value in targets_of}


def test_a_box_is_valued_by_the_mean_over_sampled_actions_of_each_discount() -> None:
    learner, _ = learner_and_rollouts(critics=1, target_critics=1, action_samples=2, hidden_sizes=())
    critics: Any = learner.network.critics
    size = learner.network.reader.size
    weights = torch.zeros(1, size + 3, 1)
    weights[0, size:, 0] = torch.tensor([1.0, 10.0, 100.0])  # of the horizon and both numbers of the action
    critics.heads.weights[-1].data.copy_(weights)
    policies = SquashedGaussian(torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]), torch.zeros(1, 1, 2, 2))
    draws = torch.randn(1, 1, 2, 2, 2, generator=stream())
    actions = (policies.mean.unsqueeze(2) + draws).tanh().mean(2)[0, 0]
    horizons = torch.tensor([math.log(3), math.log(11)])  # symlog of 2 and 10
    values = critics.expected(torch.zeros(1, 1, size), policies, stream())[0, 0, 0]
    torch.testing.assert_close(values, horizons + actions @ torch.tensor([10.0, 100.0]))
    known = critics.taken(torch.zeros(1, 1, size), torch.tensor([[[0.5, -0.5]]]))[0, 0, 0, :, 0]
    torch.testing.assert_close(known, horizons + 5.0 - 50.0)


def test_entropies_of_squashed_gaussians_are_estimated_from_actions() -> None:
    # Against quadrature: a policy in the middle, and one near a bound.
    mean = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1).expand(20_000, -1, -1, -1)
    found = entropies(SquashedGaussian(mean, torch.zeros_like(mean)), stream()).mean((0, 1))
    points = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    for entropy, center in zip(found, (0.0, 4.0), strict=True):
        density = torch.distributions.Normal(center, 1.0)
        slopes = 2 * (math.log(2) - points - torch.nn.functional.softplus(-2 * points))
        spread = torch.trapezoid(density.log_prob(points).exp() * slopes, points)
        assert entropy.item() == pytest.approx(float(density.entropy() + spread), abs=0.05)


@pytest.mark.parametrize("memory", ["transformer", "gru"])
@both_kinds
def test_reading_a_trial_at_once_is_acting_through_it(family: str, memory: str) -> None:
    learner, rollouts = learner_and_rollouts(family, memory=memory)
    trials = Trials.of(rollouts[:1])
    inputs = learner.inputs_to_the_end(trials)
    policy, _ = learner.network.policy_and_memory(inputs, learner.network.initial(len(inputs)))
    acted: Distribution = rollouts[0].known_distribution()
    for whole, stepwise in zip(policy.tensors(), acted.tensors(), strict=True):
        torch.testing.assert_close(whole[:, :-1][trials.valid], stepwise.flatten(0, 1)[trials.valid])


def test_the_policy_of_the_largest_discount_acts() -> None:
    learner, _ = learner_and_rollouts("gridnavi", exploration=0.0)
    say(learner.network.policies, torch.arange(10.0).unsqueeze(0))
    inputs = torch.zeros(1, 1, learner.inputs.size)
    policy: Any = learner.network.policy_and_memory(inputs, learner.network.initial(1))[0]
    torch.testing.assert_close(policy.logits[0, 0].softmax(-1), torch.arange(5.0, 10.0).softmax(-1))


def test_exploration_by_hand() -> None:
    probs = torch.tensor([0.5, 0.25, 0.25])
    mixed: Any = explored(Categorical(probs.log()), torch.tensor(0.4))
    torch.testing.assert_close(mixed.logits.exp(), 0.6 * probs + 0.4 / 3)
    torch.testing.assert_close(explored(mixed, torch.tensor(0.0)).tensors(), mixed.tensors())
    # A policy that acts at the upper bound, and one in the middle.
    policy = SquashedGaussian(torch.tensor([20.0, 0.0]).repeat(10_000, 1), torch.full((10_000, 2), -9.0))
    actions = explored(policy, torch.tensor(0.4)).sample(torch.Generator().manual_seed(0))
    assert actions.abs().max() < 1
    assert (actions[:, 0] < 0.999).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert actions[:, 1].std().item() == pytest.approx(0.39, abs=0.01)  # 0.4, less what is clipped
    quiet: Any = explored(policy, torch.tensor(0.0))
    assert quiet.sample(torch.Generator().manual_seed(0))[:, 1].abs().max() < 0.001
    torch.testing.assert_close(quiet.mode(), policy.mode())
    torch.testing.assert_close(quiet.kl(explored(policy, torch.tensor(0.4))), torch.zeros(10_000))


def test_exploration_decreases_to_nothing_and_is_in_the_checkpoint() -> None:
    learner, rollouts = learner_and_rollouts(exploration=0.5, exploration_iterations=2, updates_per_iteration=1)
    assert [learner.update(rollouts)["exploration"] for _ in range(2)] == [0.5, 0.25]
    other, _ = learner_and_rollouts()
    other.load_state_dict(learner.state_dict())
    assert learner.network.exploration.item() == other.network.exploration.item() == 0.0


def test_targets_follow() -> None:
    learner, rollouts = learner_and_rollouts(tau=0.25, updates_per_iteration=1)
    network = learner.network
    pairs = ((network.target_policies, network.policies), (network.target_critics, network.critics))
    before = [[value.clone() for value in target.parameters()] for target, _ in pairs]
    learner.update(rollouts)
    for olds, (target, trained) in zip(before, pairs, strict=True):
        for old, now, new in zip(olds, target.parameters(), trained.parameters(), strict=True):
            assert not torch.equal(old, new)
            torch.testing.assert_close(now, old + 0.25 * (new - old))


@both_codes
def test_an_update_that_is_not_finite_leaves_the_learner(critic: str) -> None:
    learner, rollouts = learner_and_rollouts(critic=critic)
    learner.update(rollouts)
    before, remembered = everything(learner.state_dict()).clone(), learner.past.newest
    broken = replace(rollouts[1], observations=torch.full_like(rollouts[1].observations, math.nan))
    with pytest.raises(RunError, match="the update is not finite"):
        learner.update([rollouts[0], broken])
    assert torch.equal(everything(learner.state_dict()), before)
    assert learner.past.newest is remembered


def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path) -> None:
    run = {"iterations": 3, "checkpoint_every": 1}
    settings = AmagoConfig(**SMALL, buffer_trials=6, exploration_iterations=4, anneal_iterations=4)
    whole = replace(tiny("amago", tmp_path / "whole", **run), settings=settings)
    parts = replace(tiny("amago", tmp_path / "parts", **{**run, "iterations": 2}), settings=settings)
    train(whole)
    train(parts)
    resume(tmp_path / "parts", 3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"discounts": ()}, "discounts must be one or more numbers in"),
        ({"discounts": (0.5, 1.0)}, r"discounts must be one or more numbers in \[0, 1\)"),
        ({"discounts": (0.9, 0.5)}, "discounts must be in ascending order"),
        ({"critics": 2, "target_critics": 3}, "target_critics must be at most critics = 2, not 3"),
        ({"bins": 1}, "bins must be at least 2"),
        ({"critic": "loud"}, "critic must be one of scalar, two-hot"),
        ({"memory_losses": "none"}, "memory_losses must be one of all, critics"),
        ({"policy_gradient_weight": 0.0, "imitation_weight": 0.0}, "the policy needs"),
        ({"entropy_weight": -1.0}, "entropy_weight must be 0 or more, not -1.0"),
        ({"exploration": 2.0}, "exploration must lie in"),
        ({"hidden_size": 6}, "the memory transformer.s size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AmagoConfig(**settings)


def test_recorded_trials_do_not_leave_a_policy_that_explores() -> None:
    learner, rollouts = learner_and_rollouts(exploration=0.5, exploration_iterations=10)
    recorded = [replace(each, log_probs=None, distribution=None) for each in rollouts]
    assert learner.network.exploration == 0.5
    assert learner.update(recorded)["exploration"] == 0
    assert learner.network.exploration == 0
    assert learner.update(rollouts)["exploration"] == pytest.approx(0.45)
    assert learner.network.exploration == pytest.approx(0.4)
