import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.agents.in_context.past_trials import PastTrials, join_newest
from metarl.agents.in_context.varibad import VariBad, drawn_steps
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.agents.in_context.varibad_networks import Decoder
from metarl.errors import InputError, RunError
from metarl.numerics.distributions import Categorical
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut, float64
from tests.agents.language.models import memory_settings
from tests.agents.test_all_learners import numbers as everything
from tests.runs import double, numbers, same

TASKS, SIDE_BY_SIDE, HORIZON = 2, 4, 5
TINY: dict[str, Any] = {"encoder_size": 8, "hidden_sizes": (8,), "decoder_sizes": (8,)}
SMALL = {**TINY, "model_trials": 4, "epochs": 1, "minibatches": 2}


def config(family: str = "gridnavi", seed: int = 1, **settings: Any) -> TrainConfig:
    run = RunConfig(horizon=HORIZON, seed=seed) if family != "bandit" else RunConfig(seed=seed)
    return TrainConfig("varibad", family, run, VariBadConfig(**{**SMALL, **settings}))


def made(chosen: TrainConfig) -> VariBad:
    """Return an untrained learner whose beliefs depend on what it sees: those of a fresh one hardly do."""
    learner = chosen.make_learner()
    assert isinstance(learner, VariBad)
    for head in (learner.network.encoder.mean, learner.network.encoder.log_variance):
        torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    return learner


def collected(learner: VariBad, chosen: TrainConfig, seed: int = 0) -> list[Rollout]:
    """Return both episodes of trials."""
    sampler, tasks = Sampler(chosen.make_family()), chosen.split().train_tasks(TASKS, seed)
    first = sampler.collect(learner, learner.begin(TASKS), tasks, SIDE_BY_SIDE, seed)
    state = learner.adapt(learner.begin(TASKS), first)
    return [first, sampler.collect(learner, state, tasks, SIDE_BY_SIDE, seed + 1)]


def learner_and_trials(family: str = "gridnavi", **settings: Any) -> tuple[VariBad, Trials]:
    """Return a learner and trials of unlike lengths."""
    chosen = config(family, **settings)
    learner = made(chosen)
    return learner, Trials.of([cut(rollout, 3) for rollout in collected(learner, chosen)])


