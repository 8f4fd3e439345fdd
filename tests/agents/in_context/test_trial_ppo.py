import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.agents.in_context.trial_values import share_ahead
from metarl.devices.transfer import read
from metarl.errors import InputError, RunError
from metarl.families.family import TaskFamily, make_family
from metarl.rollouts.returns import discounted_returns
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from tests.agents.language.models import memory_settings
from tests.fakes import EchoFamily, echo_tasks
from tests.runs import numbers

every_memory = pytest.mark.parametrize("memory", list(MEMORIES))
TASKS, EPISODES = 3, 2


def learner_of(family: TaskFamily, seed: int = 1, **settings: Any) -> Rl2:
    defaults = {"hidden_size": 8, "episodes_per_trial": 3, "epochs": 1, "minibatches": 1}
    return Rl2(family, Rl2Config(**{**defaults, **settings}), seed, torch.device("cpu"))


def trial_of(learner: Rl2, family: TaskFamily, seed: int = 0) -> list[Rollout]:
    """Return the rollouts of a trial: echo tasks, whose episodes have 1, 3 and 4 steps, or a family's own."""
    own = isinstance(family, EchoFamily)
    stream = torch.Generator().manual_seed(seed)
    tasks = echo_tasks([1, 2, 3], [1, 3, 9]) if own else family.sample_tasks(TASKS, stream)
    sampler, rollouts = Sampler(family), []
    state: Any = learner.begin(TASKS)
    for number in range(learner.inner_steps + 1):
        if number > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, EPISODES, 10 * seed + number))
    return rollouts


def made(seed: int = 0, **settings: Any) -> tuple[Rl2, list[Rollout]]:
    """Return a learner and one iteration's rollouts, in which trials have unequal lengths."""
    learner = learner_of(EchoFamily(), **settings)
    return learner, trial_of(learner, EchoFamily(), seed)


def flat(learner: Rl2) -> list[Any]:
    """Return everything that training changes."""

    def leaves(content: Any) -> Iterator[Any]:
        if isinstance(content, dict):
            for key in sorted(content, key=str):
                yield from leaves(content[key])
        else:
            yield content.tolist() if isinstance(content, Tensor) else content

    return list(leaves(learner.state_dict()))


def trials_by_hand(terminated: bool) -> Trials:
    """Return one trial of two episodes, of two steps and one, and a padding step after them."""
    ends = torch.tensor([[False, terminated, terminated, False]])
    return Trials(
        observations=torch.zeros(1, 4, 3),
        next_observations=torch.zeros(1, 4, 3),
        actions=torch.zeros(1, 4, 2),
        rewards=torch.tensor([[1.0, 2.0, 4.0, 0.0]]),
        log_probs=torch.zeros(1, 4),
        starts=torch.tensor([[True, False, True, False]]),
        terminated=ends,
        valid=torch.tensor([[True, True, True, False]]),
    )


@pytest.mark.parametrize("terminated", [False, True])
def test_advantages_run_through_the_ends_of_episodes_to_the_end_of_the_trial(terminated: bool) -> None:
    # Errors: 4 - 1 = 3, where the trial ends; 2 + 1/2 * 1 - 1/4 = 2.25, over an episode's end; 1 + 1/8 - 1/2 = 0.625.
    # Each advantage is the error plus 1/4 of the next one: 3, 2.25 + 0.75, 0.625 + 0.75.
    learner = learner_of(EchoFamily(), discount=0.5, gae_lambda=0.5)
    values = torch.tensor([[0.5, 0.25, 1.0, 7.0]])
    found = learner.advantages(trials_by_hand(terminated), values)
    torch.testing.assert_close(found, torch.tensor([[1.375, 3.0, 3.0, 0.0]]))


def test_an_episodes_end_discounts_what_comes_after_it() -> None:
    # As above, but 1/4 instead of 1/2 over the episode's end: errors 3, 2 + 1/4 * 1 - 1/4 = 2, 0.625; the advantage of
    # the second step is 2 plus 1/8 of 3, the first one's 0.625 plus 1/4 of that.
    learner = learner_of(EchoFamily(), discount=0.5, gae_lambda=0.5, episode_discount=0.5)
    found = learner.advantages(trials_by_hand(True), torch.tensor([[0.5, 0.25, 1.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.21875, 2.375, 3.0, 0.0]]))


