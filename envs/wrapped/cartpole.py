"""CartPole with varying pole length and gravity: the example of a family from a Gymnasium environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.envs.wrapped.world import Environment, Task
from metarl.families.family import register_family


def _parameters() -> spaces.Dict:
    return spaces.Dict(
        {"length": spaces.Box(0.25, 1.0, (), np.float32), "gravity": spaces.Box(5.0, 15.0, (), np.float32)}
    )


@register_family
@dataclass(frozen=True)
class CartPoleParams(GymnasiumFamily):
    """CartPole with unknown pole length and gravity.

    The environment is Gymnasium's CartPole-v1: +1 for each step until the pole falls.

    Attributes:
        task_space: ``length``, half the pole's length in m, and ``gravity`` in m/s².
        horizon: steps of an episode.
    """

    env: str = "CartPole-v1"
    task_space: spaces.Dict = field(default_factory=_parameters)
    horizon: int = 200

    name: ClassVar[str] = "cartpole-params"
    env_id: ClassVar[str] = "metarl/CartPoleParams-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"length-gravity": {}}

    def apply(self, env: Environment, task: Task) -> None:
        """Set the parameters, and the product with the length that CartPole computes only once."""
        super().apply(env, task)
        cartpole: Any = env.unwrapped
        cartpole.polemass_length = cartpole.masspole * cartpole.length
