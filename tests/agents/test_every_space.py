"""Every learner meets every kind of space: it learns there, or refuses in one line whose advice works."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

import metarl  # noqa: F401 (registers learners)
from metarl.errors import InputError
from metarl.family import Transition
from metarl.learner import LEARNERS, Learner
from metarl.sampler import Sampler
from metarl.solved import SolvedFamily
from metarl.spaces import SINGLE
from metarl.tensor_family import State

TASKS, EPISODES = 2, 2
CPU = torch.device("cpu")
# Settings of single learners that only cost time here.
LITTLE_WORK = {"updates_per_iteration": 1, "tasks_per_update": 2, "model_updates": 1, "hidden_sizes": (8,)}
PLANE, MOVE = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(3)

# By what is special about them.
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "float32": PLANE,
    "float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "uint8": spaces.Box(0, 255, (4,), np.uint8),
    "integers": spaces.Box(-3, 3, (2, 2), np.int64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "scalar": spaces.Box(-1.0, 1.0, (), np.float32),
    "discrete": spaces.Discrete(3),
    "discrete from 5": spaces.Discrete(3, start=5),
    "multi-discrete": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "multi-binary": spaces.MultiBinary(3),
    "image": spaces.Box(0, 255, (9, 7, 3), np.uint8),
    "channels first": spaces.Box(0, 255, (1, 8, 8), np.uint8),
    "dict": spaces.Dict({"near": PLANE, "held": spaces.Discrete(3, start=1), "map": spaces.MultiBinary((2, 2))}),
    "tuple": spaces.Tuple([spaces.Box(-1.0, 1.0, (), np.float64), spaces.Dict({"inner": spaces.Discrete(2)})]),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "float32": PLANE,
    "float64": spaces.Box(-3.0, 5.0, (2,), np.float64),
    "integers": spaces.Box(0, 2, (2,), np.int64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half bounded": spaces.Box(0.0, np.inf, (2,), np.float32),
    "two axes": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    "scalar": spaces.Box(-2.0, 2.0, (), np.float32),
    "discrete": MOVE,
    "discrete from 5": spaces.Discrete(3, start=5),
    "multi-discrete": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "multi-discrete, two axes": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary, two axes": spaces.MultiBinary((2, 2)),
}


@dataclass(frozen=True)
class AnySpaces(SolvedFamily):
    """Observations are random elements of a space, and a world refuses an action that is not one of its space's."""

    seen: spaces.Space[Any]
    acted: spaces.Space[Any]
    horizon: int = 4

    name: ClassVar[str] = "any-spaces"
    env_id: ClassVar[str] = "test/AnySpaces-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"only": {}}

    @property
    def observation_space(self) -> spaces.Space[Any]:
        return self.seen

    @property
    def action_space(self) -> spaces.Space[Any]:
        return self.acted

    @property
    def task_space(self) -> spaces.Dict:
        return spaces.Dict({"goal": spaces.Box(0.0, 1.0, (), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        return TensorDict({"goal": torch.rand(count, generator=generator)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        return {"draw": torch.randint(1000, (len(tasks),), generator=generator)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        for action in actions:
            element = np.asarray(action.numpy(), self.acted.dtype)
            given = np.int64(element) if isinstance(self.acted, spaces.Discrete) else element
            assert self.acted.contains(given), f"{given} is not in {self.acted}"
        rewards = tasks["goal"] * actions.reshape(len(actions), -1).float().mean(-1)
        ended = torch.zeros(len(actions), dtype=torch.bool)
        return {"draw": (7 * state["draw"] + 3) % 1000}, Transition(rewards, ended, {})

    def observation(self, state: State) -> Any:
        return elements(self.seen, state["draw"])

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        return torch.zeros(len(tasks))

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        raise NotImplementedError


def elements(space: spaces.Space[Any], draws: Tensor) -> Any:
    """Return an element of a space for each number, by itself or by part."""
    if isinstance(space, spaces.Dict):
        return {key: elements(part, draws) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(elements(part, draws) for part in space)
    found = []
    for draw in draws.tolist():
        space.seed(draw)
        found.append(space.sample())
    return torch.as_tensor(np.stack(found))


def learner_in(name: str, family: AnySpaces) -> Learner:
    kind = LEARNERS[name]
    settings = {field.name for field in dataclasses.fields(kind.config_class)}
    config = kind.config_class(**{key: value for key, value in LITTLE_WORK.items() if key in settings})
    return kind(kind.view(family, config), config, 1, CPU)


def learns(name: str, family: AnySpaces) -> dict[str, float]:
    """Take one iteration of training; return its metrics."""
    learner = learner_in(name, family)
    sampler = Sampler(learner.view(family, learner.config_class()))
    tasks = family.sample_tasks(TASKS, torch.Generator().manual_seed(0))
    state, rollouts = learner.begin(TASKS), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, EPISODES, step))
    learner.adapt(state, rollouts[-1])
    return learner.update(rollouts)


# What is known of the best actions is a family's own affair; ``optimal`` sees nothing else.
BY_NAME = [name for name in LEARNERS if name != "optimal"]


def meets(name: str, family: AnySpaces) -> None:
    """Learn, or be refused in one line that names learners of which each learns."""
    try:
        metrics = learns(name, family)
    except InputError as refusal:
        said = str(refusal)
        assert "\n" not in said
        advised = re.search(r"; use ([^,]*)", said)
        assert advised, said
        names = advised.group(1).split(" or ")
        assert set(names) <= set(LEARNERS), said
        for other in names:
            learns(other, family)
    else:
        assert metrics
        assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("name", BY_NAME)
def test_every_learner_meets_every_observation(name: str) -> None:
    for space in OBSERVATIONS.values():
        meets(name, AnySpaces(space, MOVE if name == "dqn" else PLANE))


@pytest.mark.parametrize("name", BY_NAME)
def test_every_learner_meets_every_action(name: str) -> None:
    for space in ACTIONS.values():
        meets(name, AnySpaces(PLANE, space))


@pytest.mark.parametrize("name", ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"])
def test_each_tasks_own_policy_does_not_read_large_images(name: str) -> None:
    kind, family = LEARNERS[name], AnySpaces(spaces.Box(0, 255, (84, 84, 3), np.uint8), PLANE)
    with pytest.raises(InputError, match=r"first layer has 1,354,752 weights on Box.*; use rl2, whose encoder"):
        kind(family, kind.config_class(), 1, CPU)
    assert learns("rl2", family)


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo", "dqn", "pearl", "random"])
def test_what_no_policy_acts_in_is_refused_with_the_spaces_that_can_be_used(name: str) -> None:
    with pytest.raises(InputError, match="use a Box, Discrete, MultiDiscrete or MultiBinary space"):
        learns(name, AnySpaces(PLANE, spaces.Text(3)))


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo", "pearl", "random"])
def test_what_no_learner_observes_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no learner observes Text.*; use a Box"):
        learns(name, AnySpaces(spaces.Dict({"told": spaces.Text(3)}), PLANE))


def test_refusals_are_the_exception() -> None:
    """Policies by gradient, in-context learners, PPO and random act in every space that is one tensor and bounded."""
    for name in ("maml-trpo", "rl2", "ppo", "a2c", "random"):
        for space in ACTIONS.values():
            bounded = not isinstance(space, spaces.Box) or space.is_bounded()
            assert isinstance(space, SINGLE)
            if bounded:
                learner_in(name, AnySpaces(PLANE, space))
