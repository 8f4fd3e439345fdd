"""Batched simulations of the Sawyer arm with the objects of one environment: the interface, and the CPU engine."""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, Protocol

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl.envs.simulation.batched import BROKEN

SUBSTEPS = 5
# What a restart sets: the state, and the model fields that change when objects are placed.
STATE = ("qpos", "qvel", "qacc_warmstart", "ctrl", "mocap_pos", "mocap_quat")
FIELDS = ("body_pos", "site_pos")
Source = Literal["body", "geom", "site"]
# What can be read after a step: positions and rotations of bodies, geoms and sites.
POSITIONS: dict[Source, str] = {"body": "xpos", "geom": "geom_xpos", "site": "site_xpos"}
MATRICES: dict[Source, str] = {"body": "xmat", "geom": "geom_xmat", "site": "site_xmat"}
DERIVED = ("xquat", *POSITIONS.values(), *MATRICES.values())
_FLAGS = mujoco.mjtDisableBit
NO_CONTACTS = int(_FLAGS.mjDSBL_CONTACT | _FLAGS.mjDSBL_CONSTRAINT)


class Arms(ABC):
    """W simulations of one model whose hand is welded to a mocap body.

    Attributes:
        model: the compiled model.
        rows: live tensors ``[W, ...]`` of everything in ``STATE`` and ``FIELDS``; write to them in place.
    """

    model: mujoco.MjModel
    rows: dict[str, Tensor]

    def __init__(self) -> None:
        self._views: dict[tuple[str, str], Tensor] = {}

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Return a live tensor ``[W, ...]`` of one of ``DERIVED``, as of the last step."""

    def index_of(self, source: Source, name: str) -> int:
        """Return the index of a body, geom or site."""
        return int(getattr(self.model, source)(name).id)

    def view(self, field: str, source: Source, name: str) -> Tensor:
        """Return a live view ``[W, ...]`` of one of ``DERIVED`` or ``FIELDS`` for a body, geom or site."""
        if (field, name) not in self._views:
            values = self.rows[field] if field in self.rows else self.read(field)
            self._views[field, name] = values[:, self.index_of(source, name)]
        return self._views[field, name]

    def joint(self, name: str) -> Tensor:
        """Return the live position ``[W]`` of a joint with one degree of freedom."""
        if ("qpos", name) not in self._views:
            self._views["qpos", name] = self.rows["qpos"][:, int(self.model.joint(name).qposadr[0])]
        return self._views["qpos", name]

    @abstractmethod
    def step(self) -> None:
        """Advance by ``SUBSTEPS`` time steps, and compute positions at the new state."""

    @abstractmethod
    def restart(self, chosen: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Reset the simulations with indices ``chosen`` ``[K]``, in ascending order, to the given rows ``[K, ...]``."""

    @abstractmethod
    def unstable(self) -> Tensor:
        """Return a bool ``[W]``, true where the physics has become unstable since the simulation's last restart."""

    @abstractmethod
    def gripped(self, chosen: Tensor, geom: str) -> Tensor:
        """Return a bool ``[K]``: whether both pads press on a geom, in the simulations with indices ``chosen``."""


class Engine(Protocol):
    """Makes and steps simulations of several environments."""

    def make(self, counts: Mapping[int, int]) -> list[Arms]:
        """Return simulations for each environment, given the number needed by environment index."""
        ...

    def step(self, arms: Sequence[Arms]) -> None:
        """Step all of them."""
        ...


class CpuArms(Arms):
    """W simulations on CPU threads, in float64; bit for bit equal to stepping each alone with ``mj_step``.

    Args:
        batch: at least W simulations of the environment's model; the first W are used.
        count: W.
    """

    def __init__(self, batch: Batch, count: int) -> None:
        super().__init__()
        self.model, self._batch, self._count = batch.model, batch, count
        state = {name: batch.bind(name) for name in STATE}
        fields = {name: batch.expand(name) for name in FIELDS}
        self.rows = {name: torch.from_numpy(array[:count]) for name, array in {**state, **fields}.items()}
        self._disabled = batch.expand("opt.disableflags")
        self._derived: dict[str, Tensor] = {}
        self._used = None if count == batch.nsim else np.arange(count)

    def read(self, name: str) -> Tensor:
        """Return the first W rows of a field, which MuJoCo copies out of each simulation once it has been read."""
        if name not in self._derived:
            self._derived[name] = _read_only(self._batch.bind(name)[: self._count])
            self._update_positions()
        return self._derived[name]

    def step(self) -> None:
        """Advance by ``SUBSTEPS`` calls of ``mj_step``, and compute kinematics."""
        self._batch.step(self._used, SUBSTEPS)
        self._update_positions()

    def _update_positions(self) -> None:
        """Compute positions at the current state, without contacts, which are expensive and not read."""
        flags = self.model.opt.disableflags
        self._disabled[:] = flags | NO_CONTACTS
        try:
            self._batch.forward(self._used, mujoco.mjtStage.mjSTAGE_POS.value)
        finally:
            self._disabled[:] = flags

    def restart(self, chosen: Tensor, rows: Mapping[str, Tensor]) -> None:
        """Reset simulations and set their state and fields; as in the package, nothing derived is recomputed."""
        self._batch.reset(chosen.numpy(), stage=mujoco.mjtStage.mjSTAGE_NONE)
        for name, values in rows.items():
            self.rows[name][chosen] = values

    def unstable(self) -> Tensor:
        """Return a bool ``[W]``: whether MuJoCo has warned of a bad position, velocity or acceleration."""
        return torch.from_numpy(self._batch.warning[: self._count, BROKEN, 1].any(1))

    @cached_property
    def _scratch(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """A model and data into which one simulation is copied."""
        return copy.copy(self.model), mujoco.MjData(self.model)

    def gripped(self, chosen: Tensor, geom: str) -> Tensor:
        """Compute the contact forces of the given simulations one at a time."""
        touching = torch.zeros(len(chosen), dtype=torch.bool)
        for index, simulation in enumerate(chosen.tolist()):
            model, data = self._scratch
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
    """Return a tensor view of a read-only array, without torch's warning that it could be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
