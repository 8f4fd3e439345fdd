"""Small training runs, what can be compared of them, and derivatives by central differences."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl.training.loop
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.learning.learner import LEARNERS, Actor, Learner
from metarl.learning.trust_region import TrustRegionConfig
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import flatten
from metarl.rollouts.rollout import Rollout
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.metrics_file import MetricsRow
from metarl.sampling.sampler import Sampler

VALIDATION_TASKS = 4  # of every run that is trained in a test
# Learners without files of their own; a language model is tested in tests/agents/language.
SELF_CONTAINED = [name for name in LEARNERS if name != "language"]
# Settings of learners that only cost time in most tests.
LITTLE_WORK: dict[str, Any] = {
    "batch_size": 8,
    "buffer_size": 1000,
    "critics": 2,
    "discounts": (0.5, 0.9),
    "epochs": 1,
    "encoder_size": 8,
    "hidden_size": 8,
    "layers": 1,
    "metric_updates": 2,
    "minibatches": 2,
    "model_updates": 1,
    "replay_size": 1000,
    "steps_per_gradient": 5,
    "tasks_per_update": 2,
    "trials_per_update": 8,
    "trust_region": TrustRegionConfig(cg_iterations=2),
    "updates_per_iteration": 2,
}
# Learners that choose among a few actions, and the one that observes the best of them.
CHOOSING = ("dqn", "bandit-rule", "optimal")
SMALL = ["--tasks-per-batch", "2", "--episodes-per-task", "3", "--track", "disabled"]
SMALL += ["--hidden-sizes", "8", "--cg-iterations", "2"]


def small(out: Path | str | None = None, family: str = "bandit", **run: Any) -> TrainConfig:
    """Return a MAML-TRPO run of milliseconds an iteration."""
    settings = run.pop("settings", MamlTrpoConfig(hidden_sizes=(8,), trust_region=TrustRegionConfig(cg_iterations=2)))
    defaults = {"iterations": 4, "tasks_per_batch": 2, "episodes_per_task": 3, "track": "disabled"}
    place = None if out is None else str(out)
    return TrainConfig("maml-trpo", family, RunConfig(**{**defaults, **run}, out=place), settings)


def numbers(path: Path | str) -> list[MetricsRow]:
    """Return the rows of metrics.csv without what a clock measured."""
    rows = RunDirectory(path).read_metrics()
    return [
        {key: value for key, value in row.items() if not key.startswith("time_") and key != "env_steps_per_second"}
        for row in rows
    ]


def checkpoint_vector(path: Path | str) -> Tensor:
    """Return all parameters of a run's checkpoint in one vector."""
    params = RunDirectory(path).load_checkpoint()["learner"]["params"]
    return torch.cat([params[name].reshape(-1) for name in sorted(params)])


def contents(folder: Path | str) -> dict[str, bytes]:
    """Return what every file under a folder holds, by its path there."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python interpreter to its end."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def double(rollout: Rollout) -> Rollout:
    """Return a rollout in float64."""
    return rollout.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def one_task(rollout: Rollout, task: int) -> Rollout:
    """Return the rollout of a single task ``[1]``."""
    kept = slice(task, task + 1)
    cut = {
        name: value.map(lambda tensor: tensor[kept]) if isinstance(value, Distribution) else value[kept]
        for name, value in vars(rollout).items()
        if value is not None
    }
    return Rollout(**cut)


def learner_and_rollouts(
    family: str = "navigation-2d", tasks: int = 3, episodes: int = 4, horizon: int = 5, seed: int = 0, **settings: Any
) -> tuple[MamlTrpo, list[Rollout]]:
    """Return an untrained learner and one iteration's rollouts, all in float64."""
    chosen = MamlTrpoConfig(**{"hidden_sizes": (4,), **settings})
    config = TrainConfig("maml-trpo", family, RunConfig(horizon=horizon, seed=seed), chosen)
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, MamlTrpo)
    learner.params = learner.params.double()
    drawn = config.split().train_tasks(tasks, seed)
    state, rollouts = learner.begin(tasks), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        # Environments speak float32; in float64 the recorded numbers must be those of the float64 policy.
        rollout = double(sampler.collect(Float32Actor(learner), state, drawn, episodes, seed + step))
        distribution = learner.policy.distribution(state.params, rollout.observations)
        shape = (*rollout.rewards.shape, -1)
        distribution = distribution.map(lambda tensor: tensor.detach().expand(shape))  # noqa: B023
        log_probs = distribution.log_prob(rollout.actions)
        rollouts.append(Rollout(**{**vars(rollout), "distribution": distribution, "log_probs": log_probs}))
    return learner, rollouts


class Float32Actor(Actor):
    """Acts by a float64 learner on float32 observations."""

    def __init__(self, learner: MamlTrpo) -> None:
        self.learner = learner

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> Any:
        return self.learner.open(state, episodes, generator, deterministic)

    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Any]:
        actions, distribution = self.learner.act(working, observations.double(), generator, deterministic)
        actions = actions.float() if actions.is_floating_point() else actions
        return actions, distribution.map(Tensor.float)


def central_differences(function: Callable[[Tensor], Tensor], point: Tensor, step: float = 1e-5) -> Tensor:
    """Return the derivative of a scalar (or vector) function along each coordinate, ``[P, ...]``."""
    rows = []
    for index in range(point.numel()):
        offset = torch.zeros_like(point)
        offset[index] = step
        rows.append((function(point + offset) - function(point - offset)) / (2 * step))
    return torch.stack(rows).detach()


def vector(learner: MamlTrpo) -> Tensor:
    """Return a learner's parameters in one vector."""
    return flatten(learner.params)


def train_words(*words: Any, out: Path | str) -> list[str]:
    """Return the command line of a small training run of MAML-TRPO."""
    return ["train", "maml-trpo", *map(str, words), *SMALL, "--out", str(out)]


def little_work(name: str) -> Any:
    """Return a learner's settings with which an update is little work."""
    config_class = LEARNERS[name].config_class
    settings = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{key: value for key, value in LITTLE_WORK.items() if key in settings})


def tiny(name: str, out: Path | str, **run: Any) -> TrainConfig:
    """Return a run of any learner of two small iterations, in a family of positions in a plane that it acts in."""
    family = "gridnavi" if name in CHOOSING else "navigation-2d"
    shared = {"iterations": 2, "tasks_per_batch": 2, "episodes_per_task": 2, "horizon": 6, "track": "disabled"}
    return TrainConfig(name, family, RunConfig(**{**shared, **run}, out=str(out)), little_work(name))


def copy_learner(learner: Learner, other: Learner) -> None:
    """Let ``other`` take over everything that training changed in ``learner``, its replay buffers included."""
    other.load_state_dict(learner.state_dict())
    for name, replay in learner.replays().items():
        pieces = [replay.read(replay.added - replay.kept, replay.added)] if replay.kept else []
        other.replays()[name].restore(replay.added, pieces)


def same(one: Any, other: Any) -> bool:
    """Return whether two nested states hold the same bits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


def script_validation(monkeypatch: pytest.MonkeyPatch, returns: Sequence[float]) -> None:
    """Let the validations of training runs measure these returns, one after the other."""
    measure, values = metarl.training.loop.adaptation_curve, iter(returns)

    def scripted(*given: Any) -> AdaptationCurve:
        curve = measure(*given)
        return dataclasses.replace(curve, returns=np.full_like(curve.returns, next(values)))

    monkeypatch.setattr("metarl.training.loop.adaptation_curve", scripted)
