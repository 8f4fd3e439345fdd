"""Point robots that look for a goal in the plane (Finn et al. 2017, section 5.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.family import State, TensorFamily, Transition, register_family, uniform

GOAL_RANGE = 0.5
MAX_MOVE = 0.1
ARRIVED = 0.01


@register_family
@dataclass(frozen=True)
class Navigation2D(TensorFamily):
    """A point that starts at the origin and moves at most 0.1 per axis and step towards a goal it does not see.

    The reward is minus the Euclidean distance to the goal after the move. The episode terminates when both axes are
    within 0.01 of the goal.

    Attributes:
        horizon: steps of an episode.
    """

    horizon: int = 100

    name: ClassVar[str] = "navigation-2d"
    env_id: ClassVar[str] = "metarl/Navigation2D-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"maml": {"horizon": 100}}

    @property
    def observation_space(self) -> spaces.Box:
        """The position ``[2]``."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The move ``[2]``."""
        return spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)

    @property
    def task_space(self) -> spaces.Dict:
        """``goal`` ``[2]``."""
        return spaces.Dict({"goal": spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the square."""
        return TensorDict({"goal": uniform(generator, (count, 2), -GOAL_RANGE, GOAL_RANGE)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start at the origin."""
        return {"position": torch.zeros_like(tasks["goal"])}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move, and reward the nearness of the goal."""
        position = state["position"] + actions.clamp(-MAX_MOVE, MAX_MOVE)
        offset = position - tasks["goal"]
        terminated = (offset.abs() < ARRIVED).all(-1)
        return {"position": position}, Transition(-torch.linalg.vector_norm(offset, dim=-1), terminated, {})

    def observation(self, state: State) -> Tensor:
        """Return positions ``[B, 2]``."""
        return state["position"]
