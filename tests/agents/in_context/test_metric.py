from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.metric import MetricConfig, MetricLearner
from metarl.errors import InputError
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut
from tests.runs import numbers, tiny

SMALL: dict[str, Any] = {"encoder_size": 8, "hidden_sizes": (8,), "metric_updates": 2}
TASKS, SIDE_BY_SIDE = 4, 3


def made(**settings: Any) -> tuple[MetricLearner, list[Rollout]]:
    """Return a learner, and the rollouts of trials of two episodes, of which every second is cut short."""
    config = TrainConfig("metric", "navigation-2d", RunConfig(horizon=6), MetricConfig(**{**SMALL, **settings}))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, MetricLearner)
    session = sampler.session(learner, config.split().train_tasks(TASKS, 0), SIDE_BY_SIDE)
    rollouts = [cut(sampler.run(session, 0), 4)]
    session.adapt()
    return learner, [*rollouts, sampler.run(session, 1)]


def encoder_of(learner: MetricLearner) -> Tensor:
    return torch.cat([value.detach().flatten().clone() for value in learner.network.encoder.parameters()])


@pytest.mark.parametrize("name", ["contrastive", "prototypical"])
def test_the_metric_trains_the_encoder_to_distinguish_tasks(name: str) -> None:
    learner, rollouts = made(task_encoder=name, metric_updates=30, metric_learning_rate=1e-2)
    trials = Trials.of(rollouts)
    # Rewards that give a task away.
    trials = replace(trials, rewards=trials.rewards + torch.arange(TASKS).repeat_interleave(SIDE_BY_SIDE)[:, None])
    first = learner.fit_encoder(trials, TASKS)["metric_loss"]
    assert learner.fit_encoder(trials, TASKS)["metric_loss"] < 0.8 * first


def test_policy_and_critic_have_no_gradient_for_the_encoder_and_the_metric_none_for_them() -> None:
    learner, rollouts = made()
    loss, _ = learner.loss(Trials.of(rollouts))
    encoder, policy = list(learner.network.encoder.parameters()), list(learner.network.policy.parameters())
    assert all(slope is None for slope in torch.autograd.grad(loss, encoder, allow_unused=True, retain_graph=True))
    assert any(slope.any() for slope in torch.autograd.grad(loss, policy))
    before = [value.clone() for value in policy]
    was = encoder_of(learner)
    learner.fit_encoder(Trials.of(rollouts), TASKS)
    assert all(map(torch.equal, policy, before))
    assert not torch.equal(encoder_of(learner), was)


def test_what_is_compared_are_embeddings_of_two_trials_of_one_task() -> None:
    learner, rollouts = made()
    trials = Trials.of(rollouts)
    # No trial is like another, already at its first step.
    apart = torch.arange(TASKS * SIDE_BY_SIDE).view(-1, 1, 1) / 3
    trials = replace(trials, observations=trials.observations + apart)
    encoder = learner.network.encoder
    found, _ = encoder(learner.trial_inputs(trials), encoder.memory.initial(len(trials.rewards)))
    everything = found.detach().view(TASKS, SIDE_BY_SIDE, -1, 5)
    rows = torch.arange(TASKS * SIDE_BY_SIDE).view(TASKS, SIDE_BY_SIDE)
    met = set()
    for seed in range(20):
        support, query = learner._compared(trials, rows, torch.Generator().manual_seed(seed))
        for task in range(TASKS):
            own = []
            for embeddings in (support[task], query[task]):
                distances = (embeddings.detach().unsqueeze(1) - everything[task].flatten(0, 1)).norm(dim=-1)
                assert (distances.amin(-1) < 1e-6).all()
                trial = distances.argmin(-1) // everything.shape[2]
                assert (trial == trial[0]).all()
                own.append(int(trial[0]))
            assert own[0] != own[1]
            met.add(tuple(own))
    assert len(met) == SIDE_BY_SIDE * (SIDE_BY_SIDE - 1)


def test_an_episode_acts_on_what_was_known_when_it_started() -> None:
    learner, rollouts = made()
    trials = Trials.of(rollouts)
    acted_on, encoder = learner.task_embeddings(trials), learner.network.encoder
    every, _ = encoder(learner.trial_inputs(trials), encoder.memory.initial(len(trials.rewards)))
    for trial, (embeddings, starts) in enumerate(zip(acted_on, trials.starts, strict=True)):
        first, second = starts.nonzero().flatten().tolist()
        assert (embeddings[first:second] == embeddings[first]).all()
        assert (embeddings[second:] == embeddings[second]).all()
        torch.testing.assert_close(embeddings[[first, second]], every[trial, [first, second]])
        assert not torch.equal(embeddings[first], embeddings[second])


def test_the_encoder_is_trained_on_first_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, rollouts = made()
    seen: list[Trials] = []
    monkeypatch.setattr(learner, "fit_encoder", lambda trials, tasks: seen.append(trials) or {})
    learner._learn(Trials.of(rollouts), rollouts)
    starts = seen[0].starts.sum(1)
    assert seen[0].rewards.shape[1] == rollouts[0].rewards.shape[2] + 1
    assert ((starts == 1) | (starts == 2)).all()


def test_a_single_trial_of_a_task_is_refused() -> None:
    learner, rollouts = made()
    first = [rollout.map(lambda tensor: tensor[:, :1]) for rollout in rollouts]
    with pytest.raises(InputError, match="compares trials of one task: it needs --episodes-per-task 2 or more"):
        learner.update(first)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_encoder": "critic"}, "task_encoder must be one of contrastive, .* not 'critic'"),
        ({"metric_tasks": 0}, "metric_tasks must be at least 1"),
        ({"metric_learning_rate": 0.0}, "metric_learning_rate must be positive"),
        ({"memory": "none"}, "none"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MetricConfig(**settings)


def test_a_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    settings = MetricConfig(**SMALL)
    run = {"checkpoint_every": 1}
    train(replace(tiny("metric", tmp_path / "whole", iterations=3, **run), settings=settings))
    train(replace(tiny("metric", tmp_path / "parts", iterations=2, **run), settings=settings))
    resume(tmp_path / "parts", 3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