def test_episodes_count_for_themselves_with_an_episode_discount_of_0() -> None:
    # The second reward earns nothing from the next episode: errors 3, 2 - 1/4, 0.625.
    learner = learner_of(EchoFamily(), discount=0.5, gae_lambda=0.5, episode_discount=0.0)
    found = learner.advantages(trials_by_hand(False), torch.tensor([[0.5, 0.25, 1.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0625, 1.75, 3.0, 0.0]]))


def test_without_an_episode_discount_there_is_one_discount_for_all_steps() -> None:
    assert trials_by_hand(True).discounts(0.9, 1.0) == 0.9
    found = trials_by_hand(True).discounts(0.5, 0.2)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.1, 0.5, 0.5]]))


def test_advantages_are_in_units_of_the_scale_of_returns() -> None:
    # As above with all rewards halved: errors 1, 1.25, 0.125.
    learner = learner_of(EchoFamily(), discount=0.5, gae_lambda=0.5)
    learner.load_state_dict({**learner.state_dict(), "mean_square": 4.0})
    found = learner.advantages(trials_by_hand(True), torch.tensor([[0.5, 0.25, 1.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5, 1.0, 0.0]]))


def test_the_scale_of_returns_is_the_root_of_their_mean_square_over_all_updates() -> None:
    # Every reward is the task's number, and with discount 0 the squares of the returns are those of the rewards.
    learner, rollouts = made(discount=0.0)
    assert learner.return_scale == 1.0
    expected = (3 * 1 * 1 + 3 * 3 * 4 + 3 * 4 * 9) / (3 * (1 + 3 + 4))
    assert learner.update(rollouts)["return_scale"] == pytest.approx(math.sqrt(expected))
    doubled = [replace(rollout, rewards=2 * rollout.rewards) for rollout in rollouts]
    assert learner.update(doubled)["return_scale"] == pytest.approx(math.sqrt((expected + 4 * expected) / 2))


def test_the_scale_is_that_of_returns_with_the_episode_discount() -> None:
    # Every reward is the task's number: a return is as many times that as there are steps left in the episode.
    learner, rollouts = made(discount=1.0, episode_discount=0.0)
    expected = (1 * 1 + 4 * (1 + 4 + 9) + 9 * (1 + 4 + 9 + 16)) / (1 + 3 + 4)
    assert learner.update(rollouts)["return_scale"] == pytest.approx(math.sqrt(expected))


def test_no_reward_leaves_the_scale_at_one() -> None:
    learner, rollouts = made()
    nothing = [replace(rollout, rewards=torch.zeros_like(rollout.rewards)) for rollout in rollouts]
    assert learner.update(nothing)["return_scale"] == 1.0


@pytest.mark.parametrize("layers", [(), (6, 5)], ids=["linear", "hidden layers"])
def test_the_first_pass_meets_the_probabilities_of_acting(layers: tuple[int, ...]) -> None:
    learner, rollouts = made(policy_sizes=layers)
    assert learner.update(rollouts)["clip_fraction"] == 0


@every_memory
@pytest.mark.parametrize("name", ["echo", "gridnavi", "bandit", "navigation-2d"])
def test_reading_the_whole_trial_gives_the_probabilities_of_acting(name: str, memory: str) -> None:
    # So the likelihood ratio is 1 in the first pass, also where episodes end early.
    family: TaskFamily = EchoFamily() if name == "echo" else make_family(name, horizon=1 if name == "bandit" else 6)
    learner = learner_of(family, **memory_settings(memory), window=7)
    trials = Trials.of(trial_of(learner, family))
    with torch.no_grad():
        memory_before = learner.network.initial(len(trials.rewards))
        distribution, _, _ = learner.network(learner.trial_inputs(trials), memory_before, trials.lengths)
    found = distribution.log_prob(trials.actions)
    torch.testing.assert_close(found[trials.valid], trials.log_probs[trials.valid], rtol=1e-4, atol=1e-5)


