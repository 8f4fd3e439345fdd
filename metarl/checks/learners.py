"""``check_learner``: whether a learner implements its interface correctly."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from metarl.checks.problems import attempt, first_difference, is_frozen_dataclass, require
from metarl.errors import InputError
from metarl.evaluation.evaluate import adaptation_curve, load_run
from metarl.families.family import make_family
from metarl.learning.learner import LEARNERS, Learner
from metarl.registry import own_name
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.metrics_file import MetricsRow
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train

# A family with continuous actions, and one with discrete ones.
FAMILIES = ("navigation-2d", "gridnavi")
TASKS, EPISODES, HORIZON = 2, 2, 6
CLOCKS = ("time_", "env_steps_per_second")


def check_learner(learner: str | type[Learner], family: str | None = None, settings: Any = None) -> None:
    """Check that a learner implements ``Learner`` correctly, by training it briefly on a small family.

    This covers its class and settings; that ``adapt`` changes neither the learner nor its inputs; that evaluation does
    not change the learner; that metrics are finite numbers with the same names in every iteration; that the same seed
    gives the same numbers; that a checkpoint is complete: a resumed run ends like an uninterrupted one; and that
    unsupported families are refused by a one-line ``InputError``.

    Args:
        learner: the name of a registered one, also as ``module:name``, or its class.
        family: name of the family to train on; by default 2D navigation (continuous actions) and GridNavi (discrete
            actions), one of which it may refuse.
        settings: an instance of its ``config_class``; None for the defaults.

    Raises:
        InputError: for the first problem, in one line: what is wrong, and what to do.
    """
    name, offers = _registered(learner), FAMILIES if family is None else (family,)
    refusals = []
    for offered in offers:
        config = _accepted(name, offered, settings)
        if isinstance(config, InputError):
            refusals.append(f"{offered}: {config}")
            continue
        _check_adaptation(config)
        _check_updates(config)
        _check_evaluation(config)
        _check_resumption(config)
    problem = f"refuses every family that it was offered ({'; '.join(refusals)})"
    advice = "name one that it takes: check_learner(..., family=...)"
    require(len(refusals) < len(offers), own_name(name), problem, advice)


def _registered(learner: str | type[Learner]) -> str:
    """Return the name under which a learner is registered, after checking its class."""
    found = LEARNERS.find(learner) if isinstance(learner, str) else learner
    kind = found.__name__
    require(issubclass(found, Learner), kind, "is not a Learner", "derive it from metarl.learning.learner.Learner")
    name = learner if isinstance(learner, str) else str(getattr(found, "name", ""))
    registered = LEARNERS.get(own_name(name)) is found
    require(registered, kind, "is not registered", "decorate it with @register_learner and give it a name of its own")
    config: Any = getattr(found, "config_class", None)
    require(
        is_frozen_dataclass(config),
        kind,
        "config_class is not a frozen dataclass",
        "decorate it with @dataclass(frozen=True)",
    )
    return name


def _accepted(name: str, family: str, settings: Any) -> TrainConfig | InputError:
    """Return the configuration of a small run on a family, or the error with which the learner refuses the family."""
    own = own_name(name)
    try:
        config = TrainConfig(name, family, _small_run(family), settings)
        made = config.make_learner()
    except InputError as refusal:
        advice = "state in one line which spaces it needs"
        require("\n" not in str(refusal), own, f"refuses {family} in several lines", advice)
        return refusal
    except Exception as error:
        raise InputError(
            f"{own}: constructing it for {family} failed ({type(error).__name__}: {error}); give every setting a "
            "default, and raise metarl.InputError in __init__ for a family that it does not support"
        ) from error
    steps = getattr(made, "inner_steps", None)
    whole = isinstance(steps, int) and steps >= 0
    require(whole, own, f"has the inner_steps {steps!r}", "set it to an integer of at least 0")
    return config


def _small_run(family: str) -> RunConfig:
    """Return settings of a run of two small iterations, with short episodes if the family allows it."""
    small = RunConfig(
        iterations=2, tasks_per_batch=TASKS, episodes_per_task=EPISODES, checkpoint_every=1, track="disabled"
    )
    try:
        make_family(family, horizon=HORIZON)
    except InputError:  # its horizon is fixed
        return small
    return dataclasses.replace(small, horizon=HORIZON)


def _check_adaptation(config: TrainConfig) -> None:
    name, learner, sampler = config.learner_name, config.make_learner(), Sampler(config.make_family())
    tasks = config.split().train_tasks(TASKS, "check")
    with attempt(name, "begin, and acting in its state"):
        state = learner.begin(TASKS)
        rollout = sampler.collect(learner, state, tasks, EPISODES, 1)
        greedy = sampler.collect(learner, state, tasks, EPISODES, 1, deterministic=True)
    same = first_difference(greedy.actions[greedy.valid], greedy.known_distribution().mode()[greedy.valid])
    require(same is None, name, "deterministic actions are not the distribution's mode", "return distribution.mode()")
    knowledge, given = _copied(learner.state_dict()), _tensors(rollout.map(torch.clone))
    with attempt(name, "adapt"):
        adapted = learner.adapt(state, rollout)
    where = first_difference(knowledge, learner.state_dict())
    require(where is None, name, f"adapt changes the learner: state_dict(){where}", "return a new state instead")
    where = first_difference(given, _tensors(rollout))
    require(where is None, name, f"adapt changes the rollout it is given: {where}", "copy what is to be written to")
    again = sampler.collect(learner, state, tasks, EPISODES, 1)
    where = first_difference(given, _tensors(again))
    advice = "return a new state, and draw actions from the generator that is passed to act"
    require(where is None, name, f"after adapt, acting in the state before it is different: {where}", advice)
    with attempt(name, "acting in the adapted state"):
        sampler.collect(learner, adapted, tasks, EPISODES, 2)


def _check_updates(config: TrainConfig) -> None:
    name = config.learner_name
    one, other = config.make_learner(), config.make_learner()
    columns: list[set[str]] = []
    for iteration in range(2):
        metrics, twins = (_iterate(each, config, iteration) for each in (one, other))
        _require_metrics(one, metrics)
        columns.append(set(metrics))
        where = first_difference(metrics, twins) or first_difference(one.state_dict(), other.state_dict())
        advice = 'draw everything from metarl.seeding.generator(seed, "what it is for")'
        require(where is None, name, f"the same seed gives other numbers: {where}", advice)
    new = sorted(columns[0] ^ columns[1])
    require(not new, name, f"update returns {new} in some iterations only", "return the same metrics each time")


def _iterate(learner: Learner, config: TrainConfig, iteration: int) -> dict[str, float]:
    """Return the metrics of one training iteration."""
    sampler, tasks = Sampler(config.make_family()), config.split().train_tasks(TASKS, "check", iteration)
    state: Any = learner.begin(TASKS)
    rollouts: list[Rollout] = []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, EPISODES, 100 * iteration + step))
    with attempt(learner.name, "update"):
        return learner.update(rollouts)


def _require_metrics(learner: Learner, metrics: Any) -> None:
    there = isinstance(metrics, Mapping) and len(metrics) > 0
    require(there, learner.name, "update returns no metrics", "return a dict of numbers by name")
    for key, value in metrics.items():
        finite = isinstance(value, int | float) and math.isfinite(value)
        advice = "return a finite Python float, or raise metarl.RunError where the update is not finite"
        require(finite, learner.name, f"the metric {key} is {value!r}", advice)
    unknown = sorted(set(metrics) - set(learner.metrics))
    advice = "describe them in the class variable metrics"
    require(not unknown, learner.name, f"update returns {unknown}, which metrics does not name", advice)


def _check_evaluation(config: TrainConfig) -> None:
    name, learner = config.learner_name, config.make_learner()
    before = _copied(learner.state_dict())
    tasks = config.split().held_out_tasks("test", TASKS)
    with attempt(name, "its evaluation"):
        adaptation_curve(learner, Sampler(config.make_family()), tasks, 1, EPISODES)
    where = first_difference(before, learner.state_dict())
    advice = "write to the learner in update alone"
    require(where is None, name, f"evaluation changes the learner: state_dict(){where}", advice)


def _check_resumption(config: TrainConfig) -> None:
    """Train with and without an interruption after the first iteration."""
    name = config.learner_name
    with TemporaryDirectory() as folder:
        whole, parts = (
            dataclasses.replace(config, run=dataclasses.replace(config.run, out=str(Path(folder) / place)))
            for place in ("whole", "parts")
        )
        first = dataclasses.replace(parts, run=dataclasses.replace(parts.run, iterations=1))
        with attempt(name, "training, and reading the run back"):
            expected, resumed = train(whole), train(first)
            resume(resumed.path, iterations=2)
            one, other = (load_run(each.path)[1].state_dict() for each in (expected, resumed))
        where = first_difference(_last_row(expected), _last_row(resumed)) or first_difference(one, other)
    advice = "put everything that training changes into state_dict, and take all of it back in load_state_dict"
    require(where is None, name, f"a resumed run ends elsewhere than an uninterrupted one: {where}", advice)


def _last_row(run: RunDirectory) -> MetricsRow:
    """Return the metrics of a run's last iteration, without timings."""
    row = run.read_metrics()[-1]
    return {key: value for key, value in row.items() if not key.startswith(CLOCKS)}


def _tensors(rollout: Rollout) -> dict[str, Any]:
    """Return the tensors of a rollout by name."""
    fields: Sequence[str] = [field.name for field in dataclasses.fields(rollout)]
    values = {name: getattr(rollout, name) for name in fields if name not in ("tasks", "distribution")}
    distribution = rollout.known_distribution()
    return {**values, "tasks": rollout.tasks.to_dict(), "distribution": list(distribution.tensors())}


def _copied(content: Any) -> Any:
    """Return a deep copy of a nested state."""
    copies: dict[type, Callable[[Any], Any]] = {
        dict: lambda value: {key: _copied(each) for key, each in value.items()},
        list: lambda value: [_copied(each) for each in value],
        tuple: lambda value: tuple(_copied(each) for each in value),
        torch.Tensor: torch.clone,
    }
    return copies.get(type(content), lambda value: value)(content)
