"""FOCAL: the regularised actor, what trains the behaviour model, and training on recorded episodes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.focal import FocalConfig, FocalLearner, gaussian
from metarl.agents.in_context.pearl import Pearl
from metarl.agents.in_context.replay import Transitions
from metarl.errors import InputError
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.experiments.commands.main import main
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.train import resume, train
from tests.runs import numbers, tiny


def learner_and_steps(**settings: Any) -> tuple[Any, Any, torch.Tensor]:
    """Return an untrained learner, replayed steps of 2 tasks, and what they are conditioned on."""
    config = FocalConfig(**{"hidden_sizes": (8,), "batch_size": 16, **settings})
    learner: Any = TrainConfig("focal", "navigation-2d", RunConfig(horizon=6), config).make_learner()
    assert isinstance(learner, FocalLearner)
    stream = torch.Generator().manual_seed(0)
    observations, actions = torch.randn(2, 16, 2, generator=stream), torch.rand(2, 16, 2, generator=stream) - 0.5
    ones = torch.ones(2, 16)
    steps = Transitions(observations, actions, ones, observations, 0 * ones, ones.bool())
    return learner, steps, torch.randn(2, 16, 5, generator=stream)


def stream(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_actor_pays_for_its_divergence_and_the_model_for_its_misfit() -> None:
    learner, steps, latent = learner_and_steps(behaviour_weight=0.0)
    known = torch.cat([steps.observations, latent], -1)
    misfit = -gaussian(learner.behaviour(known)).log_prob(steps.actions).mean()
    plain, entropy = Pearl.actor_loss(learner, steps, latent, stream())
    found, same = learner.actor_loss(steps, latent, stream())
    torch.testing.assert_close(found, plain + misfit)
    torch.testing.assert_close(same, entropy)
    regularised, _, _ = learner_and_steps(behaviour_weight=2.0)
    rest = stream()
    Pearl.actor_loss(learner, steps, latent, rest)  # draws its actions first
    policy = learner.networks.policy(steps.observations, latent)
    actions, log_probs = policy.of_noise(torch.randn(2, 16, 2, generator=rest))
    divergence = (log_probs - gaussian(learner.behaviour(known)).log_prob(actions)).mean()
    torch.testing.assert_close(regularised.actor_loss(steps, latent, stream())[0], found + 2 * divergence)


def test_the_model_learns_from_recorded_actions_only() -> None:
    slopes = []
    for weight in (0.0, 5.0):
        learner, steps, latent = learner_and_steps(behaviour_weight=weight)
        loss, _ = learner.actor_loss(steps, latent, stream())
        slopes.append(torch.autograd.grad(loss, list(learner.behaviour.parameters())))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_a_heavy_weight_keeps_the_policy_at_the_recorded_actions() -> None:
    learner, steps, latent = learner_and_steps(behaviour_weight=100.0, learning_rate=1e-2)
    steps.actions.fill_(0.5)
    for number in range(150):
        learner._descend(1, learner.actor_loss(steps, latent, stream(number))[0])
    policy = learner.networks.policy(steps.observations, latent)
    torch.testing.assert_close(policy.mode(), steps.actions, atol=0.15, rtol=0)


def test_it_trains_on_recorded_episodes_and_resumes_exactly(tmp_path: Path) -> None:
    train(tiny("random", tmp_path / "walker", iterations=1))
    collect(CollectOptions(str(tmp_path / "walker"), str(tmp_path / "data"), tasks=5, episodes=6))
    run = {"checkpoint_every": 1, "data": str(tmp_path / "data")}
    train(tiny("focal", tmp_path / "whole", iterations=3, **run))
    train(tiny("focal", tmp_path / "parts", iterations=2, **run))
    resume(tmp_path / "parts", 3)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert {row["env_steps"] for row in numbers(tmp_path / "whole")} == {0}


def test_the_command_asks_for_recorded_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "focal", "navigation-2d"]) == 2
    assert "focal learns from the recorded episodes of another learner" in capsys.readouterr().err


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match="behaviour_weight must be 0 or more, not -1"):
        FocalConfig(behaviour_weight=-1.0)
