"""The metric ``adaptation_kl`` of learners that adapt by what they remember."""

from typing import Any

import pytest
import torch

from metarl.learning.learner import LEARNERS
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

SETTINGS: dict[str, dict[str, Any]] = {
    "rl2": {"hidden_size": 8},
    "hyper-rl2": {"hidden_size": 8, "policy_sizes": (4,)},
    "varibad": {"encoder_size": 8},
    "metric": {"encoder_size": 8},
    "recurrent-sac": {"hidden_size": 8, "updates_per_iteration": 1},
    "dpt": {"hidden_size": 8},
    "algorithm-distillation": {"hidden_size": 8},
    "amago": {"hidden_size": 8, "updates_per_iteration": 1, "exploration": 0.0},
    "pearl": {"hidden_sizes": (8,), "updates_per_iteration": 1, "random_iterations": 0},
}


def trial(name: str, episodes: int = 3) -> tuple[Any, list[Rollout]]:
    """Return a learner with large random parameters, and the episodes of one iteration's trials."""
    chosen = LEARNERS[name].config_class(episodes_per_trial=episodes, **SETTINGS[name])
    config = TrainConfig(name, "navigation-2d", RunConfig(horizon=5), chosen)
    learner: Any = config.make_learner()
    network = learner.networks if name == "pearl" else learner.network
    stream = torch.Generator().manual_seed(1)
    for value in network.parameters():
        value.data += 0.5 * torch.randn(value.shape, generator=stream)
    sampler, tasks = Sampler(learner.view(config.make_family(), chosen)), config.split().train_tasks(2, 0)
    session = sampler.session(learner, tasks, 3)
    rollouts = []
    for number in range(episodes):
        if number > 0:
            session.adapt()
        rollouts.append(sampler.run(session, seed=number))
    return learner, rollouts


def step_by_step(learner: Any, state: Any, rollout: Rollout) -> Any:
    """Return the distributions with which a learner in this state would have acted in a rollout, for each step."""
    working = learner.open(state, rollout.rewards.shape[1], torch.Generator().manual_seed(0), deterministic=True)
    found = []
    for step in range(rollout.rewards.shape[2]):
        found.append(learner.action_distribution(working, rollout.observations[:, :, step]))
        ended = rollout.terminated[:, :, step] | rollout.truncated[:, :, step]
        learner.observe(working, rollout.actions[:, :, step], rollout.rewards[:, :, step], ended)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_the_divergence_from_a_trial_that_begins_with_its_last_episode(name: str) -> None:
    learner, rollouts = trial(name)
    with torch.no_grad():
        adapted = learner.begin(2)
        for rollout in rollouts[:-1]:
            adapted = learner.adapt(adapted, rollout)
        after, before = (step_by_step(learner, state, rollouts[-1]) for state in (adapted, learner.begin(2)))
        kls = torch.stack([one.kl(other) for one, other in zip(after, before, strict=True)], -1)
    expected = float(kls[rollouts[-1].valid].mean())
    assert expected > 1e-3
    assert learner.update(rollouts)["adaptation_kl"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["rl2", "hyper-rl2", "varibad", "recurrent-sac"])
def test_a_trial_of_one_episode_moves_nothing(name: str) -> None:
    learner, rollouts = trial(name, episodes=1)
    assert learner.update(rollouts)["adaptation_kl"] == pytest.approx(0.0, abs=1e-5)