def test_observations_are_scaled_by_what_earlier_iterations_saw() -> None:
    family = make_family("navigation-2d", horizon=6)
    learner = learner_of(family, normalize_observations=True)
    first = trial_of(learner, family)
    assert learner.update(first)["clip_fraction"] == 0  # an iteration's passes meet the inputs that were acted on
    trials = Trials.of(first)
    seen = trials.observations[trials.valid]
    expected = (seen - seen.mean(0)) / seen.std(0, correction=0)
    torch.testing.assert_close(learner.inputs.observations(seen), expected, rtol=1e-4, atol=1e-4)
    assert learner.update(trial_of(learner, family, seed=1))["clip_fraction"] == 0


def test_the_scale_of_observations_is_part_of_a_checkpoint() -> None:
    family = make_family("navigation-2d", horizon=6)
    (first, second) = (learner_of(family, normalize_observations=True) for _ in range(2))
    first.update(trial_of(first, family))
    second.load_state_dict(first.state_dict())
    rollouts = trial_of(first, family, seed=1)
    assert second.update(rollouts) == first.update(rollouts)
    assert flat(second) == flat(first)


@every_memory
def test_in_the_first_pass_nothing_is_clipped_and_the_mean_advantage_is_left(memory: str) -> None:
    learner, rollouts = made(**memory_settings(memory))
    metrics = learner.update(rollouts)
    assert metrics["clip_fraction"] == 0
    assert metrics["policy_objective"] == pytest.approx(0.0, abs=1e-5)


def with_ratios(trials: Trials, ratios: Tensor) -> Trials:
    """Return trials whose actions are ``ratios`` times as likely now as they were recorded to be."""
    return replace(trials, log_probs=trials.log_probs - ratios.log())


def values_of(learner: Any, trials: Trials) -> Tensor:
    """Return the critic's values of the trials' steps."""
    with torch.no_grad():
        memory = learner.network.initial(len(trials.rewards))
        _, rates, _ = learner.network(learner.trial_inputs(trials), memory, trials.lengths)
    discounts = learner.config.discount, learner.config.episode_discount
    return rates * share_ahead(trials, discounts, learner.config.episodes_per_trial, EchoFamily().horizon)


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("episode_discount", [0.0, 0.5, 1.0])
def test_less_of_a_trial_may_be_ahead_at_each_step(discount: float, episode_discount: float) -> None:
    # Two episodes of at most three steps: 6 and 5 may be ahead in the first, which ends early; 3 and 2 in the second.
    sums = [
        sum(discount**step * episode_discount ** (step >= here) for step in range(ahead))
        for ahead, here in ((6, 3), (5, 2), (3, 3), (2, 2))
    ]
    expected = torch.tensor([[each / sums[0] for each in sums]])
    torch.testing.assert_close(share_ahead(trials_by_hand(True), (discount, episode_discount), 2, 3), expected)


def test_other_trials_do_not_matter_for_what_is_ahead() -> None:
    short = trials_by_hand(True)
    discounts = 0.9, 1.0
    found = share_ahead(short.padded(9), discounts, 2, 3)
    torch.testing.assert_close(found[:, :3], share_ahead(short, discounts, 2, 3)[:, :3])


def test_the_critics_outputs_are_values_without_the_switch() -> None:
    scaled, rollouts = made(value_weight=1.0)
    plain, _ = made(value_weight=1.0, scale_values=False)
    trials = Trials.of(rollouts)
    losses = [learner.loss(trials)[1]["value_loss"].item() for learner in (scaled, plain)]
    assert losses[0] != losses[1]
    with torch.no_grad():
        _, outputs, _ = plain.network(plain.trial_inputs(trials), plain.network.initial(len(trials.rewards)))
        errors = plain.advantages(trials, outputs)[trials.valid]
    assert losses[1] == pytest.approx(errors.square().mean().item(), rel=1e-4)


def test_a_reward_that_never_changes_needs_one_number_of_the_critic() -> None:
    # Whatever the step, its return is the same multiple of the share that is ahead.
    trials = replace(trials_by_hand(True), rewards=torch.full((1, 4), 3.0), valid=torch.ones(1, 4, dtype=torch.bool))
    returns = discounted_returns(trials.rewards, trials.valid, 0.9)
    ratios = returns / share_ahead(replace(trials, starts=torch.arange(4)[None] == 0), (0.9, 1.0), 1, 4)
    torch.testing.assert_close(ratios, ratios[:, :1].expand(1, 4))


