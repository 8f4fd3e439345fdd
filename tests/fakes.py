"""A task family whose rewards and observations name their task, actors that follow a script, and made-up rollouts."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.families.family import Transition
from metarl.families.tensor_family import State, TensorFamily
from metarl.learning.learner import Actor, OpenState
from metarl.learning.policies import Policy
from metarl.numerics.distributions import DiagonalGaussian, Distribution
from metarl.rollouts.rollout import Rollout

# An action component that makes the world hand out a NaN: the first one in the reward, the second in the observation.
POISON = 7.0


@dataclass(frozen=True)
class EchoFamily(TensorFamily):
    """The reward is the task's identity; the observation is (identity, steps taken, a random number of the episode).

    Every world terminates after ``lifetime`` steps.
    """

    horizon: int = 4

    name: ClassVar[str] = "echo"
    env_id: ClassVar[str] = "test/Echo-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"only": {}}

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (3,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def task_space(self) -> spaces.Dict:
        return spaces.Dict(
            {"identity": spaces.Box(0, 1000, (), np.float32), "lifetime": spaces.Box(1, 1000, (), np.int64)}
        )

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        # One parameter after the other, so that the later one's draws depend on how many tasks are drawn together.
        identities, lifetimes = (torch.randint(1, 1000, (count,), generator=generator).tolist() for _ in range(2))
        return echo_tasks(identities, lifetimes)

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        identity = tasks["identity"]
        noise = torch.rand(identity.shape, generator=generator)
        return {"identity": identity, "steps": torch.zeros_like(identity), "noise": noise}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        steps = state["steps"] + 1
        rewards = torch.where(actions[:, 0] == POISON, torch.nan, tasks["identity"])
        noise = torch.where(actions[:, 1] == POISON, torch.nan, state["noise"])
        return {**state, "steps": steps, "noise": noise}, Transition(rewards, steps >= tasks["lifetime"], {})

    def observation(self, state: State) -> Tensor:
        return torch.stack([state["identity"], state["steps"], state["noise"]], -1)


def echo_tasks(identities: Sequence[float], lifetimes: Sequence[int] | None = None) -> TensorDict:
    """Make tasks ``[N]`` of the echo family; by default their episodes never terminate."""
    count = len(identities)
    return TensorDict(
        {
            "identity": torch.tensor(identities, dtype=torch.float32),
            "lifetime": torch.tensor(lifetimes if lifetimes is not None else [1000] * count),
        },
        [count],
    )


class DrawingActor(Actor):
    """Draws from a distribution that it is to define, or takes its mode."""

    @abstractmethod
    def action_distribution(self, working: Any, observations: Tensor) -> Distribution: ...

    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        distribution = self.action_distribution(working, observations)
        return distribution.mode() if deterministic else distribution.sample(generator), distribution


@dataclass
class ScriptedActor(Actor):
    """Takes the actions ``[N, E, T, A]`` of a script, whatever it sees; NaN observations give NaN actions.

    Keeps the observations of every step in ``seen``.
    """

    script: Tensor
    seen: list[Tensor] = field(default_factory=list)

    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, DiagonalGaussian]:
        actions = self.script[:, :, len(self.seen)] + 0 * observations.sum(-1, keepdim=True)
        self.seen.append(observations)
        return actions, DiagonalGaussian(actions, torch.zeros_like(actions))


@dataclass
class NoisyActor(DrawingActor):
    """Acts with unit Gaussian noise about 0.5, and calls ``before`` (if given) with the step's number first."""

    action_size: int = 2
    before: Any = None
    steps: int = 0

    def action_distribution(self, working: Any, observations: Tensor) -> DiagonalGaussian:
        if self.before is not None:
            self.before(self.steps)
        self.steps += 1
        mean = torch.full((*observations.shape[:2], self.action_size), 0.5)
        return DiagonalGaussian(mean, torch.zeros(1, 1, self.action_size))


@dataclass
class OpenParams(OpenState[TensorDict]):
    """The parameters that act."""

    params: TensorDict


@dataclass
class PolicyActor(DrawingActor):
    """Acts by a policy whose parameters are the state."""

    policy: Policy
    capturable: ClassVar[bool] = True

    def open(
        self, state: TensorDict, episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> OpenParams:
        return OpenParams(state, state)

    def action_distribution(self, working: OpenParams, observations: Tensor) -> Distribution:
        return self.policy.distribution(working.params, observations)


def made_up_rollout(tasks: int = 2, episodes: int = 3, steps: int = 6, seed: int = 0) -> Rollout:
    """Return random episodes of 2-d observations and actions, each of full length and truncated at its end."""
    stream = torch.Generator().manual_seed(seed)
    shape = (tasks, episodes, steps)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=stream)

    actions, distribution = normal(*shape, 2), DiagonalGaussian(normal(*shape, 2), normal(*shape, 2))
    truncated = torch.zeros(shape, dtype=torch.bool)
    truncated[..., -1] = True
    return Rollout(
        tasks=TensorDict({"goal": normal(tasks, 2)}, [tasks]),
        observations=normal(*shape, 2),
        actions=actions,
        rewards=normal(*shape),
        terminated=torch.zeros(shape, dtype=torch.bool),
        truncated=truncated,
        valid=torch.ones(shape, dtype=torch.bool),
        final_observations=normal(tasks, episodes, 2),
        log_probs=distribution.log_prob(actions),
        distribution=distribution,
    )
