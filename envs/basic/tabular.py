"""Random Markov decision processes with few states (Duan et al. 2016, RL², section 3.2)."""

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
from metarl.families.pictures import BLACK, DANGER, GOAL, SIDE, WHITE, Colour, draw
from metarl.families.references import Reference
from metarl.families.solved import SolvedFamily, planned_actions
from metarl.families.tensor_family import State
from metarl.families.words import Words
from metarl.numerics.noise import draw_rows

# Normalised rows of float32 probabilities sum to 1 within a few rounding errors of 6e-8.
SUM_TOLERANCE = 1e-5
LARGEST = float(np.finfo(np.float32).max)


@register_family
@dataclass(frozen=True)
class TabularMDP(SolvedFamily):
    """A Markov decision process with random transitions and rewards (Duan et al. 2016, section 3.2).

    Each state-action pair has its own transition probabilities, drawn from a flat Dirichlet distribution, and rewards
    from N(m, 1), with its own mean m drawn from N(1, 1). Every episode starts in state 0 and never terminates.

    Attributes:
        states: number of states S.
        actions: number of actions A.
        horizon: steps of an episode.
    """

    states: int = 10
    actions: int = 5
    horizon: int = 10

    name: ClassVar[str] = "tabular-mdp"
    env_id: ClassVar[str] = "metarl/TabularMDP-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"rl2": {"states": 10, "actions": 5, "horizon": 10}}
    references: ClassVar[Mapping[str, Reference]] = {
        "rl2": Reference(
            10, 10.0, 21.8, "any actions, 10 rewards of mean 1; best policy, Duan et al. (2016), table 2, by episode"
        )
    }

    def __post_init__(self) -> None:
        if self.states < 1 or self.actions < 2:
            raise InputError(f"an MDP needs at least 1 state and 2 actions, not {self.states} and {self.actions}")

    @property
    def observation_space(self) -> spaces.Box:
        """The state, one-hot ``[S]``."""
        return spaces.Box(0.0, 1.0, (self.states,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """One of A actions."""
        return spaces.Discrete(self.actions)

    @property
    def task_space(self) -> spaces.Dict:
        """``transitions`` ``[S, A, S]``: probabilities of next states; ``means`` ``[S, A]``: mean rewards."""
        shape = (self.states, self.actions)
        transitions = spaces.Box(0.0, 1.0, (*shape, self.states), np.float32)
        return spaces.Dict({"means": spaces.Box(-LARGEST, LARGEST, shape, np.float32), "transitions": transitions})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw probabilities from a flat Dirichlet distribution, and mean rewards from N(1, 1)."""
        shape = (count, self.states, self.actions)
        # Normalised exponential numbers are Dirichlet(1, ..., 1). exponential_() takes five times as long.
        weights = -torch.log1p(-torch.rand(*shape, self.states, generator=generator))
        means = 1 + torch.randn(shape, generator=generator)
        return TensorDict({"means": means, "transitions": weights / weights.sum(-1, keepdim=True)}, [count])

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: if a name is missing or unknown, a value is outside the task space, or probabilities do not sum
                to 1.
        """
        task = super().make_task(parameters)
        sums = task["transitions"][0].double().sum(-1)
        if len(wrong := ((sums - 1).abs() > SUM_TOLERANCE).nonzero()):
            state, action = wrong[0].tolist()
            found = f"those of state {state}, action {action} sum to {sums[state, action]:.6g}"
            raise InputError(f"{self.name}: the transition probabilities must sum to 1; {found}")
        return task

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Start in state 0."""
        return {"state": torch.zeros(len(tasks), dtype=torch.int64, device=tasks["means"].device)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Draw the reward and the next state."""
        worlds, device = len(actions), actions.device
        # Rows of one long table: selecting them is twice as fast as indexing by world, state and action.
        rows = (torch.arange(worlds, device=device) * self.states + state["state"]) * self.actions + actions
        means = tasks["means"].flatten().index_select(0, rows)
        sums = tasks["transitions"].flatten(0, 2).index_select(0, rows)[:, :-1].cumsum(-1)
        noise = draw_rows(torch.randn, (worlds,), generator, device=device)
        draws = draw_rows(torch.rand, (worlds, 1), generator, device=device)
        # The next state is the number of cumulative probabilities below the draw. The last one is left out, because it
        # is 1 up to rounding.
        following = (draws >= sums).sum(-1)
        never = torch.zeros(worlds, dtype=torch.bool, device=device)
        return {"state": following}, Transition(means + noise, never, {})

    def observation(self, state: State) -> Tensor:
        """Return one-hot states ``[B, S]``."""
        present = state["state"]
        return torch.zeros(len(present), self.states, device=present.device).scatter_(1, present[:, None], 1.0)

    def words(self) -> Words:
        """Return the process in words."""
        rules = (
            f"There are {self.states} states and {self.actions} actions. An action in a state gives a reward and leads "
            "to another state, both at random, with averages and probabilities that never change. Every episode "
            f"starts in state 0 and has {self.horizon} steps. Earn as much as possible."
        )
        return Words(
            rules, tuple(map(str, range(self.actions))), lambda seen: f"You are in state {int(seen.argmax())}."
        )

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return the best action with 1, 2, ... steps left in each state, ``[B, T, S]``, by backward induction."""
        worth, actions = torch.zeros_like(tasks["means"][..., 0]), []
        for _ in range(self.horizon):
            following = torch.einsum("bsat,bt->bsa", tasks["transitions"], worth)
            worth, best = (tasks["means"] + following).max(-1)
            actions.append(best)
        return torch.stack(actions, 1)

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return the planned actions ``[B]``."""
        return planned_actions(plan, remaining, state["state"])

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw mean rewards, green above 0 and red below, with a column for each state; the current one is framed."""
        means, present = task["means"].tolist(), int(state["state"])
        return draw(lambda pen: self._paint(pen, means, present))

    def _paint(self, pen: ImageDraw, means: list[list[float]], present: int) -> None:
        width, height = SIDE / self.states, SIDE / self.actions
        for state, row in enumerate(means):
            for action, mean in enumerate(row):
                left, top = state * width, action * height
                pen.rectangle((left, top, left + width, top + height), _shade(mean), WHITE)
        pen.rectangle((present * width, 0, (present + 1) * width, SIDE - 1), outline=BLACK, width=3)


def _shade(mean: float) -> Colour:
    """Return white for 0, and increasingly saturated green or red up to 3 and -3."""
    strength = min(abs(mean) / 3, 1.0)
    red, green, blue = (
        round(white + strength * (full - white))
        for white, full in zip(WHITE, GOAL if mean > 0 else DANGER, strict=True)
    )
    return red, green, blue
