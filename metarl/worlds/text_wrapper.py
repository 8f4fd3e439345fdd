"""Observations and actions of a family's environment in words, as a Gymnasium wrapper."""

import string
from typing import Any

import gymnasium
import torch
from gymnasium import spaces

from metarl.errors import InputError

# Characters of the longest observation that is expected.
LONGEST = 10_000


class TextWrapper(gymnasium.Wrapper[str, Any, Any, Any]):
    """An environment that is observed in words, and whose actions have names.

    Attributes:
        rules: what holds in all tasks of the family.
        action_names: what ``step`` takes, besides their numbers.

    Args:
        env: an environment of a family that describes itself in words, from ``gymnasium.make``.

    Raises:
        InputError: when its family does not.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        family = getattr(env.unwrapped, "family", None)
        words = None if family is None else family.words()
        if words is None:
            raise InputError(f"{env} does not describe itself in words; docs/language.md lists the families that do")
        self.rules, self.action_names, self._text = words.rules, words.actions, words.observation
        self.observation_space = spaces.Text(LONGEST, min_length=0, charset=string.printable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; return its first observation in words."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._text(torch.as_tensor(observation)), info

    def step(self, action: str | int) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Take an action, by its name or number.

        Raises:
            InputError: when no action has that name.
        """
        if isinstance(action, str):
            if action not in self.action_names:
                raise InputError(f"there is no action {action!r}; there are {', '.join(self.action_names)}")
            action = self.action_names.index(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._text(torch.as_tensor(observation)), reward, terminated, truncated, info
