"""A family with any spaces, which is all that a learner sees of a family, and learners with little work on it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.families.family import TaskFamily, Transition
from metarl.families.solved import SolvedFamily
from metarl.families.spaces import unit_space
from metarl.families.splits import TaskSplit
from metarl.families.tensor_family import State
from metarl.learning.learner import LEARNERS, Learner
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from tests.runs import little_work

TASKS, EPISODES = 2, 3
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
    "dict": spaces.Dict({"near": PLANE, "carried": spaces.Discrete(3, start=1), "map": spaces.MultiBinary((2, 2))}),
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
DRAWS = 50


@dataclass(frozen=True)
class AnySpaces(SolvedFamily):
    """Observations are random elements of a space, and a world refuses an action that is not one of its space's.

    The reward is the mean of the action's numbers, times what the task is worth: the highest action is the best.
    """

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
        return spaces.Dict({"worth": spaces.Box(0.0, 1.0, (), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        return TensorDict({"worth": torch.rand(count, generator=generator)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        return {"draw": torch.randint(DRAWS, (len(tasks),), generator=generator)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        for action in actions:
            element = np.asarray(action.numpy(), self.acted.dtype)
            given = np.int64(element) if isinstance(self.acted, spaces.Discrete) else element
            assert self.acted.contains(given), f"{given} is not in {self.acted}"
        rewards = tasks["worth"] * actions.reshape(len(actions), -1).float().mean(-1)
        ended = torch.zeros(len(actions), dtype=torch.bool)
        return {"draw": (7 * state["draw"] + 3) % DRAWS}, Transition(rewards, ended, {})

    @cached_property
    def elements(self) -> Any:
        return elements(self.seen)

    def observation(self, state: State) -> Any:
        return rows(self.elements, state["draw"])

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        return torch.zeros(len(tasks))

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        best = unit_space(self.acted)
        if isinstance(best, spaces.Box):
            highest = np.where(np.isfinite(best.high), best.high, 1)
        else:
            highest = np.asarray(getattr(best, "n", 2) if best.shape == () else getattr(best, "nvec", 2)) - 1
        return torch.as_tensor(np.broadcast_to(highest, best.shape or ()).copy()).expand(len(plan), *(best.shape or ()))


def elements(space: spaces.Space[Any]) -> Any:
    """Return random elements of a space, by themselves or by part."""
    if isinstance(space, spaces.Dict):
        return {key: elements(part) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(elements(part) for part in space)
    space.seed(0)
    return torch.as_tensor(np.stack([space.sample() for _ in range(DRAWS)]))


def rows(found: Any, numbers: Tensor) -> Any:
    """Return the elements with these numbers."""
    if isinstance(found, dict):
        return {key: rows(part, numbers) for key, part in found.items()}
    return tuple(rows(part, numbers) for part in found) if isinstance(found, tuple) else found[numbers]


def make(name: str, family: TaskFamily, seed: int = 1) -> Learner:
    """Make a learner with little work, or raise ``InputError`` where it does not take the family."""
    learner = LEARNERS[name]
    config = little_work(name)
    return learner(learner.view(family, config), config, seed, torch.device("cpu"))


RECENT: deque[Sampler] = deque(maxlen=2)


def sampler_of(family: TaskFamily) -> Sampler:
    """Return a sampler, with the worlds that the last learners met if the family is theirs."""
    for sampler in RECENT:
        if sampler.family == family:
            return sampler
    RECENT.append(Sampler(family))
    return RECENT[-1]


def sample(learner: Learner, family: TaskFamily, iteration: int = 0) -> list[Rollout]:
    """Return the rollouts of one training iteration."""
    family = learner.view(family, learner.config_class())
    sampler, tasks = sampler_of(family), TaskSplit(family).train_tasks(TASKS, iteration)
    state, rollouts = learner.begin(TASKS), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, EPISODES, 10 * iteration + step))
    return rollouts


def trained(
    name: str, family: TaskFamily, iterations: int = 1, seed: int = 1
) -> tuple[Learner, list[dict[str, float]]]:
    """Return a learner after some iterations, and their metrics."""
    learner = make(name, family, seed)
    return learner, [learner.update(sample(learner, family, iteration)) for iteration in range(iterations)]
