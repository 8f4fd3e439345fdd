"""Worlds of Meta-World's environments on the engine of a device."""

from functools import cache

import numpy as np
import torch
from mujoco.batch import Batch

from metarl.envs.manipulation.arms import Arms, CpuArms
from metarl.envs.manipulation.package import indices
from metarl.envs.manipulation.scene import Kind
from metarl.envs.manipulation.starts import Prototype, Version, prototype
from metarl.envs.manipulation.tasks import catalogue, first_rewards
from metarl.envs.manipulation.worlds import ManipulationDynamics

KINDS: dict[Version, dict[str, Kind]] = {"v1": first_rewards.KINDS, "v2": catalogue.KINDS}


def make_worlds(num_envs: int, device: torch.device, hidden: bool, reward: Version) -> ManipulationDynamics:
    """Make ``num_envs`` worlds, each of the environment of its task.

    Args:
        num_envs: their number.
        device: where their tensors live.
        hidden: whether zeros are in the goal's place in the observation.
        reward: version.

    Raises:
        InputError: when the package is missing or another version.
    """
    kinds = {index: KINDS[reward][name] for name, index in indices().items()}

    @cache
    def prototypes(environment: int) -> Prototype:
        return prototype(environment, kinds[environment].notes, hidden, reward)

    batches: dict[int, Batch] = {}

    def make_arms(environment: int, count: int) -> Arms:
        # A batch costs a copy of its model, so it is kept, and serves fewer worlds too.
        if environment not in batches or batches[environment].nsim < count:
            batches[environment] = Batch(prototypes(environment).model, count)
        return CpuArms(batches[environment], count)

    return ManipulationDynamics(kinds, prototypes, make_arms, num_envs, device, hidden)


def check_placement(environment: int, placement: np.ndarray) -> None:
    """Make sure that the package can draw a placement ``[6]`` in an environment.

    Raises:
        InputError: if not.
    """
    prototype(environment, (), True, "v2").start(placement)
