"""The engines that make and step simulations of Meta-World's environments, and the worlds built on them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from mujoco.batch import Batch

from metarl.devices.runtime import share_of_cores
from metarl.envs.manipulation.arms import Arms, CpuArms
from metarl.envs.manipulation.initial_states import Prototype, prototype
from metarl.envs.manipulation.package import Version, indices, load_package
from metarl.envs.manipulation.scene import EnvironmentSpec
from metarl.envs.manipulation.tasks import catalogue, v1_rewards
from metarl.envs.manipulation.worlds import ManipulationDynamics
from metarl.envs.simulation.batched import check_engine
from metarl.envs.simulation.profiler import unprofiled
from metarl.errors import InputError

if TYPE_CHECKING:
    from metarl.envs.manipulation.arms_warp import ArmSim

Prototypes = Callable[[int], Prototype]
SPECS: dict[Version, dict[str, EnvironmentSpec]] = {"v1": v1_rewards.SPECS, "v2": catalogue.SPECS}


def make_worlds(num_envs: int, device: torch.device, hidden: bool, reward: Version) -> ManipulationDynamics:
    """Make ``num_envs`` worlds, each of its task's environment.

    Args:
        num_envs: number of worlds.
        device: device of their tensors.
        hidden: whether the goal is replaced by zeros in the observation.
        reward: version of the reward.

    Raises:
        InputError: when the package is missing or has another version, or when the device's engine is missing.
    """
    load_package()
    check_engine(device)
    specs = {index: SPECS[reward][name] for name, index in indices().items()}

    @cache
    def prototypes(environment: int) -> Prototype:
        return prototype(environment, specs[environment].attributes, hidden, reward)

    engine = CpuEngine(prototypes) if device.type == "cpu" else DeviceEngine(prototypes, specs, device)
    return ManipulationDynamics(specs, prototypes, engine, num_envs, device)


class CpuEngine:
    """Simulations on the CPU; the batches of different environments are stepped in parallel.

    Args:
        prototypes: returns the prototype of an environment.
    """

    def __init__(self, prototypes: Prototypes) -> None:
        self._prototypes = prototypes
        self._batches: dict[int, Batch] = {}
        self._cores = share_of_cores()
        self._pool = ThreadPoolExecutor(self._cores)

    def make(self, counts: Mapping[int, int]) -> list[Arms]:
        """Return one batch of simulations per environment; the batches share the cores."""
        threads = ceil(self._cores / len(counts))
        return [CpuArms(self._batch(environment, count, threads), count) for environment, count in counts.items()]

    def _batch(self, environment: int, count: int, threads: int) -> Batch:
        # Making a batch copies its model, so a batch is cached, and also used for fewer worlds or fewer threads.
        cached = self._batches.get(environment)
        if cached is None or cached.nsim < count or cached.nthread < min(count, threads):
            cached = Batch(self._prototypes(environment).model, count, min(count, threads))
            self._batches[environment] = cached
        return cached

    def step(self, arms: Sequence[Arms]) -> None:
        """Step the batches, one after another on each core: waking threads for each costs as much as a few worlds."""
        with unprofiled():
            if len(arms) == 1:
                arms[0].step()
                return
            waiting = iter(arms)
            for worker in [self._pool.submit(_step_all, waiting) for _ in range(min(len(arms), self._cores))]:
                worker.result()


def _step_all(waiting: Iterator[Arms]) -> None:
    for arms in waiting:
        arms.step()


class DeviceEngine:
    """Simulations by MuJoCo Warp.

    Args:
        prototypes: returns the prototype of an environment.
        specs: specs of the environments, by index.
        device: device of the simulations' state.
    """

    def __init__(self, prototypes: Prototypes, specs: Mapping[int, EnvironmentSpec], device: torch.device) -> None:
        self._prototypes, self._specs, self._device = prototypes, specs, device
        self._simulations: dict[int, ArmSim] = {}

    def make(self, counts: Mapping[int, int]) -> list[Arms]:
        """Return one batch of simulations per environment.

        Raises:
            InputError: for an environment that MuJoCo Warp cannot run.
        """
        from metarl.envs.manipulation.arms_warp import WarpArms

        return [WarpArms(self._simulation(environment, count), count) for environment, count in counts.items()]

    def _simulation(self, environment: int, count: int) -> "ArmSim":
        from metarl.envs.manipulation.arms_warp import ArmSim

        origin = self._prototypes(environment)
        if self._specs[environment].needs_contact_forces:
            raise InputError(
                f"MuJoCo Warp has no contact forces, which Meta-World's {origin.name} needs; use --device cpu"
            )
        # CUDA graphs are captured for a fixed number of simulations, so the largest batch is cached.
        cached = self._simulations.get(environment)
        if cached is None or len(cached.qpos) < count:
            cached = self._simulations[environment] = ArmSim(origin.name, origin.model, count, self._device)
        return cached

    def step(self, arms: Sequence[Arms]) -> None:
        """Step all of them, one launch after another."""
        for each in arms:
            each.step()


def check_placement(environment: int, placement: np.ndarray) -> None:
    """Check that the package can draw a placement ``[6]`` in an environment.

    Raises:
        InputError: if it cannot.
    """
    prototype(environment, (), True, "v2").initial_state(placement)
