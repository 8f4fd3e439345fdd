"""Many simulations of the Sawyer arm with one environment's objects: the contract, and the CPU's engine."""

import copy
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl.envs.simulation.batched import BROKEN

SUBSTEPS = 5
# What a restart sets: state, and the fields of the model that placing objects changes.
STATE = ("qpos", "qvel", "qacc_warmstart", "ctrl", "mocap_pos", "mocap_quat")
FIELDS = ("body_pos", "site_pos")
# What can be read after a step.
DERIVED = ("xpos", "xquat", "xmat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat")


class Arms(Protocol):
    """W simulations of one model whose hand is welded to a mocap body.

    Attributes:
        rows: live tensors ``[W, ...]`` of everything in ``STATE`` and ``FIELDS``; writing in place sets it.
    """

    rows: dict[str, Tensor]

    def read(self, name: str) -> Tensor:
        """Return a live tensor ``[W, ...]``, one of ``DERIVED`` as of the last step, or of ``STATE``."""
        ...

    def number(self, source: str, name: str) -> int:
        """Return the index of a body, geom or site."""
        ...

    def address(self, joint: str) -> int:
        """Return where a joint's position begins in ``qpos``."""
        ...

    def step(self) -> None:
        """Advance by ``SUBSTEPS`` time steps, and compute positions at the new state."""
        ...

    def restart(self, chosen: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Reset the simulations with the indices ``chosen`` ``[K]``, rising, to the given rows ``[K, ...]``."""
        ...

    def unstable(self) -> Tensor:
        """Return a bool ``[W]``, true where the physics met a bad state since the simulation's last restart."""
        ...

    def touched(self, chosen: Tensor, geom: str) -> Tensor:
        """Return a bool ``[K]``: whether both pads press on a geom in the simulations with the indices ``chosen``."""
        ...


class CpuArms:
    """W simulations on the CPU's threads, in float64, equal bit for bit to stepping each alone with ``mj_step``.

    Args:
        batch: simulations of the environment's model, W or more; the first W are used.
        count: their number W.
    """

    def __init__(self, batch: Batch, count: int) -> None:
        self._batch, self._count = batch, count
        self._numbers: dict[tuple[str, str], int] = {}
        state = {name: batch.bind(name) for name in STATE}
        fields = {name: batch.expand(name) for name in FIELDS}
        self.rows = {name: torch.from_numpy(array[:count]) for name, array in {**state, **fields}.items()}
        # Bound before the first step, for what is bound later is zero until the next one.
        self._derived = {name: _read_only(batch.bind(name)[:count]) for name in DERIVED}
        self._used = None if count == batch.nsim else np.arange(count)

    def read(self, name: str) -> Tensor:
        """Return the first W rows of a field that MuJoCo copies out of each simulation, or of its state."""
        return self._derived[name] if name in self._derived else self.rows[name]

    def number(self, source: str, name: str) -> int:
        """Return the index of a body, geom or site."""
        if (source, name) not in self._numbers:
            self._numbers[source, name] = int(getattr(self._batch.model, source)(name).id)
        return self._numbers[source, name]

    def address(self, joint: str) -> int:
        """Return where a joint's position begins in ``qpos``."""
        if ("qpos", joint) not in self._numbers:
            self._numbers["qpos", joint] = int(self._batch.model.joint(joint).qposadr[0])
        return self._numbers["qpos", joint]

    def step(self) -> None:
        """Advance by ``SUBSTEPS`` calls of ``mj_step``, and compute kinematics."""
        self._batch.step(self._used, SUBSTEPS, mujoco.mjtStage.mjSTAGE_POS.value)

    def restart(self, chosen: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Reset simulations, and set their state and their fields, of which nothing is derived, as in the package."""
        self._batch.reset(chosen.numpy(), stage=mujoco.mjtStage.mjSTAGE_NONE)
        for name, values in rows.items():
            self.rows[name][chosen] = values

    def unstable(self) -> Tensor:
        """Return a bool ``[W]``: simulations whose counters of bad positions, velocities or accelerations rose."""
        return torch.from_numpy(self._batch.warning[: self._count, BROKEN, 1].any(1))

    @cached_property
    def _one(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """What one simulation is copied to."""
        return copy.copy(self._batch.model), mujoco.MjData(self._batch.model)

    def touched(self, chosen: Tensor, geom: str) -> Tensor:
        """Compute the contact forces of the simulations asked for, one by one."""
        touching = torch.zeros(len(chosen), dtype=torch.bool)
        for index, simulation in enumerate(chosen.tolist()):
            model, data = self._one
            self._batch.get_model(simulation, model)
            self._batch.get_data(simulation, data)
            mujoco.mj_forward(model, data)
            touching[index] = all(_pressed(model, data, {geom, pad}) for pad in ("leftpad_geom", "rightpad_geom"))
        return touching


def _pressed(model: mujoco.MjModel, data: mujoco.MjData, geoms: set[str]) -> bool:
    pair = {model.geom(name).id for name in geoms}
    forces = [data.efc_force[contact.efc_address] for contact in data.contact if set(contact.geom) == pair]
    return bool(sum(forces) > 0)


def _read_only(array: np.ndarray) -> Tensor:
    """View a read-only array as a tensor, without torch's warning that one could write to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
