"""Worlds of Meta-World's environments on the engine of a device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from mujoco.batch import Batch

from metarl.envs.manipulation.arms import Arms, CpuArms
from metarl.envs.manipulation.package import Version, indices, load_package
from metarl.envs.manipulation.scene import Kind
from metarl.envs.manipulation.starts import Prototype, prototype
from metarl.envs.manipulation.tasks import catalogue, first_rewards
from metarl.envs.manipulation.worlds import ManipulationDynamics
from metarl.envs.simulation.batched import check_engine
from metarl.errors import InputError
from metarl.runtime import share_of_cores

if TYPE_CHECKING:
    from metarl.envs.manipulation.arms_warp import ArmSim

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

    engine = CpuEngine(prototypes) if device.type == "cpu" else DeviceEngine(prototypes, kinds, device)
    return ManipulationDynamics(kinds, prototypes, engine, num_envs, device)


class CpuEngine:
    """Simulations on the CPU, whose environments are stepped side by side.

    Args:
        prototypes: gives the prototype of an environment.
    """

    def __init__(self, prototypes: Prototypes) -> None:
        self._prototypes = prototypes
        self._batches: dict[int, Batch] = {}
        self._cores = share_of_cores()
        self._pool = ThreadPoolExecutor(self._cores)

    def make(self, counts: Mapping[int, int]) -> list[Arms]:
        """Return simulations in batches, which share the cores."""
        threads = ceil(self._cores / len(counts))
        return [CpuArms(self._batch(environment, count, threads), count) for environment, count in counts.items()]

    def _batch(self, environment: int, count: int, threads: int) -> Batch:
        # A batch costs a copy of its model, so it is kept, and serves fewer worlds on fewer threads too.
        kept = self._batches.get(environment)
        if kept is None or kept.nsim < count or kept.nthread < min(count, threads):
            kept = Batch(self._prototypes(environment).model, count, min(count, threads))
            self._batches[environment] = kept
        return kept

    def step(self, arms: Sequence[Arms]) -> None:
        """Step the batches, one after another on each core: to wake threads for each costs as much as a few worlds."""
        if len(arms) == 1:
            arms[0].step()
            return
        waiting = iter(arms)
        for worker in [self._pool.submit(_step_each, waiting) for _ in range(min(len(arms), self._cores))]:
            worker.result()


def _step_each(waiting: Iterator[Arms]) -> None:
    for arms in waiting:
        arms.step()


class DeviceEngine:
    """Simulations by MuJoCo Warp.

    Args:
        prototypes: gives the prototype of an environment.
        kinds: of the environments.
        device: where their state lives.
    """

    def __init__(self, prototypes: Prototypes, kinds: Mapping[int, Kind], device: torch.device) -> None:
        self._prototypes, self._kinds, self._device = prototypes, kinds, device
        self._simulations: dict[int, ArmSim] = {}

    def make(self, counts: Mapping[int, int]) -> list[Arms]:
        """Return simulations of each environment.

        Raises:
            InputError: for an environment that MuJoCo Warp does not run.
        """
        from metarl.envs.manipulation.arms_warp import WarpArms

        return [WarpArms(self._simulation(environment, count), count) for environment, count in counts.items()]

    def _simulation(self, environment: int, count: int) -> "ArmSim":
        from metarl.envs.manipulation.arms_warp import ArmSim

        origin = self._prototypes(environment)
        if self._kinds[environment].by_contact:
            raise InputError(
                f"MuJoCo Warp does not give the contact forces that Meta-World's {origin.name} needs; use --device cpu"
            )
        # Graphs are recorded for a number of simulations, so those for the most are kept.
        kept = self._simulations.get(environment)
        if kept is None or len(kept.qpos) < count:
            kept = self._simulations[environment] = ArmSim(origin.name, origin.model, count, self._device)
        return kept

    def step(self, arms: Sequence[Arms]) -> None:
        """Launch the steps one after another."""
        for each in arms:
            each.step()


def check_placement(environment: int, placement: np.ndarray) -> None:
    """Make sure that the package can draw a placement ``[6]`` in an environment.

    Raises:
        InputError: if not.
    """
    prototype(environment, (), True, "v2").start(placement)
