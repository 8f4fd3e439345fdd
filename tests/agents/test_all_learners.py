"""What every learner can do, on every family: found through the registries, so that new ones are tested too."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

import metarl  # noqa: F401 (registers families and learners)
from metarl.distributions import Distribution
from metarl.errors import InputError
from metarl.family import FAMILIES, TaskFamily, Transition, make_family
from metarl.learner import LEARNERS, Learner
from metarl.rollout import Rollout
from metarl.sampler import Sampler
from metarl.splits import TaskSplit
from metarl.tensor_family import State, TensorFamily
from tests.runs import copy_learner

TASKS, EPISODES, HORIZON = 2, 3, 5
# Settings of single learners that only cost time here.
LITTLE_WORK = {"updates_per_iteration": 2, "tasks_per_update": 2, "model_updates": 1}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Corridor(TensorFamily):
    """Four cells in a row, seen as a Discrete space; the reward is the nearness of the goal's cell."""

    moves: str = "discrete"
    horizon: int = HORIZON

    name: ClassVar[str] = "corridor"
    env_id: ClassVar[str] = "test/Corridor-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"only": {}}

    @property
    def observation_space(self) -> spaces.Discrete:
        return spaces.Discrete(4)

    @property
    def action_space(self) -> spaces.Space[Any]:
        return spaces.Discrete(2) if self.moves == "discrete" else spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def task_space(self) -> spaces.Dict:
        return spaces.Dict({"goal": spaces.Discrete(4)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        return TensorDict({"goal": torch.randint(4, (count,), generator=generator)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        return {"cell": torch.zeros_like(tasks["goal"])}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        right = actions == 1 if self.moves == "discrete" else actions[:, 0] > 0
        cell = (state["cell"] + torch.where(right, 1, -1)).clamp(0, 3)
        rewards = -(cell - tasks["goal"]).abs().float()
        return {"cell": cell}, Transition(rewards, torch.zeros_like(right), {})

    def observation(self, state: State) -> Tensor:
        return state["cell"]


def smallest(name: str) -> TaskFamily:
    """Return a family with a short horizon, where it takes one."""
    try:
        return make_family(name, horizon=HORIZON)
    except InputError:
        return make_family(name)


ON_EVERY_FAMILY: list[Any] = [
    *(pytest.param(smallest(name), id=name) for name in FAMILIES),
    pytest.param(Corridor("discrete"), id="discrete observations and actions"),
    pytest.param(Corridor("box"), id="discrete observations, box actions"),
]
every_family = pytest.mark.parametrize("family", ON_EVERY_FAMILY)
every_learner = pytest.mark.parametrize("name", LEARNERS)
every_one_that_learns = pytest.mark.parametrize(
    "name", [name for name in LEARNERS if name not in ("random", "optimal")]
)


def make(name: str, family: TaskFamily, seed: int = 1) -> Learner:
    learner = LEARNERS[name]
    settings = {field.name for field in dataclasses.fields(learner.config_class)}
    config = learner.config_class(**{key: value for key, value in LITTLE_WORK.items() if key in settings})
    try:
        return learner(learner.view(family, config), config, seed, CPU)
    except InputError as refusal:
        if " acts in " not in str(refusal):
            raise
        pytest.skip(str(refusal))


def plane(name: str) -> TaskFamily:
    """Return a family of places in a plane whose actions the learner takes."""
    return smallest("gridnavi" if name == "dqn" else "navigation-2d")


def sample(learner: Learner, family: TaskFamily, iteration: int) -> list[Rollout]:
    """Return the rollouts of one training iteration."""
    family = learner.view(family, learner.config_class())
    sampler, tasks = Sampler(family), TaskSplit(family).train_tasks(TASKS, iteration)
    state, rollouts = learner.begin(TASKS), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, EPISODES, 10 * iteration + step))
    return rollouts


def act(
    learner: Learner, state: Any, observations: Tensor, stream: torch.Generator, deterministic: bool = False
) -> tuple[Tensor, Distribution]:
    """Act once, at the start of an episode."""
    working = learner.open(state, observations.shape[1], stream, deterministic)
    return learner.act(working, observations, stream, deterministic)


def numbers(content: Any) -> Tensor:
    """Return all tensors and numbers of a nested state in one vector."""
    if isinstance(content, Mapping):
        return torch.cat([torch.empty(0, dtype=torch.float64), *(numbers(content[key]) for key in sorted(content))])
    if isinstance(content, list | tuple):
        return torch.cat([numbers(value) for value in content])
    return torch.as_tensor(content, dtype=torch.float64).reshape(-1)


def trained(
    name: str, family: TaskFamily, iterations: int = 1, seed: int = 1
) -> tuple[Learner, list[dict[str, float]]]:
    learner = make(name, family, seed)
    return learner, [learner.update(sample(learner, family, iteration)) for iteration in range(iterations)]


@every_one_that_learns
@every_family
def test_training_changes_what_the_learner_knows(name: str, family: TaskFamily) -> None:
    # Several iterations: on so little data a learner may well refuse a step.
    learner = make(name, family)
    before, rewarded = numbers(learner.state_dict()), False
    for iteration in range(12):
        rollouts = sample(learner, family, iteration)
        rewarded |= any(bool(rollout.rewards.any()) for rollout in rollouts)
        learner.update(rollouts)
        if not torch.equal(numbers(learner.state_dict()), before):
            return
    if not rewarded:
        pytest.skip("no episode of five steps met a reward")
    pytest.fail("twelve iterations changed nothing")


@every_learner
@every_family
def test_what_it_knows_stays_finite(name: str, family: TaskFamily) -> None:
    assert numbers(trained(name, family, iterations=2)[0].state_dict()).isfinite().all()


@every_learner
@every_family
def test_its_metrics_are_finite_floats(name: str, family: TaskFamily) -> None:
    (metrics,) = trained(name, family)[1]
    assert metrics
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())


@every_learner
@every_family
def test_the_same_seed_gives_the_same_bits(name: str, family: TaskFamily) -> None:
    (one, first), (other, second) = (trained(name, family, iterations=2) for _ in range(2))
    assert first == second
    assert torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))


