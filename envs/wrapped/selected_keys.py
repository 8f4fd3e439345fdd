"""Selection of entries from Dict observations."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces

from metarl.errors import InputError


class SelectedKeys(gymnasium.ObservationWrapper[Any, Any, Any]):
    """An environment with only some keys of its Dict observations; a single one is returned without a dict.

    Args:
        env: environment with a Dict observation space.
        keys: selected keys, in any order.

    Raises:
        InputError: if the observation space is not a Dict or lacks a key.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], keys: Sequence[str]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise InputError(f"observation_keys selects from a Dict of observations, not from a {type(space).__name__}")
        if unknown := sorted(set(keys) - set(space)):
            raise InputError(f"the observations have no keys {unknown}; they have {sorted(space)}")
        self._keys = tuple(keys)
        selected = {key: space[key] for key in keys}
        self.observation_space = selected[keys[0]] if len(keys) == 1 else spaces.Dict(selected)

    def observation(self, observation: Mapping[str, Any]) -> Any:
        """Return the selected entries."""
        if len(self._keys) == 1:
            return observation[self._keys[0]]
        return {key: observation[key] for key in self._keys}
