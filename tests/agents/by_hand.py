"""One iteration of any learner in float64, and what gradient-based learners make of it, written out a second time."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.agents.gradient import maml_trpo
from metarl.agents.gradient.adaptation import Episodes
from metarl.agents.gradient.gradient_learner import AdamLearner, GradientLearner
from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.agents.gradient.reptile import Reptile
from metarl.errors import RunError
from metarl.learning.learner import LEARNERS, Learner
from metarl.learning.trust_region import Candidate, Step
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import flatten, names, unflatten
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.runs import Float32Actor, double

TASKS, EPISODES, HORIZON = 3, 4, 5
MAMLS = [name for name, learner in LEARNERS.items() if issubclass(learner, GradientLearner)]
ADAMS = [name for name, learner in LEARNERS.items() if issubclass(learner, AdamLearner)]


@contextmanager
def float64() -> Iterator[None]:
    """Make new tensors of real numbers float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def iteration(name: str, family: str = "navigation-2d", seed: int = 0, **settings: Any) -> tuple[Any, list[Rollout]]:
    """Return an untrained learner of 4 hidden units and one iteration's rollouts, all in float64.

    Every second episode is cut short, so that means over steps are no means over episodes.
    """
    chosen = LEARNERS[name].config_class(**{"hidden_sizes": (4,), **settings})
    return _untrained(name, family, seed, chosen)[1], list(_collected(name, family, seed, chosen))


def _untrained(name: str, family: str, seed: int, chosen: Any) -> tuple[TrainConfig, Any]:
    config = TrainConfig(name, family, RunConfig(horizon=HORIZON, seed=seed), chosen)
    with float64():
        return config, config.make_learner()


@cache
def _collected(name: str, family: str, seed: int, chosen: Any) -> list[Rollout]:
    """Return the rollouts of an iteration; nothing may be changed in them."""
    config, learner = _untrained(name, family, seed, chosen)
    sampler, tasks = Sampler(config.make_family()), config.split().train_tasks(TASKS, seed)
    state, rollouts = learner.begin(TASKS), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollout = double(sampler.collect(Float32Actor(learner), state, tasks, EPISODES, seed + step))
        rollouts.append(cut(acted(learner, state.params, rollout), 3))
    return rollouts


def acted(learner: GradientLearner | Reptile, params: TensorDict, rollout: Rollout) -> Rollout:
    """Return a rollout as if the policy of ``params`` ``[N]`` had recorded it."""
    with torch.no_grad():
        distribution = learner.policy.distribution(params, rollout.observations)
    shape = (*rollout.rewards.shape, -1)
    distribution = distribution.map(lambda tensor: tensor.expand(shape))
    return replace(rollout, distribution=distribution, log_probs=distribution.log_prob(rollout.actions))


def cut(rollout: Rollout, length: int) -> Rollout:
    """Return a rollout in which every second episode ends after ``length`` steps, followed by zeros."""
    valid = rollout.valid.clone()
    valid[:, ::2, length:] = False
    values = {
        name: value.masked_fill(~valid.view(*valid.shape, *[1] * (value.ndim - 3)), 0)
        for name, value in vars(rollout).items()
        if isinstance(value, Tensor) and value.shape[:3] == valid.shape
    }
    whole = valid[:, :, -1].view(*valid.shape[:2], *[1] * (rollout.observations.ndim - 3))
    final = torch.where(whole, rollout.final_observations, rollout.observations[:, :, length])
    return replace(rollout, **{**values, "valid": valid, "final_observations": final})


def mean(values: Tensor, episodes: Episodes) -> Tensor:
    """Return the mean ``[N]`` of ``[N, E, T]`` over the valid steps of each task."""
    valid = episodes.rollout.valid
    return torch.stack([row[inside].mean() for row, inside in zip(values, valid, strict=True)])


def inner_objective(name: str, distribution: Distribution, episodes: Episodes) -> Tensor:
    """Return a surrogate ``[N]`` that can be differentiated anywhere, not at the sampling parameters alone."""
    log_probs = distribution.log_prob(episodes.rollout.actions)
    change = (log_probs - episodes.rollout.log_probs) * episodes.rollout.valid
    through = change.cumsum(-1)
    terms = {
        "likelihood-ratio": change.exp(),
        "dice": through.exp() - (through - change).exp(),
        "naive": log_probs,
    }[name]
    return mean(terms * episodes.advantages, episodes)


