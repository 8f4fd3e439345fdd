"""Small environments of the kinds that people bring: a point on a line with a goal, each with one peculiarity."""

import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Answer = tuple[Any, float, bool, bool, dict[str, Any]]
GOALS = spaces.Box(-1.0, 1.0, (), np.float64)
PICTURE = (32, 32, 3)


class Point(gymnasium.Env[Any, Any]):
    """A point on a line; a step costs its distance from the goal."""

    observation_space: spaces.Space[Any] = spaces.Box(-9, 9, (1,), np.float32)
    action_space: spaces.Space[Any] = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal: float = 0.5) -> None:
        self.goal, self.place = goal, 0.0

    def seen(self) -> Any:
        return np.array([self.place], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0.0
        self.begin(options or {})
        return self.seen(), {}

    def begin(self, options: dict[str, Any]) -> None:
        """Change how an episode starts."""

    def step(self, action: Any) -> Answer:
        self.place += 0.1 * float(np.asarray(action).ravel()[0])
        return self.seen(), -abs(self.place - self.goal), False, False, {}


class DrawsItsOwnGoal(Point):
    """Overwrites the task in reset."""

    def begin(self, options: dict[str, Any]) -> None:
        self.goal = float(self.np_random.uniform(-1, 1))


class ForgetsItsGoal(Point):
    """Overwrites the task in its first step."""

    def step(self, action: Any) -> Answer:
        self.goal = 0.0
        return super().step(action)


class TaskThroughOptions(Point):
    """Takes the task from the options of reset."""

    def begin(self, options: dict[str, Any]) -> None:
        self.goal = options.get("goal", 0.0)


class GlobalStream(Point):
    """Starts, and slips, by the global streams of NumPy and Python."""

    def begin(self, options: dict[str, Any]) -> None:
        self.place = float(np.random.uniform(-0.5, 0.5)) + random.uniform(-0.5, 0.5)  # noqa: NPY002

    def step(self, action: Any) -> Answer:
        self.place += 0.1 * random.random() + 0.1 * np.random.random()  # noqa: NPY002
        return super().step(action)


class LeavesTheArea(Point):
    """Truncates as soon as the point is too far out."""

    def step(self, action: Any) -> Answer:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, abs(self.place) > 0.15, info


class Wide(Point):
    """Observes 2,048 numbers."""

    observation_space = spaces.Box(-9, 9, (2048,), np.float32)

    def seen(self) -> Any:
        return np.full(2048, self.place, np.float32)


class Picture(Point):
    """Observes an image."""

    observation_space = spaces.Box(0, 255, PICTURE, np.uint8)

    def seen(self) -> Any:
        return np.full(PICTURE, int(128 + 20 * self.place) % 256, np.uint8)


class Double(Point):
    """Observes float64."""

    observation_space = spaces.Box(-9, 9, (1,), np.float64)

    def seen(self) -> Any:
        return np.array([self.place])


class NeedsADisplay(Point):
    """Cannot be made to draw here."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, goal: float = 0.5, render_mode: str | None = None) -> None:
        super().__init__(goal)
        if render_mode == "rgb_array":
            raise RuntimeError("cannot open a display")


class Buttons(Point):
    """Acts by several switches."""

    action_space = spaces.MultiDiscrete([3, 2])


class StartsAtOne(Point):
    """Counts its actions and observations from 1."""

    action_space = spaces.Discrete(3, start=1)
    observation_space = spaces.Discrete(4, start=1)

    def seen(self) -> Any:
        return 1 + min(3, int(10 * abs(self.place)))


class GoalEnvironment(Point):
    """Observes its goal, and reports success as goal environments do."""

    observation_space = spaces.Dict(
        observation=spaces.Box(-9, 9, (1,), np.float32), desired_goal=spaces.Box(-1, 1, (1,), np.float32)
    )

    def seen(self) -> Any:
        place, goal = np.array([self.place], np.float32), np.array([self.goal], np.float32)
        return {"observation": place, "desired_goal": goal}

    def step(self, action: Any) -> Answer:
        observation, reward, _, _, _ = super().step(action)
        return observation, reward, False, False, {"is_success": np.float32(abs(self.place - self.goal) < 0.1)}


class ReportsAtTheEnd(Point):
    """Reports success only in the last step of an episode; it never succeeds."""

    def begin(self, options: dict[str, Any]) -> None:
        self.steps = 0

    def step(self, action: Any) -> Answer:
        observation, reward, _, _, _ = super().step(action)
        self.steps += 1
        return observation, reward, False, False, {"success": False} if self.steps == 6 else {}


class ReportsSuccessOnly(Point):
    """Says nothing of success until it succeeds, in its third episode."""

    episodes = 0

    def begin(self, options: dict[str, Any]) -> None:
        self.episodes += 1

    def step(self, action: Any) -> Answer:
        observation, reward, _, _, _ = super().step(action)
        return observation, reward, False, False, {"success": True} if self.episodes == 3 else {}


class PassesItOn(Point):
    """Names its own argument and passes the others on."""

    def __init__(self, colour: str = "red", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.colour = colour


class Levels(Point):
    """Draws its level from the seed of reset, and hides it."""

    def begin(self, options: dict[str, Any]) -> None:
        self.hidden = float(self.np_random.uniform(-1, 1))

    def step(self, action: Any) -> Answer:
        observation, _, _, _, info = super().step(action)
        return observation, -abs(self.place - self.hidden), False, False, info


class ResetTask(Point):
    """Follows the protocol of the field's older environments: ``reset_task`` before ``reset``."""

    def __init__(self) -> None:
        super().__init__()
        self._task = 0.0

    def reset_task(self, task: float) -> None:
        self._task = task

    def begin(self, options: dict[str, Any]) -> None:
        self.goal = self._task


class Shifted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper with a parameter of its own."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.shift = 0.0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + self.shift, terminated, truncated, info


class OldReset(Point):
    """Returns the observation alone."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed, options=options)[0]


class OldSeed(Point):
    """Takes no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()[0]


class OldStep(Point):
    """Returns four values."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class Secretive(gymnasium.Env[Any, Any]):
    """Has no argument and no public attribute but its spaces."""

    observation_space = Point.observation_space
    action_space = Point.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}