@every_one_that_learns
def test_another_seed_starts_elsewhere(name: str) -> None:
    family = plane(name)
    one, other = make(name, family, seed=1), make(name, family, seed=2)
    assert not torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))


@every_learner
@every_family
def test_acting_gives_actions_of_the_families_shape(name: str, family: TaskFamily) -> None:
    learner = make(name, family)
    space = learner.view(family, learner.config_class()).observation_space
    observations = torch.zeros(TASKS, EPISODES, *(space.shape or ()), dtype=torch.int64 if space.shape == () else None)
    actions, _ = act(learner, learner.begin(TASKS), observations, torch.Generator())
    assert actions.shape == (TASKS, EPISODES, *(family.action_space.shape or ()))


@every_learner
def test_deterministic_actions_do_not_draw(name: str) -> None:
    family = plane(name)
    learner, observations = make(name, family), torch.zeros(TASKS, EPISODES, 2)
    one, other = (
        act(learner, learner.begin(TASKS), observations, torch.Generator().manual_seed(seed), deterministic=True)[0]
        for seed in (1, 2)
    )
    assert torch.equal(one, other)


@every_one_that_learns
def test_adaptation_changes_how_it_acts(name: str) -> None:
    family = plane(name)
    learner = make(name, family)
    start, observations = learner.begin(TASKS), torch.zeros(TASKS, EPISODES, 2)
    adapted = learner.adapt(start, sample(learner, family, 0)[0])
    one, other = (act(learner, state, observations, torch.Generator().manual_seed(1))[0] for state in (start, adapted))
    assert not torch.equal(one, other)


@every_learner
def test_adaptation_does_not_change_the_learner(name: str) -> None:
    family = plane(name)
    learner = make(name, family)
    before = numbers(learner.state_dict()).clone()
    learner.adapt(learner.begin(TASKS), sample(learner, family, 0)[0])
    assert torch.equal(numbers(learner.state_dict()), before)


@every_learner
@every_family
def test_its_state_goes_through_a_safe_file(name: str, family: TaskFamily, tmp_path: Path) -> None:
    # weights_only: nothing but tensors, numbers, strings and containers may be in it.
    learner, other = trained(name, family)[0], make(name, family, seed=2)
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))


@every_learner
def test_a_loaded_learner_learns_on_to_the_same_numbers(name: str) -> None:
    family = plane(name)
    learner, other = trained(name, family)[0], make(name, family, seed=2)
    copy_learner(learner, other)
    for each in (learner, other):
        each.update(sample(each, family, iteration=7))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))
