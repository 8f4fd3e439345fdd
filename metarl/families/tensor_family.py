"""Families with dynamics in torch: three functions of a state."""

from abc import abstractmethod

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.families.family import Dynamics, TaskFamily, Transition, describe
from metarl.families.pictures import text_picture
from metarl.families.spaces import Values, observed
from metarl.numerics.noise import draw_rows

State = dict[str, Tensor]


class TensorFamily(TaskFamily):
    """A family whose dynamics are three torch functions of a state: a dict of tensors ``[B, ...]``."""

    @abstractmethod
    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Return the initial states of episodes in B worlds."""

    @abstractmethod
    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Return the next states, and the rewards and ends of the step."""

    @abstractmethod
    def observation(self, state: State) -> Values:
        """Return the observations ``[B, ...]`` of a state; for a Dict or Tuple space, by part."""

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Render one world, given without the axis B, as uint8 ``[H, W, 3]``; as text unless overridden."""
        batched = {key: value[None] for key, value in state.items()}
        seen = observed(self.observation_space, self.observation(batched))
        return text_picture(describe(task, seen[0]))

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` worlds on any torch device."""
        return _TensorDynamics(self)


class _TensorDynamics(Dynamics):
    def __init__(self, family: TensorFamily) -> None:
        self._family = family
        self._space = family.observation_space  # a family creates it at every access
        self._state: State = {}

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        fresh = self._family.initial_state(tasks, generator)
        if self._state:
            fresh = {
                key: torch.where(mask.view(-1, *[1] * (value.ndim - 1)), value, self._state[key])
                for key, value in fresh.items()
            }
        self._become(fresh, mask.device)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        state, transition = self._family.transition(self._state, actions, tasks, generator)
        self._become(state, actions.device)
        return transition

    def _become(self, state: State, device: torch.device) -> None:
        """Replace the state; off the CPU in place, where a recorded graph reads and writes it."""
        if device.type == "cpu":
            self._state = state
        elif not self._state:
            self._state = {key: value.clone() for key, value in state.items()}
        else:
            changed = [(self._state[key], value) for key, value in state.items() if value is not self._state[key]]
            for own, value in changed:
                own.copy_(value)

    def observe(self) -> Tensor:
        seen = observed(self._space, self._family.observation(self._state))
        states = {value.untyped_storage().data_ptr() for value in self._state.values()}
        return seen.clone() if seen.untyped_storage().data_ptr() in states else seen

    def render(self, tasks: TensorDict, world: int) -> np.ndarray:
        state = {key: value[world].cpu() for key, value in self._state.items()}
        return self._family.picture(state, tasks[world].cpu())


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Draw float32 numbers uniformly from ``[low, high)``, on the generator's device."""
    return low + (high - low) * draw_rows(torch.rand, shape, generator, device=generator.device)
