"""What a model carries over when its training task changes."""

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from metarl.agents.baselines.sb3.learner import Sb3Learner
from metarl.agents.baselines.sb3.models import count_transitions, knowledge
from metarl.errors import InputError
from metarl.learning.anchor import Anchor
from metarl.learning.learner import LEARNERS
from metarl.sampling.sampler import Sampler
from tests.agents.baselines.sb3.test_learner import HOME, collect, make
from tests.agents.baselines.sb3.test_models import numbers
from tests.runs import copy_learner

PAIRS = [(name, method) for name in HOME for method in LEARNERS[name].continual]
every_pair = pytest.mark.parametrize(("name", "method"), PAIRS)


def two_tasks(sampler: Sampler) -> tuple[TensorDict, TensorDict]:
    tasks = sampler.family.sample_tasks(2, torch.Generator().manual_seed(0))
    return tasks[:1], tasks[1:]


def learn(learner: Sb3Learner, sampler: Sampler, task: TensorDict) -> int:
    """Update on a task; return the env steps of the update."""
    rollout = collect(learner, sampler, learner.begin(1), tasks=task)
    learner.update([rollout])
    return rollout.env_steps


def met(name: str, method: str, **settings: Any) -> tuple[Sb3Learner, list[int]]:
    """Return a learner that has met one task twice and then another, and the env steps of each update."""
    learner, sampler = make(name, "oracle", continual=method, **settings)
    first, second = two_tasks(sampler)
    return learner, [learn(learner, sampler, task) for task in (first, first, second)]


@pytest.mark.parametrize(("method", "kept"), [("none", 3), ("fine-tuning", 1), ("replay", 3), ("ewc", 1)])
def test_transitions_and_exploration_at_a_change(method: str, kept: int) -> None:
    learner, steps = met("dqn", method)
    assert count_transitions(knowledge(learner.model)) == sum(steps[-kept:])
    explored = 3 if method == "none" else 1
    assert learner.model.num_timesteps == sum(steps[-explored:])


def distance(learner: Sb3Learner, anchor: Anchor) -> float:
    """Return Σ F (θ - θ_1)² of a learner's parameters, for an anchor of a single task."""
    values, total = dict(learner.model.policy.named_parameters()), 0.0
    for name, importance in anchor.importance.items():
        total += ((importance * values[name] - anchor.pull[name]).square() / importance.clamp(min=1e-30)).sum().item()
    return total


# The first steps of a2c's RMSprop are equally long whatever the gradient is.
@pytest.mark.parametrize("name", ["dqn", "ppo", "sac"])
def test_elastic_weight_consolidation_holds_what_acts(name: str) -> None:
    (held, _), (free, _) = met(name, "ewc", ewc_weight=1e3), met(name, "fine-tuning")
    assert held._stream is not None
    anchor = held._stream.anchor
    assert anchor.importance
    assert not any("critic" in key or "target" in key or "value" in key for key in anchor.importance)
    assert distance(held, anchor) < 0.9 * distance(free, anchor)


@every_pair
def test_a_restored_learner_goes_on_to_the_same_numbers(name: str, method: str) -> None:
    learner, sampler = make(name, "oracle", continual=method)
    first, second = two_tasks(sampler)
    learn(learner, sampler, first)
    other, _ = make(name, "oracle", continual=method, seed=2)
    copy_learner(learner, other)
    for each in (learner, other):
        learn(each, sampler, second)
    assert numbers(knowledge(learner.model)) == numbers(knowledge(other.model))


def test_several_tasks_at_once_are_refused() -> None:
    learner, sampler = make("dqn", "oracle", continual="replay")
    with pytest.raises(InputError, match="continual replay meets one task at a time: train with --task-source stream"):
        learner.update([collect(learner, sampler, learner.begin(2))])


def test_replay_needs_transitions() -> None:
    with pytest.raises(InputError, match="continual replay needs transitions"):
        LEARNERS["ppo"].config_class(continual="replay")
