"""Batched MuJoCo simulations of one model, with torch tensors."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl.devices.runtime import share_of_cores
from metarl.envs.simulation.profiler import unprofiled
from metarl.errors import InputError

BROKEN = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{field}")) for field in ("QPOS", "QVEL", "QACC")]
GYMNASIUM_MODELS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class BatchedSim(Protocol):
    """B simulations stepped together.

    Shapes: ``qpos`` ``[B, nq]``, ``qvel`` ``[B, nv]``, ``ctrl`` ``[B, nu]`` are live: reading them gives the current
    state, writing them in place sets it. ``centre_of_mass`` ``[B, 3]`` of all bodies together is live and read-only; as
    always in MuJoCo, after a step it is that of the state before the last substep.
    """

    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor

    @property
    def centre_of_mass(self) -> Tensor:
        """``[B, 3]``."""
        ...

    def step(self, substeps: int, active: Tensor | None = None) -> None:
        """Step the simulations by ``substeps`` time steps of the model with their ``ctrl``.

        Those where ``active`` (bool ``[B]``) is false need not be stepped.
        """
        ...

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` ``[B]`` is true, to the given rows of state."""
        ...

    def set_fields(self, mask: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Set model fields ``[B, ...]`` of the simulations where ``mask`` is true, and recompute derived constants.

        Only fields named when the engine was made can be set. A restart must follow.
        """
        ...

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the simulation diverged while it was active since its last restart."""
        ...

    def check(self) -> None:
        """Check that no contact or constraint was dropped for lack of memory since the last check.

        Raises:
            RunError: if one was.
        """
        ...


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keep MuJoCo's warnings about a model file off the terminal and out of MUJOCO_LOG.TXT.

    The models are Gymnasium's; users cannot do anything about their deprecated attributes.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


@cache
def gymnasium_model(name: str) -> mujoco.MjModel:
    """Compile one of Gymnasium's models, such as ``half_cheetah``; it is shared and must not be modified."""
    with quiet_compiler():
        return mujoco.MjModel.from_xml_path(str(GYMNASIUM_MODELS / f"{name}.xml"))


class CpuSim:
    """B simulations on the CPU's threads, in float64, equal bit for bit to stepping each alone with ``mj_step``.

    Args:
        model: compiled model.
        num_sims: number of simulations B.
        fields: names of the model fields that differ between simulations.

    The tensors are views of MuJoCo's own state rows.

    Raises:
        InputError: for a field that does not exist or cannot differ.
    """

    def __init__(self, model: mujoco.MjModel, num_sims: int, fields: Sequence[str] = ()) -> None:
        self._batch = Batch(model, num_sims, nthread=share_of_cores())
        self._fields = {name: self._expanded(model, name) for name in fields}
        self.qpos, self.qvel, self.ctrl = (
            torch.from_numpy(self._batch.bind(name)) for name in ("qpos", "qvel", "ctrl")
        )

    def _expanded(self, model: mujoco.MjModel, name: str) -> Tensor:
        try:
            return torch.from_numpy(self._batch.expand(name))
        except ValueError as error:
            option = name.removeprefix("opt_")
            hint = f"; name it 'opt.{option}'" if hasattr(model.opt, option) else ""
            raise InputError(f"{name} is not a model field that can differ between simulations{hint}") from error

    @cached_property
    def centre_of_mass(self) -> Tensor:
        """Centre of mass of the world body's subtree ``[B, 3]``; MuJoCo copies it out from the first use on."""
        subtrees = self._batch.bind("subtree_com")
        self._batch.forward()
        return _read_only(subtrees)[:, 0]

    def step(self, substeps: int, active: Tensor | None = None) -> None:
        """Step the active simulations with ``substeps`` calls of ``mj_step``."""
        with unprofiled():
            self._batch.step(None if active is None or active.all() else active.numpy(), nstep=substeps)

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` is true, set their state, and compute its forward pass."""
        chosen = mask.numpy()
        self._batch.reset(chosen, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.qpos[mask], self.qvel[mask] = qpos[mask], qvel[mask]
        self._batch.forward(chosen)

    def set_fields(self, mask: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Set model fields of the simulations where ``mask`` is true, and call ``mj_setConst`` for them."""
        for name, values in fields.items():
            self._fields[name][mask] = values[mask].to(self._fields[name].dtype)
        self._batch.set_const(mask.numpy())

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``: simulations whose counters of bad positions, velocities or accelerations rose."""
        return torch.from_numpy(self._batch.warning[:, BROKEN, 1].any(1))

    def check(self) -> None:
        """Do nothing: on the CPU MuJoCo raises an error at the step that runs out of memory."""


def _read_only(array: np.ndarray) -> Tensor:
    """View a read-only array as a tensor, without torch's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def check_engine(device: torch.device) -> None:
    """Check that the engine for ``device`` is installed and runs there.

    Raises:
        InputError: if a package is missing, or the driver of the device is too old.
    """
    if device.type == "cpu":
        return
    try:
        from metarl.envs.simulation.warp import check_driver
    except ModuleNotFoundError as error:
        raise InputError(
            f"MuJoCo on {device} needs {error.name}, which is not installed; pip install 'metarl-gym[gpu]'"
        ) from None
    check_driver(device)


def make_simulation(
    model: mujoco.MjModel, num_sims: int, device: torch.device, fields: Sequence[str] = ()
) -> BatchedSim:
    """Make the engine that runs on ``device``: MuJoCo's batch on the CPU, MuJoCo Warp on CUDA.

    Args:
        model: compiled model.
        num_sims: number of simulations.
        device: device of their state.
        fields: names of the model fields that differ between simulations.

    Raises:
        InputError: as ``check_engine`` does.
    """
    check_engine(device)
    if device.type == "cpu":
        return CpuSim(model, num_sims, fields)
    if unknown := [name for name in fields if not hasattr(model, name)]:
        raise InputError(f"on CUDA {', '.join(unknown)} cannot differ between simulations; use --device cpu")
    from metarl.envs.simulation.warp import WarpSim

    return WarpSim(model, num_sims, device, fields)
