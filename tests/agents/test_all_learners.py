"""What every learner can do, with every kind of spaces; registries find them, so that new ones are tested too."""

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
from metarl.solved import SolvedFamily
from metarl.splits import TaskSplit
from metarl.tensor_family import State
from tests.runs import copy_learner

TASKS, EPISODES, HORIZON = 2, 3, 5
# Settings of single learners that only cost time here.
LITTLE_WORK = {"updates_per_iteration": 2, "tasks_per_update": 2, "model_updates": 1}
CPU = torch.device("cpu")

# All that a learner sees of a family are its spaces: these five kinds of pairs. test_every_space.py has every space.
CELL, PLACE = spaces.Discrete(4), spaces.Box(0.0, 3.0, (1,), np.float32)
PIXELS = spaces.Box(0, 255, (8, 8, 1), np.uint8)
TURN, PUSH = spaces.Discrete(2), spaces.Box(-1.0, 1.0, (1,), np.float32)
KINDS: dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]] = {
    "box, box": (PLACE, PUSH),
    "box, discrete": (PLACE, TURN),
    "discrete, discrete": (CELL, TURN),
    "discrete, box": (CELL, PUSH),
    "image, discrete": (PIXELS, TURN),
}


@dataclass(frozen=True)
class Corridor(SolvedFamily):
    """Four cells in a row; the reward is the nearness of the goal's cell."""

    seen: spaces.Space[Any]
    acted: spaces.Space[Any]
    horizon: int = HORIZON

    name: ClassVar[str] = "corridor"
    env_id: ClassVar[str] = "test/Corridor-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"only": {}}

    @property
    def observation_space(self) -> spaces.Space[Any]:
        return self.seen

    @property
    def action_space(self) -> spaces.Space[Any]:
        return self.acted

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
        right = actions == 1 if self.acted == TURN else actions[:, 0] > 0
        cell = (state["cell"] + torch.where(right, 1, -1)).clamp(0, 3)
        rewards = -(cell - tasks["goal"]).abs().float()
        return {"cell": cell}, Transition(rewards, torch.zeros_like(right), {})

    def observation(self, state: State) -> Tensor:
        cell = state["cell"]
        if self.seen == CELL:
            return cell
        if self.seen == PLACE:
            return cell.unsqueeze(-1).float()
        return (80 * cell).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 8, 8, 1).contiguous()

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        return tasks["goal"]

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        right = state["cell"] < plan
        return right.long() if self.acted == TURN else (2.0 * right.float() - 1.0).unsqueeze(-1)


def smallest(name: str) -> TaskFamily:
    """Return a family with a short horizon, where it takes one."""
    try:
        return make_family(name, horizon=HORIZON)
    except InputError:
        return make_family(name)


every_kind = pytest.mark.parametrize("kind", KINDS)
every_learner = pytest.mark.parametrize("name", LEARNERS)
every_one_that_learns = pytest.mark.parametrize(
    "name", [name for name in LEARNERS if name not in ("random", "optimal")]
)


def make(name: str, family: TaskFamily, seed: int = 1) -> Learner:
    """Make a learner with little work, or raise ``InputError`` where it does not take the family."""
    learner = LEARNERS[name]
    settings = {field.name for field in dataclasses.fields(learner.config_class)}
    config = learner.config_class(**{key: value for key, value in LITTLE_WORK.items() if key in settings})
    return learner(learner.view(family, config), config, seed, CPU)


def corridor(name: str, kind: str) -> Corridor:
    """Return a corridor with spaces of a kind that the learner takes, or skip the test."""
    family = Corridor(*KINDS[kind])
    try:
        make(name, family)
    except InputError as refusal:
        pytest.skip(str(refusal))
    return family


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
@every_kind
def test_training_changes_what_the_learner_knows(name: str, kind: str) -> None:
    # Several iterations: on so little data a learner may well refuse a step.
    family = corridor(name, kind)
    learner = make(name, family)
    before = numbers(learner.state_dict())
    for iteration in range(12):
        learner.update(sample(learner, family, iteration))
        if not torch.equal(numbers(learner.state_dict()), before):
            return
    pytest.fail("twelve iterations changed nothing")


@every_learner
@every_kind
def test_the_same_seed_gives_the_same_bits_and_finite_ones(name: str, kind: str) -> None:
    family = corridor(name, kind)
    (one, first), (other, second) = (trained(name, family, iterations=2) for _ in range(2))
    assert first == second
    assert torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))
    assert numbers(one.state_dict()).isfinite().all()
    assert all(metrics for metrics in first)
    assert all(isinstance(value, float) and np.isfinite(value) for metrics in first for value in metrics.values())


@every_learner
@every_kind
def test_acting_gives_actions_of_the_families_shape(name: str, kind: str) -> None:
    family = corridor(name, kind)
    learner = make(name, family)
    space = learner.view(family, learner.config_class()).observation_space
    zero = torch.as_tensor(np.zeros(space.shape or (), space.dtype))
    observations = zero.expand(TASKS, EPISODES, *zero.shape)
    actions, _ = act(learner, learner.begin(TASKS), observations, torch.Generator())
    assert actions.shape == (TASKS, EPISODES, *(family.action_space.shape or ()))


@every_learner
@every_kind
def test_its_state_goes_through_a_safe_file(name: str, kind: str, tmp_path: Path) -> None:
    # weights_only: nothing but tensors, numbers, strings and containers may be in it.
    family = corridor(name, kind)
    learner, other = trained(name, family)[0], make(name, family, seed=2)
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_learner_takes_an_iteration_on_every_family(name: str) -> None:
    family, taken = smallest(name), []
    for learner in LEARNERS:
        try:
            (metrics,) = trained(learner, family)[1]
        except InputError:  # what refusals say is tested where the spaces are: test_every_space.py
            continue
        taken.append(learner)
        assert all(np.isfinite(value) for value in metrics.values()), learner
    assert {"maml-trpo", "rl2", "random", "ppo"} <= set(taken)


@every_one_that_learns
def test_another_seed_starts_elsewhere(name: str) -> None:
    family = plane(name)
    one, other = make(name, family, seed=1), make(name, family, seed=2)
    assert not torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))


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
def test_a_loaded_learner_learns_on_to_the_same_numbers(name: str) -> None:
    family = plane(name)
    learner, other = trained(name, family)[0], make(name, family, seed=2)
    copy_learner(learner, other)
    for each in (learner, other):
        each.update(sample(each, family, iteration=7))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))