def moving(learner: GradientLearner) -> list[str]:
    """Return the names of what adaptation moves, for a policy of one hidden layer."""
    own = [name for name in names(learner.params) if not name.startswith("step_size_")]
    return {"all": own, "head": ["bias_1", "weight_1"], "context": ["context"]}[learner.config.adapted]


Slopes = dict[str, Tensor]


def adaptation(
    learner: GradientLearner, point: Tensor, support: Sequence[Episodes], constant: Sequence[Slopes] | None = None
) -> tuple[list[TensorDict], list[Slopes]]:
    """Adapt a vector of meta-parameters to each task; return all stages ``[N]`` and the slopes of each step.

    Args:
        learner: whose settings count; its parameters do not.
        point: ``[P]``; a graph leads back to it if it is part of one.
        support: what each step learns from.
        constant: slopes to take instead of the point's own.
    """
    config, meta = (
        learner.config,
        unflatten(point if point.requires_grad else point.clone().requires_grad_(), learner.params),
    )
    stage = {name: meta[name].expand(TASKS, *meta[name].shape) for name in names(meta)}
    if config.adapted == "context":
        stage["context"] = torch.zeros(TASKS, config.context_size, dtype=point.dtype, requires_grad=True)
    stages, slopes = [TensorDict(stage, [TASKS])], []
    for index, episodes in enumerate(support):
        distribution = learner.policy.distribution(stages[-1], episodes.rollout.observations)
        value = inner_objective(config.surrogate, distribution, episodes).sum()
        own = torch.autograd.grad(value, [stage[name] for name in moving(learner)], create_graph=True)
        slopes.append(constant[index] if constant else dict(zip(moving(learner), own, strict=True)))
        stage = dict(stage)
        for name, slope in slopes[-1].items():
            stage[name] = stage[name] + stage.get(f"step_size_{name}", config.inner_lr) * slope
        stages.append(TensorDict(stage, [TASKS]))
    return stages, slopes


def outer_surrogate(
    learner: GradientLearner, point: Tensor, data: Sequence[Episodes], constant: Sequence[Slopes] | None = None
) -> Tensor:
    """Return the mean likelihood-ratio surrogate of the adapted policies on the query rollout."""
    *support, query = data
    adapted = adaptation(learner, point, support, constant)[0][-1]
    distribution = learner.policy.distribution(adapted, query.rollout.observations)
    return inner_objective("likelihood-ratio", distribution, query).mean()


def weights(query: Rollout) -> Tensor:
    """Return how many deviations each task's mean return is above the mean of all tasks, ``[N]``: E-MAML's weights."""
    returns = torch.stack([(rewards * valid).sum() for rewards, valid in zip(query.rewards, query.valid, strict=True)])
    above = returns / EPISODES - returns.mean() / EPISODES
    return above / (above.square().mean().sqrt() + 1e-8)


def slope_of_update(learner: GradientLearner, rollouts: Sequence[Rollout]) -> Tensor:
    """Return the first meta-gradient ``[P]`` that ``update`` computes from the rollouts; the learner stays."""
    seen: list[Tensor] = []

    def stay(point: Tensor, slope: Tensor, *_: Any) -> Step:
        seen.append(slope)
        return Step(point, Candidate(0.0, 0.0), 0, False)

    def note(slopes: TensorDict) -> float:
        seen.append(flatten(slopes))
        return 0.0

    with (
        patch.object(maml_trpo, "trust_region_step", stay)
        if isinstance(learner, MamlTrpo)
        else patch.object(learner, "ascend", note)
    ):
        learner.update(rollouts)
    return seen[0]


def refuses_nan(learner: Learner, rollouts: list[Rollout], which: int, name: str) -> None:
    """Put a NaN into one rollout; the update must say so and leave the parameters as they were."""
    values = getattr(rollouts[which], name).clone()
    values[0, 1, 2] = math.nan
    broken = [*rollouts]
    broken[which] = replace(rollouts[which], **{name: values})
    before = flatten(learner.params).clone()  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="not finite"):
        learner.update(broken)
    assert torch.equal(flatten(learner.params), before)  # type: ignore[attr-defined]
