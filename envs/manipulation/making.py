"""Worlds of Meta-World's environments on the engine of a device."""

import os
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
from mujoco.batch import Batch

from metarl.envs.manipulation.arms import Arms, CpuArms
from metarl.envs.manipulation.package import Version, indices, load_package
from metarl.envs.manipulation.scene import Kind
from metarl.envs.manipulation.starts import Prototype, prototype
from metarl.envs.manipulation.tasks import catalogue, first_rewards
from metarl.envs.manipulation.worlds import ArmsMaker, ManipulationDynamics
from metarl.envs.simulation.batched import check_engine
from metarl.errors import InputError

Prototypes = Callable[[int], Prototype]
KINDS: dict[Version, dict[str, Kind]] = {"v1": first_rewards.KINDS, "v2": catalogue.KINDS}


def make_worlds(num_envs: int, device: torch.device, hidden: bool, reward: Version) -> ManipulationDynamics:
    """Make ``num_envs`` worlds, each of the environment of its task.

    Args:
        num_envs: their number.
        device: where their tensors live.
        hidden: whether zeros are in the goal's place in the observation.
        reward: version.

    Raises:
        InputError: when the package is missing or another version, or the device's engine is missing.
    """
    load_package()
    check_engine(device)
    kinds = {index: KINDS[reward][name] for name, index in indices().items()}

    @cache
    def prototypes(environment: int) -> Prototype:
        return prototype(environment, kinds[environment].notes, hidden, reward)

    make_arms = cpu_arms(prototypes) if device.type == "cpu" else device_arms(prototypes, kinds, device)
    return ManipulationDynamics(kinds, prototypes, make_arms, num_envs, device, hidden)


def cpu_arms(prototypes: Prototypes) -> ArmsMaker:
    """Return what makes simulations on the CPU."""
    batches: dict[int, Batch] = {}

    def make_arms(environment: int, count: int) -> Arms:
        # A batch costs a copy of its model, so it is kept, and serves fewer worlds too.
        if environment not in batches or batches[environment].nsim < count:
            # Every batch has threads of its own.
            batches[environment] = Batch(prototypes(environment).model, count, min(count, os.cpu_count() or 1))
        return CpuArms(batches[environment], count)

    return make_arms


def device_arms(prototypes: Prototypes, kinds: Mapping[int, Kind], device: torch.device) -> ArmsMaker:
    """Return what makes simulations by MuJoCo Warp."""
    from metarl.envs.manipulation.arms_warp import ArmSim, WarpArms

    simulations: dict[int, ArmSim] = {}

    def make_arms(environment: int, count: int) -> Arms:
        origin = prototypes(environment)
        if kinds[environment].by_contact:
            raise InputError(
                f"MuJoCo Warp does not give the contact forces that Meta-World's {origin.name} needs; use --device cpu"
            )
        # Graphs are recorded for a number of simulations, so those for the most are kept.
        if environment not in simulations or len(simulations[environment].qpos) < count:
            simulations[environment] = ArmSim(origin.name, origin.model, count, device)
        return WarpArms(simulations[environment], count)

    return make_arms


def check_placement(environment: int, placement: np.ndarray) -> None:
    """Make sure that the package can draw a placement ``[6]`` in an environment.

    Raises:
        InputError: if not.
    """
    prototype(environment, (), True, "v2").start(placement)
