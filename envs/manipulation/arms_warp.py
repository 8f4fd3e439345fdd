"""Batched simulations of the Sawyer arm by MuJoCo Warp on a CUDA device, in float32."""

from collections.abc import Mapping, Sequence

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from metarl.envs.manipulation.arms import DERIVED, FIELDS, STATE, SUBSTEPS, Arms
from metarl.envs.simulation.warp import WarpSim
from metarl.errors import InputError


class ArmSim(WarpSim):
    """Simulations of an arm that differ in where bodies and sites are placed.

    As in the package, constants that MuJoCo derives from body positions remain those of the original model.

    Args:
        name: name of the environment.
        model: its compiled model.
        num_sims: number of simulations.
        device: device of their state.

    Raises:
        InputError: when MuJoCo Warp cannot run the model.
    """

    def __init__(self, name: str, model: mujoco.MjModel, num_sims: int, device: torch.device) -> None:
        try:
            super().__init__(model, num_sims, device)
        except NotImplementedError as error:
            raise InputError(f"MuJoCo Warp cannot simulate Meta-World's {name}: {error}; use --device cpu") from None
        self.model = model

    def _make(self, model: mujoco.MjModel, fields: Sequence[str]) -> None:
        super()._make(model, fields)
        for name in FIELDS:
            rows = np.repeat(getattr(model, name)[None], self._num_sims, axis=0)
            setattr(self._model, name, wp.array(rows, dtype=wp.vec3))

    def tensor(self, name: str) -> Tensor:
        """Return a live tensor ``[B, ...]`` of a field."""
        found: Tensor = wp.to_torch(getattr(self._model if name in FIELDS else self._data, name))
        return found

    def move(self) -> None:
        """Advance by ``SUBSTEPS`` time steps, and compute positions at the new state."""
        self._run("move", self._move)

    def _move(self) -> None:
        self._advance(SUBSTEPS)
        mjw.kinematics(self._model, self._data)


class WarpArms(Arms):
    """The first W simulations of an ``ArmSim``.

    Args:
        simulation: at least W simulations of the environment's model; all are stepped.
        count: W.
    """

    def __init__(self, simulation: ArmSim, count: int) -> None:
        super().__init__()
        self.model, self._simulation, self._count = simulation.model, simulation, count
        self.rows = {name: simulation.tensor(name)[:count] for name in (*STATE, *FIELDS)}
        self._derived = {name: simulation.tensor(name)[:count] for name in DERIVED}

    def read(self, name: str) -> Tensor:
        """Return the first W rows of a field."""
        return self._derived[name]

    def step(self) -> None:
        """Advance by ``SUBSTEPS`` time steps, and compute positions at the new state."""
        self._simulation.move()

    def restart(self, chosen: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Reset simulations and set their state and fields."""
        simulation = self._simulation
        mask = torch.zeros(len(simulation.qpos), dtype=torch.bool, device=simulation.qpos.device)
        mask[chosen] = True
        starts = [simulation.tensor(name).clone() for name in ("qpos", "qvel")]
        for start, name in zip(starts, ("qpos", "qvel"), strict=True):
            start[chosen] = rows[name]
        simulation.restart(mask, *starts)
        for name, values in rows.items():
            self.rows[name][chosen] = values

    def unstable(self) -> Tensor:
        """Return a bool ``[W]``: whether a simulation has become unstable since its last restart."""
        self._simulation.check()
        return self._simulation.unstable()[: self._count]

    def gripped(self, chosen: Tensor, geom: str) -> Tensor:
        """Not implemented: environments whose success depends on contact forces are refused earlier."""
        raise NotImplementedError