def test_ratios_count_up_to_the_clip() -> None:
    learner, rollouts = made(clip_range=0.3, normalize_advantages=False)
    trials = Trials.of(rollouts)
    ratios = torch.tensor([2.0, 0.5, 1.2, 0.8]).repeat(trials.rewards.numel())[: trials.rewards.numel()]
    ratios = ratios.view_as(trials.rewards)
    with torch.no_grad():
        gain = learner.advantages(trials, values_of(learner, trials))
        _, metrics = learner.loss(with_ratios(trials, ratios))
    counted = torch.where(gain > 0, ratios.clamp(max=1.3), ratios.clamp(min=0.7))
    assert metrics["policy_objective"] == pytest.approx((counted * gain)[trials.valid].mean().item(), rel=1e-4)
    outside = ((ratios > 1.3) | (ratios < 0.7))[trials.valid].float().mean().item()
    assert metrics["clip_fraction"] == pytest.approx(outside)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_is_made_of_what_the_metrics_show(normalize: bool) -> None:
    learner, rollouts = made(value_weight=0.7, entropy_weight=0.2, normalize_advantages=normalize)
    loss, terms = learner.loss(Trials.of(rollouts))
    metrics = read(terms)
    expected = 0.35 * metrics["value_loss"] - metrics["policy_objective"] - 0.2 * metrics["entropy"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_critic_learns_the_rest_of_the_trial() -> None:
    # With lambda 1 the targets are the returns to the trial's end, in units of their scale.
    learner, rollouts = made(gae_lambda=1.0, discount=1.0)
    trials = Trials.of(rollouts)
    values = values_of(learner, trials)
    following = trials.rewards.flip(-1).cumsum(-1).flip(-1)
    expected = (following - values).square()[trials.valid].mean().item()
    assert learner.loss(trials)[1]["value_loss"] == pytest.approx(expected, rel=1e-5)


def test_what_comes_after_a_trial_counts_nowhere() -> None:
    learner, rollouts = made()
    trials = Trials.of(rollouts)
    assert not trials.valid.all()

    def junk(values: Tensor) -> Tensor:
        inside = trials.valid.view(*trials.valid.shape, *[1] * (values.ndim - 2))
        return torch.where(inside, values, 3.0)

    changed = replace(
        trials, **{name: junk(getattr(trials, name)) for name in ("observations", "actions", "rewards", "log_probs")}
    )
    one, other = learner.loss(trials), learner.loss(changed)
    assert one[1] == other[1]
    assert torch.equal(one[0], other[0])


def test_every_pass_meets_every_trial_once_in_another_order() -> None:
    learner, _ = made(epochs=3, minibatches=4)
    pieces = list(learner._minibatches(10))
    assert [len(piece) for piece in pieces] == [3, 3, 3, 1] * 3
    passes = [torch.cat(pieces[start : start + 4]).tolist() for start in (0, 4, 8)]
    assert all(sorted(order) == list(range(10)) for order in passes)
    assert passes[0] != passes[1]


def test_fewer_trials_than_minibatches_are_a_step_each() -> None:
    learner, rollouts = made(epochs=2, minibatches=50)
    learner.update(rollouts)
    assert {int(entry["step"]) for entry in learner.state_dict()["moments"].values()} == {12}


def test_an_update_climbs_the_objective() -> None:
    learner, rollouts = made(epochs=5, entropy_weight=0.0, value_weight=0.0)
    before = learner.loss(Trials.of(rollouts))[1]["policy_objective"]
    learner.update(rollouts)
    assert learner.loss(Trials.of(rollouts))[1]["policy_objective"] > before + 1e-3


@every_memory
@pytest.mark.parametrize("name", ["rewards", "observations", "log_probs"])
def test_an_update_from_nan_changes_nothing_and_says_so(name: str, memory: str) -> None:
    learner, rollouts = made(**memory_settings(memory), minibatches=3)
    learner.update(rollouts)
    before = flat(learner)
    values = getattr(rollouts[1], name).clone()
    values[0, 1, 0] = math.nan
    with pytest.raises(RunError, match=r"the update is not finite \(NaN or infinity in the gradient\)"):
        learner.update([rollouts[0], replace(rollouts[1], **{name: values}), rollouts[2]])
    assert flat(learner) == before


def test_an_update_that_breaks_in_a_later_pass_changes_nothing_either() -> None:
    learner, rollouts = made(epochs=3, learning_rate=1e30)
    before = flat(learner)
    with pytest.raises(RunError, match="not finite"):
        learner.update(rollouts)
    assert flat(learner) == before


def test_after_a_refused_update_learning_continues_as_if_it_had_not_happened() -> None:
    (learner, rollouts), (other, _) = made(epochs=2), made(epochs=2)
    with pytest.raises(RunError):
        learner.update([replace(rollouts[0], rewards=rollouts[0].rewards * math.nan), *rollouts[1:]])
    assert learner.update(rollouts) == other.update(rollouts)
    assert flat(learner) == flat(other)


def small(out: Path, iterations: int) -> TrainConfig:
    settings = Rl2Config(hidden_size=8, episodes_per_trial=3, epochs=2, minibatches=2)
    run = RunConfig(
        iterations=iterations,
        tasks_per_batch=2,
        episodes_per_task=3,
        horizon=5,
        out=str(out),
        track="disabled",
        checkpoint_every=1,
    )
    return TrainConfig("rl2", "gridnavi", run, settings)


def test_a_resumed_run_meets_the_same_numbers(tmp_path: Path) -> None:
    metarl.train(small(tmp_path / "whole", 3))
    metarl.train(small(tmp_path / "parts", 1))
    metarl.resume(tmp_path / "parts", iterations=3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    one, other = (RunDirectory(tmp_path / name).load_checkpoint()["learner"] for name in ("whole", "parts"))
    assert all(torch.equal(one["network"][name], other["network"][name]) for name in one["network"])
    assert one["mean_square"] == other["mean_square"]


def test_the_step_size_falls_to_nothing_if_it_is_to() -> None:
    learner, rollouts = made(learning_rate=0.004, anneal_iterations=2)
    assert [learner.update(rollouts)["learning_rate"] for _ in range(2)] == [0.004, 0.002]
    before = learner.state_dict()["network"]
    assert learner.update(rollouts)["learning_rate"] == 0
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict()["network"].items())
    kept, rollouts = made(learning_rate=0.004)
    assert [kept.update(rollouts)["learning_rate"] for _ in range(2)] == [0.004, 0.004]


def test_a_resumed_learner_continues_with_the_same_step_size() -> None:
    (first, rollouts), (second, _) = (made(anneal_iterations=5) for _ in range(2))
    first.update(rollouts)
    second.load_state_dict(first.state_dict())
    assert second.update(rollouts) == first.update(rollouts)
    assert flat(second) == flat(first)


@every_memory
def test_a_bandits_iteration_moves_the_policy(memory: str) -> None:
    family = make_family("bandit")
    learner = learner_of(family, **memory_settings(memory), episodes_per_trial=4)
    before = flat(learner)
    metrics = learner.update(trial_of(learner, family))
    assert flat(learner) != before
    assert metrics["entropy"] == pytest.approx(math.log(5), abs=1e-3)  # a new policy is near uniform over five arms
    assert metrics["gradient_norm"] > 0


@every_memory
def test_the_same_seed_gives_the_same_numbers(memory: str) -> None:
    results = []
    for _ in range(2):
        learner, rollouts = made(**memory_settings(memory), epochs=2, minibatches=2)
        results.append((learner.update(rollouts), flat(learner)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"discount": 1.5}, "discount must lie in [0, 1], not 1.5"),
        ({"gae_lambda": -0.1}, "gae_lambda must lie in [0, 1], not -0.1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, not 0.0"),
        ({"anneal_iterations": -1}, "anneal_iterations must be 0 or more, not -1"),
        ({"clip_range": 0.0}, "clip_range must be positive, not 0.0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm must be positive, not -1.0"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"minibatches": 0}, "minibatches must be at least 1, not 0"),
        ({"value_weight": -1.0}, "value_weight must be 0 or more, not -1.0"),
        ({"entropy_weight": math.nan}, "entropy_weight must be 0 or more, not nan"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Rl2Config(**bad)
