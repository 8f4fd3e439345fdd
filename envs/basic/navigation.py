"""Point robots in the plane: 2D navigation (Finn et al. 2017, section 5.3), sparse rewards (Rakelly et al. 2019)."""

import math
from abc import abstractmethod
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
from metarl.families.pictures import AGENT, GOAL, SIDE, Colour, draw
from metarl.families.positions import Map, Position, as_position
from metarl.families.references import Reference
from metarl.families.solved import SolvedFamily
from metarl.families.tensor_family import State, uniform

GOAL_RANGE = 0.5
MAX_MOVE = 0.1
ARRIVED = 0.01
FAINT: Colour = (215, 215, 215)
GOAL_AREA: Colour = (210, 235, 210)

Range = tuple[float, float]


class PointRobot(SolvedFamily):
    """A point robot that moves at most 0.1 per axis and step towards a hidden goal.

    Attributes:
        goal_radius: distance within which the goal counts as reached.
        view: centre x, centre y and half the side of the square shown in pictures.
    """

    goal_radius: float
    view: ClassVar[tuple[float, float, float]]

    @abstractmethod
    def goals(self, tasks: TensorDict) -> Tensor:
        """Return the goals ``[B, 2]`` of tasks ``[B]``."""

    @abstractmethod
    def outcome(self, offsets: Tensor) -> Transition:
        """Return rewards and ends of points at ``offsets`` ``[B, 2]`` from their goals."""

    @abstractmethod
    def goal_line(self) -> list[Position]:
        """Return points along the line that contains or encloses all goals, for pictures."""

    @property
    def starts(self) -> tuple[Range, Range]:
        """The ranges of x and y from which starts are drawn uniformly; the origin unless overridden."""
        return (0.0, 0.0), (0.0, 0.0)

    @property
    def observation_space(self) -> spaces.Box:
        """The position ``[2]``."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The move ``[2]``."""
        return spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        """Draw starts uniformly from ``starts``."""
        axes = [uniform(generator, (len(tasks),), low, high) for low, high in self.starts]
        return {"position": torch.stack(axes, -1)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        """Move."""
        position = state["position"] + actions
        return {"position": position}, self.outcome(position - self.goals(tasks))

    def observation(self, state: State) -> Tensor:
        """Return positions ``[B, 2]``."""
        return state["position"]

    def plan(self, state: State, tasks: TensorDict) -> Tensor:
        """Return the goals ``[B, 2]``."""
        return self.goals(tasks)

    def best_actions(self, state: State, plan: Tensor, remaining: Tensor) -> Tensor:
        """Return moves ``[B, 2]`` at full speed on each axis until it matches the goal's: no path is ever closer."""
        return ((plan - state["position"]) / MAX_MOVE).clamp(-1, 1)

    def positions(self, observations: Tensor) -> Tensor:
        """Return the observations, which are positions ``[..., 2]``."""
        return observations

    def map_of(self, task: TensorDict) -> Map:
        """Return the view, with the goal and the line of all goals."""
        x, y, half = self.view
        return Map((x, y), half, goal=self._goal(task), goal_radius=self.goal_radius, goal_line=self.goal_line())

    def picture(self, state: State, task: TensorDict) -> np.ndarray:
        """Draw the line of goals and the starts (grey), the goal with its radius (green) and the point (blue)."""
        return draw(lambda pen: self._paint(pen, self._goal(task), as_position(state["position"])))

    def _paint(self, pen: ImageDraw, goal: Position, position: Position) -> None:
        corners = zip(*self.starts, strict=True)
        (left, bottom), (right, top) = (self._pixel(corner) for corner in corners)
        pen.line([self._pixel(position) for position in self.goal_line()], FAINT, 2)
        pen.rectangle((left - 4, top - 4, right + 4, bottom + 4), outline=FAINT, width=2)
        pen.circle(self._pixel(goal), self.goal_radius * self._pixels_per_unit, GOAL_AREA)
        pen.circle(self._pixel(goal), 4, GOAL)
        pen.circle(self._pixel(position), 5, AGENT)

    def _goal(self, task: TensorDict) -> Position:
        return as_position(self.goals(task[None])[0])

    @property
    def _pixels_per_unit(self) -> float:
        return SIDE / (2 * self.view[2])

    def _pixel(self, position: Position) -> Range:
        """Return the pixel of a position, at the border if it is outside the view."""
        x, y, half = self.view
        across, down = (min(max(way, 0.0), 2 * half) for way in (position[0] - x + half, y + half - position[1]))
        return across * self._pixels_per_unit, down * self._pixels_per_unit


@register_family
@dataclass(frozen=True)
class Navigation2D(PointRobot):
    """A point robot that starts at the origin and moves at most 0.1 per axis and step towards a hidden goal.

    The reward is minus the Euclidean distance to the goal after the move. The episode terminates when both axes are
    within 0.01 of the goal (Finn et al. 2017, section 5.3).

    Attributes:
        horizon: steps of an episode.
    """

    horizon: int = 100

    name: ClassVar[str] = "navigation-2d"
    env_id: ClassVar[str] = "metarl/Navigation2D-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"maml": {"horizon": 100}}
    references: ClassVar[Mapping[str, Reference]] = {
        "maml": Reference(
            100, -38.4, -0.51, "staying at the origin, as published (-38.26 by formula); straight to a known goal"
        )
    }
    view: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.7)
    goal_radius = ARRIVED

    @property
    def task_space(self) -> spaces.Dict:
        """``goal`` ``[2]``."""
        return spaces.Dict({"goal": spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the square."""
        return TensorDict({"goal": uniform(generator, (count, 2), -GOAL_RANGE, GOAL_RANGE)}, [count])

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals outside the square, uniformly in angle and up to half its side away from its border."""
        angle = uniform(generator, (count,), 0.0, 2 * math.pi)
        way = torch.stack([angle.cos(), angle.sin()], -1)
        border = GOAL_RANGE / way.abs().amax(-1)
        far = border * uniform(generator, (count,), 1.0, 1.5)
        return TensorDict({"goal": far.unsqueeze(-1) * way}, [count])

    def goals(self, tasks: TensorDict) -> Tensor:
        """Return the goals ``[B, 2]``."""
        goals: Tensor = tasks["goal"]
        return goals

    def outcome(self, offsets: Tensor) -> Transition:
        """Return minus the distance to the goal as reward; reaching the goal terminates the episode."""
        terminated = offsets.abs().amax(-1) < ARRIVED
        return Transition(-torch.linalg.vector_norm(offsets, dim=-1), terminated, {})

    def goal_line(self) -> list[Position]:
        """Return the corners of the square of goals, ending with the first."""
        return [(GOAL_RANGE * x, GOAL_RANGE * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]


@register_family
@dataclass(frozen=True)
class SparsePoint(PointRobot):
    """A point that is rewarded only near a goal on the unit half-circle (PEARL: Rakelly et al. 2019, section 6.2).

    It moves as in ``Navigation2D``. Inside the goal's radius the reward is 1 minus the distance after the move, and 0
    everywhere else. The episode never terminates. VariBAD's code has the same rewards and a longer horizon. In Ni et
    al. (2022) the reward is 1 inside the radius, and each episode starts anywhere in [-1.5, 1.5] x [-0.5, 1.5].

    Attributes:
        goal_radius: distance to the goal within which the point is rewarded.
        shaped: reward 1 minus the distance inside the radius, instead of 1.
        scattered_starts: start anywhere in the rectangle, instead of at the origin.
        horizon: steps of an episode.
    """

    goal_radius: float = 0.2
    shaped: bool = True
    scattered_starts: bool = False
    horizon: int = 20

    name: ClassVar[str] = "sparse-point"
    env_id: ClassVar[str] = "metarl/SparsePoint-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pearl": {"horizon": 20},
        "ni": {"horizon": 60, "shaped": False, "scattered_starts": True},
        "varibad": {"horizon": 100},
    }
    view: ClassVar[tuple[float, float, float]] = (0.0, 0.5, 1.7)

    def __post_init__(self) -> None:
        if not 0 < self.goal_radius < 1:
            raise InputError(
                f"goal_radius must lie between 0 and 1, the distance from the start to a goal, not {self.goal_radius}"
            )

    @property
    def task_space(self) -> spaces.Dict:
        """``angle`` of the goal on the half-circle, in radians from the x axis."""
        return spaces.Dict({"angle": spaces.Box(0.0, math.pi, (), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the half-circle."""
        return TensorDict({"angle": uniform(generator, (count,), 0.0, math.pi)}, [count])

    def outside_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw goals uniformly from the other half of the circle."""
        return TensorDict({"angle": uniform(generator, (count,), math.pi, 2 * math.pi)}, [count])

    @property
    def starts(self) -> tuple[Range, Range]:
        """The origin, or the rectangle."""
        return ((-1.5, 1.5), (-0.5, 1.5)) if self.scattered_starts else super().starts

    def goals(self, tasks: TensorDict) -> Tensor:
        """Return the goals ``[B, 2]``."""
        return torch.stack([tasks["angle"].cos(), tasks["angle"].sin()], -1)

    def outcome(self, offsets: Tensor) -> Transition:
        """Reward points inside the goal's radius; episodes never terminate."""
        distance = torch.linalg.vector_norm(offsets, dim=-1)
        inside = distance <= self.goal_radius
        rewards = torch.where(inside, 1 - distance, 0.0) if self.shaped else inside.float()
        return Transition(rewards, torch.zeros_like(inside), {})

    def goal_line(self) -> list[Position]:
        """Return points along the half-circle."""
        return [(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, math.pi, 65)]
