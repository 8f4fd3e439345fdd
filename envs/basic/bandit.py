"""Bernoulli bandits (Duan et al. 2016, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from PIL.ImageDraw import ImageDraw
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.family import Transition, register_family
from metarl.families.pictures import BLACK, GOAL, SIDE, draw
from metarl.families.references import Reference
from metarl.families.solved import SolvedFamily
from metarl.families.tensor_family import State, uniform
from metarl.families.words import Words
from metarl.numerics.noise import draw_rows

_SOURCE = "any arm, 1 / 2; the best of k, k / (k + 1). Totals of 1000 tasks in Duan et al. (2016), table 1, by pull"


@register_family
@dataclass(frozen=True)
class Bandit(SolvedFamily):
    """K arms with reward 1 with probabilities drawn uniformly from [0, 1], and 0 otherwise.

    Every pull is an episode of one step, which terminates; n pulls in a task are n episodes. The observation is a
    constant 0.

    Attributes:
        arms: number of arms K.
        horizon: 1.
    """

    arms: int = 5
    horizon: int = 1

    name: ClassVar[str] = "bandit"
    env_id: ClassVar[str] = "metarl/Bandit-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"k5": {"arms": 5}, "k10": {"arms": 10}, "k50": {"arms": 50}}
    references: ClassVar[Mapping[str, Reference]] = {
        "k5": Reference(1, 1 / 2, 5 / 6, _SOURCE),
        "k10": Reference(1, 1 / 2, 10 / 11, _SOURCE),
        "k50": Reference(1, 1 / 2, 50 / 51, _SOURCE),
    }

    def __post_init__(self) -> None:
        if self.arms < 2:
            raise InputError(f"a bandit needs at least 2 arms, not {self.arms}")
        if self.horizon != 1:
            raise InputError(f"a bandit's episode is one pull: its horizon is 1, not {self.horizon}")

    @property
    def observation_space(self) -> spaces.Box:
        """A constant 0, ``[1]``."""
        return spaces.Box(0.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The arm to pull."""
        return spaces.Discrete(self.arms)

    @property
    def task_space(self) -> spaces.Dict:
        """``probabilities`` ``[K]``: reward probability of each arm."""
        return spaces.Dict({"probabilities": spaces.Box(0.0, 1.0, (self.arms,), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw the arms' probabilities uniformly."""
        return TensorDict({"probabilities": uniform(generator, (count, self.arms), 0.0, 1.0)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Return the only state."""
        return {"nothing": torch.zeros(len(tasks), 1, device=tasks["probabilities"].device)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Return reward 1 with the pulled arm's probability, else 0."""
        chances = tasks["probabilities"].gather(1, actions.view(-1, 1)).squeeze(1)
        draws = draw_rows(torch.rand, chances.shape, generator, device=chances.device)
        return state, Transition((draws < chances).float(), torch.ones_like(chances, dtype=torch.bool), {})

    def observation(self, state: State) -> Tensor:
        """Return zeros ``[B, 1]``."""
        return state["nothing"]

    def words(self) -> Words:
        """Return the bandit in words: nothing is observed."""
        rules = (
            f"There are {self.arms} arms. A pull of an arm gives 1 or 0, with a probability of its own that never "
            "changes. Pull the arm that gives 1 most often."
        )
        return Words(rules, tuple(map(str, range(self.arms))), lambda observation: "")

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return the arms ``[B]`` with the highest reward probability."""
        arms: Tensor = tasks["probabilities"].argmax(-1)
        return arms

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return these arms."""
        return plan

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw a bar for each arm with the height of its probability."""
        return draw(lambda pen: self._paint(pen, task["probabilities"].tolist()))

    def _paint(self, pen: ImageDraw, chances: list[float]) -> None:
        width, full, ground = SIDE / self.arms, SIDE - 40, SIDE - 20
        for arm, chance in enumerate(chances):
            middle = (arm + 0.5) * width
            pen.rectangle((middle - 0.35 * width, ground - chance * full, middle + 0.35 * width, ground), GOAL)
            pen.text((middle, ground + 4), str(arm), BLACK, anchor="mt")
        pen.line((0, ground, SIDE, ground), BLACK, 2)