def in_float64(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[VariBad, Trials]:
    """Return a learner and trials of unlike lengths and many rewards, all in float64."""
    chosen = config(**settings)
    rollouts = [double(cut(rollout, 3)) for rollout in collected(made(chosen), chosen)]
    with float64():
        learner = made(chosen)
    monkeypatch.setattr(learner.inputs, "observations", Tensor.double)
    trials = Trials.of(rollouts)
    rewards = torch.randn(trials.rewards.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return learner, replace(trials, rewards=rewards * trials.valid)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(module: torch.nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("memory", list(MEMORIES))
@pytest.mark.parametrize("family", ["gridnavi", "navigation-2d", "bandit"])
def test_acting_step_by_step_meets_the_beliefs_of_the_whole_trial(family: str, memory: str) -> None:
    chosen = config(family, **memory_settings(memory))
    learner = made(chosen)
    rollouts = collected(learner, chosen)
    trials = Trials.of(rollouts)
    distribution, _, _ = learner.network(
        learner.trial_inputs(trials), learner.network.initial(len(trials.rewards)), trials.lengths
    )
    torch.testing.assert_close(distribution.log_prob(trials.actions), trials.log_probs, rtol=1e-4, atol=1e-5)


def test_a_belief_is_of_the_past_alone() -> None:
    learner, trials = learner_and_trials()
    later = replace(trials, rewards=trials.rewards.clone())
    later.rewards[:, 3] += 7.0
    one, other = learner.beliefs(trials), learner.beliefs(later)
    assert torch.equal(one.mean[:, :4], other.mean[:, :4])  # the reward of step 3 is known from step 4 on
    assert not torch.isclose(one.mean[:, 4], other.mean[:, 4]).any()


def test_every_trial_begins_with_the_same_belief() -> None:
    learner, trials = learner_and_trials()
    first = learner.beliefs(trials).map(lambda tensor: tensor[:, 0])
    assert all(torch.equal(tensor, tensor[:1].expand_as(tensor)) for tensor in first.tensors())


def test_only_a_new_trial_forgets() -> None:
    chosen = config()
    learner = made(chosen)
    rollouts = collected(learner, chosen)
    known = learner.adapt(learner.adapt(learner.begin(TASKS), rollouts[0]), rollouts[1])
    opened = learner.open(known, SIDE_BY_SIDE, stream()).trial
    assert torch.equal(opened.memory["hidden"], known.memory["hidden"])
    assert opened.memory["hidden"].abs().min() > 0
    fresh = learner.open(learner.begin(TASKS), SIDE_BY_SIDE, stream()).trial
    assert not fresh.memory["hidden"].any()


def test_beliefs_that_are_read_once_give_the_loss_of_each_minibatch() -> None:
    learner, trials = learner_and_trials()
    known, rows = learner.known(trials), torch.tensor([4, 1])
    one, other = learner.loss(trials[rows], known[rows]), learner.loss(trials[rows])
    torch.testing.assert_close(one[0], other[0])
    distribution, values, _ = learner.network(
        learner.trial_inputs(trials), learner.network.initial(len(known)), trials.lengths
    )
    read = learner.network.read(known, trials.lengths)
    torch.testing.assert_close(read[0].tensors(), distribution.tensors())
    torch.testing.assert_close(read[1], values)


def test_the_policy_teaches_neither_encoder_nor_decoders() -> None:
    learner, trials = learner_and_trials(transition_weight=1.0)
    loss, _ = learner.loss(trials)
    loss.backward()  # type: ignore[no-untyped-call]
    assert gradients(learner.network.encoder) == [None] * len(gradients(learner.network.encoder))
    assert gradients(learner.network.decoders) == [None] * len(gradients(learner.network.decoders))
    assert all(slope is not None and slope.any() for slope in gradients(learner.network.critic))


def test_the_bound_teaches_neither_policy_nor_critic() -> None:
    learner, trials = learner_and_trials(transition_weight=1.0)
    bound, _ = learner.elbo(trials, stream())
    bound.backward()  # type: ignore[no-untyped-call]
    for acting in (learner.network.policy, learner.network.critic, learner.network.head):
        assert gradients(acting) == [None] * len(gradients(acting))
    for model in (learner.network.encoder, learner.network.decoders):
        assert all(slope is not None and slope.any() for slope in gradients(model))


def test_policy_and_critic_see_observation_mean_and_log_variance() -> None:
    learner, trials = learner_and_trials()
    belief = learner.beliefs(trials)
    variances = 2 * belief.log_std
    known = torch.cat([trials.observations, belief.mean, variances], -1)
    memory = learner.network.initial(len(trials.rewards))
    distribution, values, _ = learner.network(learner.trial_inputs(trials), memory)
    assert isinstance(distribution, Categorical)
    torch.testing.assert_close(distribution.logits, learner.network.policy(known))
    torch.testing.assert_close(values, learner.network.critic(known).squeeze(-1))


EMBEDDED: dict[str, Any] = {"policy_observation_size": 3, "policy_belief_size": 4, "normalize_beliefs": True}


def test_embeddings_of_observation_and_belief_are_apart_and_learn_from_the_policy() -> None:
    learner, trials = learner_and_trials(**EMBEDDED)
    network = learner.network
    seen, belief = torch.randn(2, 3, 2), torch.randn(2, 3, 10)
    read = network.embedded(torch.cat([seen, belief], -1))
    assert read.shape == (2, 3, 7)
    torch.testing.assert_close(network.embedded(torch.cat([seen, 0 * belief], -1))[..., :3], read[..., :3])
    torch.testing.assert_close(network.embedded(torch.cat([0 * seen, belief], -1))[..., 3:], read[..., 3:])
    learner.loss(trials)[0].backward()  # type: ignore[no-untyped-call]
    assert all(slope is not None and slope.any() for slope in gradients(network.policy_inputs))
    assert all(slope is None for slope in gradients(network.encoder))


GENERATED: dict[str, Any] = {"generated_policy": True, "generated_critic": True}


@pytest.mark.parametrize("embedded", [{}, EMBEDDED])
def test_the_belief_generates_policy_and_critic(embedded: dict[str, Any]) -> None:
    chosen = config(**embedded, **GENERATED, epochs=1, minibatches=1)
    learner = made(chosen)
    network: Any = learner.network
    rollouts = collected(learner, chosen)
    trials = Trials.of(rollouts)
    learner.loss(trials)[0].backward()  # type: ignore[no-untyped-call]
    for part in (network.policy, network.critic):
        assert all(slope is not None and slope.any() for slope in gradients(part.hypernetwork))
    assert all(slope is None for slope in gradients(network.encoder))
    # Without the hypernetworks' weights, trials with other beliefs have the same policy and critic.
    seen, beliefs = torch.randn(1, 4, 2).expand(2, 4, 2), torch.randn(2, 4, 10)

    def outputs() -> Tensor:
        distribution, values = network.read(torch.cat([seen, beliefs], -1), None)
        return torch.cat([distribution.logits, values.unsqueeze(-1)], -1)

    one, other = outputs()
    assert (one != other).all()
    assert learner.update(rollouts)["clip_fraction"] == 0  # ratios start at 1
    with torch.no_grad():
        for part in (network.policy, network.critic):
            part.hypernetwork.weight.zero_()
    one, other = outputs()
    assert torch.equal(one, other)


def test_normalised_beliefs_have_the_moments_of_the_training_so_far_and_ratios_start_at_one() -> None:
    chosen = config(**EMBEDDED, epochs=1, minibatches=1)
    learner = made(chosen)
    rollouts = collected(learner, chosen)
    trials = Trials.of(rollouts)
    belief = learner.beliefs(trials).map(lambda tensor: tensor[trials.valid])
    assert learner.update(rollouts)["clip_fraction"] == 0
    scale = learner.network.policy_inputs.scale
    assert scale is not None
    torch.testing.assert_close(scale.mean, torch.cat([belief.mean, 2 * belief.log_std], -1).mean(0))
    again = collected(learner, chosen, seed=1)
    assert learner.update(again)["clip_fraction"] == 0


def test_the_divergence_is_of_each_belief_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, trials = in_float64(monkeypatch)
    belief = learner.beliefs(trials)
    total = 0.0
    for trial, length in enumerate(trials.lengths.tolist()):
        before = Normal(torch.zeros(5).double(), torch.ones(5).double())
        for step in range(length):
            now = Normal(belief.mean[trial, step], belief.log_std[trial, step].exp())
            total += kl_divergence(now, before).sum().item()
            before = now
    _, metrics = learner.elbo(trials, stream())
    assert metrics["kl"] == pytest.approx(total / int(trials.lengths.sum()), rel=1e-9)


def decoder_of_rewards(learner: VariBad) -> Decoder:
    decoder = learner.network.decoders["reward"]
    assert isinstance(decoder, Decoder)
    return decoder


def certain(learner: VariBad, mean: float, deviation: float) -> None:
    """Make every belief the same, and the decoder return the first number of the latent."""
    encoder, decoder = learner.network.encoder, decoder_of_rewards(learner)
    for parameter in (*encoder.mean.parameters(), *encoder.log_variance.parameters(), *decoder.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(encoder.mean.bias, mean)
    torch.nn.init.constant_(encoder.log_variance.bias, 2 * math.log(deviation))
    with torch.no_grad():  # z = relu(z) - relu(-z)
        decoder.of_latent.weight[:2, 0] = torch.tensor([1.0, -1.0])
        decoder.last.weight[0, :2] = torch.tensor([1.0, -1.0])


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_the_bound_of_beliefs_without_doubt_is_worked_out_by_hand(
    kl_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two trials of 2 and 4 steps with rewards 3 and 1 at each; every belief is N(2, 1e-6^2) in each of its numbers.
    learner, trials = in_float64(monkeypatch, latent_size=3, kl_weight=kl_weight)
    certain(learner, 2.0, 1e-6)
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    rewards = torch.tensor([[3.0], [1.0]]).double() * valid
    two = replace(Trials(**{name: value[:2, :4] for name, value in vars(trials).items()}), rewards=rewards, valid=valid)
    learner._mean_square_reward = torch.tensor(4.0)
    # In units of 2: errors 2 - 3/2 = 1/2 at 2 steps, 2 - 1/2 = 3/2 at 4 steps.
    likelihood = (2 * -0.5 * 2 * 0.5**2 + 4 * -0.5 * 4 * 1.5**2) / 6  # the mean over the 2 + 4 beliefs
    divergence = 3 * (0.5 * (1e-12 + 2.0**2 - 1) - math.log(1e-6)) * 2 / 6  # at two first steps of 6
    bound, metrics = learner.elbo(two, stream())
    assert bound.item() == pytest.approx(likelihood - kl_weight * divergence, rel=1e-5)
    assert metrics["kl"] == pytest.approx(divergence, rel=1e-9)
    assert metrics["reward_error"] == pytest.approx((0.5**2 + 1.5**2) / 2, rel=1e-5)


def test_the_likelihood_of_uncertain_beliefs_is_that_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # The decoder returns m ~ N(0.5, 0.7^2): E (m - r)^2 = (0.5 - r)^2 + 0.7^2, for the rewards of each whole trial.
    learner, trials = in_float64(monkeypatch, model_prefixes=500, model_targets=500)
    certain(learner, 0.5, 0.7)
    squares = ((0.5 - trials.rewards).square() + 0.7**2) * trials.valid
    divergence = 5 * (0.5 * (0.7**2 + 0.5**2 - 1) - math.log(0.7)) * len(trials.rewards) / trials.lengths.sum()
    likelihood = -0.5 * (squares.sum(-1) * trials.lengths).sum() / trials.lengths.sum()  # the mean over all beliefs
    bound, _ = learner.elbo(trials, stream())
    assert bound.item() == pytest.approx((likelihood - divergence).item(), rel=0.03)


def test_steps_are_drawn_evenly_from_inside_each_trial() -> None:
    _, trials = learner_and_trials()
    assert len(set(trials.lengths.tolist())) > 1
    steps = drawn_steps(trials, 4000, stream())
    for row, length in zip(steps, trials.lengths.tolist(), strict=True):
        counts = torch.bincount(row, minlength=length)
        assert len(counts) == length
        assert (counts / 4000 - 1 / length).abs().max() < 0.05


def made_of(rewards: Tensor, like: Trials) -> Trials:
    """Return trials of one length that differ in their rewards ``[B, L]`` alone."""
    shape = rewards.shape
    kept = {name: value[:1, :1].expand(*shape, *value.shape[2:]) for name, value in vars(like).items()}
    starts = torch.zeros(shape, dtype=torch.bool)
    starts[:, 0] = True
    return replace(Trials(**kept), rewards=rewards, starts=starts)


def fitted(learner: VariBad, trials: Trials, updates: int) -> list[dict[str, float]]:
    """Fit the model alone to the same trials in each of some updates."""
    metrics = []
    for update in range(1, updates + 1):
        learner._updates = update
        metrics.append(learner.fit_model(trials))
    return metrics


def test_the_model_learns_to_distinguish_tasks_by_their_rewards() -> None:
    # Tasks with reward 1 or -1 at all 8 steps: before the first reward the error is 1, so the mean can fall to 1/8.
    settings: dict[str, Any] = {
        "encoder_size": 16,
        "model_learning_rate": 0.01,
        "model_trials": 32,
        "model_updates": 20,
    }
    learner, like = learner_and_trials(**settings, model_prefixes=32)
    signs = torch.tensor([1.0, -1.0]).repeat(16)
    trials = made_of(signs[:, None].expand(-1, 8).clone(), like)
    assert learner.elbo(trials, stream())[1]["reward_error"] > 0.8
    assert fitted(learner, trials, 3)[-1]["reward_error"] < 0.25
    latents = learner.beliefs(trials).mean[:, -1:]
    seen, acted = trials.observations[:, :1], trials.actions[:, :1]
    predicted = learner.predicted_rewards(latents, seen, acted, seen)[:, 0, 0]
    torch.testing.assert_close(predicted, signs, rtol=0, atol=0.3)


def test_next_observations_are_decoded_where_they_count() -> None:
    learner, trials = learner_and_trials(transition_weight=0.5, model_updates=10, model_learning_rate=0.01)
    first, *_, last = fitted(learner, trials, 8)
    assert last["transition_error"] < 0.5 * first["transition_error"]


def test_by_default_they_are_not() -> None:
    learner, trials = learner_and_trials()
    assert set(learner.network.decoders) == {"reward"}
    assert "transition_error" not in learner.elbo(trials, stream())[1]


@pytest.mark.parametrize(("inputs", "expected"), [("transition", True), ("next-observation", False)])
def test_what_rewards_are_decoded_from(inputs: str, expected: bool) -> None:
    learner, trials = learner_and_trials(reward_inputs=inputs)
    latents = learner.beliefs(trials).mean
    seen, acted = trials.observations, trials.actions
    one, two = (learner.predicted_rewards(latents, seen, each, seen) for each in (acted, (acted + 1) % 5))
    three, four = (learner.predicted_rewards(latents, each, acted, seen) for each in (seen, seen + 1))
    assert torch.equal(one, two) != expected
    assert torch.equal(three, four) != expected
    assert not torch.equal(one, learner.predicted_rewards(latents, seen, acted, seen + 1))


def test_one_iteration_on_the_bandit(tmp_path: Path) -> None:
    run = RunConfig(iterations=1, tasks_per_batch=2, episodes_per_task=3, out=str(tmp_path / "run"), track="disabled")
    (row,) = train(TrainConfig("varibad", "bandit", run, VariBadConfig(**SMALL))).read_metrics()
    assert all(math.isfinite(float(value)) for value in row.values())
    assert float(row["reward_error"]) > 0


def test_the_same_seed_gives_the_same_bits() -> None:
    def after(seed: int) -> Tensor:
        chosen = config(seed=seed)
        learner = chosen.make_learner()
        assert isinstance(learner, VariBad)
        for iteration in range(2):
            learner.update(collected(learner, chosen, iteration))
        return everything(learner.state_dict())

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))


def test_a_resumed_run_gives_the_same_numbers(tmp_path: Path) -> None:
    def start(iterations: int, out: str) -> TrainConfig:
        run = RunConfig(iterations, out=str(tmp_path / out), track="disabled", tasks_per_batch=2, episodes_per_task=3)
        return TrainConfig("varibad", "gridnavi", run, VariBadConfig(**SMALL, buffer_trials=15))

    train(start(4, "whole"))
    train(start(2, "parts"))
    resume(tmp_path / "parts", iterations=4)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    one, other = (RunDirectory(tmp_path / name).load_checkpoint()["learner"] for name in ("parts", "whole"))
    assert torch.equal(everything(one), everything(other))


def test_past_trials_are_part_of_what_is_learned_from() -> None:
    chosen = config()
    learner = made(chosen)
    learner.update(collected(learner, chosen, 0))
    forgetful = made(chosen)
    forgetful.load_state_dict(learner.state_dict())
    rollouts = collected(learner, chosen, 1)
    one, other = (each.update(rollouts)["reward_error"] for each in (learner, forgetful))
    assert one != other


def test_as_many_trials_are_kept_as_configured() -> None:
    chosen = config(buffer_trials=13)
    learner = made(chosen)
    kept = []
    for iteration in range(3):
        learner.update(collected(learner, chosen, iteration))
        kept.append(learner.past.kept)
    assert kept == [8, 13, 13]
    assert learner.past.added == 3 * 8


@pytest.mark.parametrize("lengths", [(), (4,), (4, 6), (6, 4, 5), (6, 4, 4, 4)])
def test_past_trials_are_restored_from_pieces(lengths: tuple[int, ...]) -> None:
    _, like = learner_and_trials()
    past, other, pieces = PastTrials(7, torch.device("cpu")), PastTrials(7, torch.device("cpu")), []
    for number, length in enumerate(lengths):
        past.keep(past.joined(made_of(torch.full((3, length), float(number)), like)))
        pieces.append(past.read(past.added - 3, past.added))
    other.restore(past.added, pieces)
    assert (other.added, other.kept) == (past.added, past.kept)
    if past.newest is not None and other.newest is not None:
        assert same(vars(other.newest.trials), vars(past.newest.trials))
        assert torch.equal(other.newest.ages, past.newest.ages)


@pytest.mark.parametrize(("first", "second"), [(4, 6), (6, 4), (5, 5)])
def test_the_newest_trials_are_kept_at_the_length_of_the_longest(first: int, second: int) -> None:
    _, like = learner_and_trials()
    old, new = (made_of(torch.full((3, length), float(length)), like) for length in (first, second))
    kept = join_newest(old, new, 4)
    assert kept.rewards.shape == (4, max(first, second))
    assert kept.lengths.tolist() == [first] + 3 * [second]
    assert torch.equal(kept.rewards[1:, :second], new.rewards)
    assert not kept.rewards[~kept.valid].any()
    assert join_newest(None, new, 2).rewards.shape == (2, second)


def test_an_update_that_is_not_finite_changes_nothing() -> None:
    chosen = config()
    learner = made(chosen)
    torch.nn.init.constant_(decoder_of_rewards(learner).last.bias, math.inf)
    before = everything(learner.state_dict())
    with pytest.raises(RunError, match="NaN or infinity in the gradient of encoder and decoders"):
        learner.update(collected(learner, chosen))
    assert torch.equal(everything(learner.state_dict()), before)


def test_rewards_are_decoded_in_units_of_their_size() -> None:
    learner, like = learner_and_trials()
    assert learner.reward_scale == 1.0
    scales = []
    for update, reward in ((1, 5.0), (2, 1.0)):
        learner._updates = update
        scales.append(learner.fit_model(made_of(torch.full((4, 3), reward), like))["reward_scale"])
    assert scales == pytest.approx([5.0, 13.0**0.5])  # the root of (25 + 1) / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 0}, "latent_size must be at least 1, not 0"),
        ({"buffer_trials": 0}, "buffer_trials must be at least 1, not 0"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more, not -1.0"),
        ({"model_learning_rate": 0.0}, "model_learning_rate must be positive, not 0.0"),
        ({"decoder_sizes": ()}, "decoder_sizes must name at least one layer"),
        ({"reward_inputs": "state"}, "reward_inputs must be one of transition, next-observation, not 'state'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VariBadConfig(**settings)
