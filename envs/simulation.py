"""Many MuJoCo simulations of one model behind torch tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

import gymnasium
import mujoco
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl.errors import InputError

BROKEN = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{field}")) for field in ("QPOS", "QVEL", "QACC")]
GYMNASIUM_MODELS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


class BatchedSim(Protocol):
    """B simulations stepped together.

    Shapes: ``qpos`` ``[B, nq]``, ``qvel`` ``[B, nv]``, ``ctrl`` ``[B, nu]`` are live: reading them gives the present
    state, writing them in place sets it.
    """

    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor

    def step(self, substeps: int) -> None:
        """Advance every simulation by ``substeps`` time steps of the model under its ``ctrl``."""
        ...

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` ``[B]`` is true, to the given rows of state."""
        ...

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where MuJoCo met a bad state since the simulation's last restart."""
        ...


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keep MuJoCo's warnings about a model file off the terminal and out of MUJOCO_LOG.TXT.

    The models are Gymnasium's; their users can do nothing about deprecated attributes in them.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


@cache
def gymnasium_model(name: str) -> mujoco.MjModel:
    """Compile one of Gymnasium's models, such as ``half_cheetah``; it is shared and must not be changed."""
    with quiet_compiler():
        return mujoco.MjModel.from_xml_path(str(GYMNASIUM_MODELS / f"{name}.xml"))


class CpuSim:
    """B simulations on the CPU's threads, in float64, equal bit for bit to stepping each alone with ``mj_step``.

    Args:
        model: compiled model.
        num_sims: their number B.

    The tensors are views of MuJoCo's own state rows.
    """

    def __init__(self, model: mujoco.MjModel, num_sims: int) -> None:
        self._batch = Batch(model, num_sims)
        self.qpos, self.qvel, self.ctrl = (
            torch.from_numpy(self._batch.bind(name)) for name in ("qpos", "qvel", "ctrl")
        )

    def step(self, substeps: int) -> None:
        """Advance every simulation by ``substeps`` calls of ``mj_step``."""
        self._batch.step(nstep=substeps)

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` is true, set their state, and compute its forward pass."""
        chosen = mask.numpy()
        self._batch.reset(chosen, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.qpos[mask], self.qvel[mask] = qpos[mask], qvel[mask]
        self._batch.forward(chosen)

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``: simulations whose counters of bad positions, velocities or accelerations rose."""
        return torch.from_numpy(self._batch.warning[:, BROKEN, 1].any(1))


def make_simulation(model: mujoco.MjModel, num_sims: int, device: torch.device) -> BatchedSim:
    """Make the engine that runs on ``device``.

    Raises:
        InputError: when there is none.
    """
    if device.type != "cpu":
        raise InputError(f"MuJoCo families run on the CPU so far, not on {device}; use --device cpu")
    return CpuSim(model, num_sims)
