"""The MuJoCo Warp engine: many simulations of one model on a CUDA device, in float32.

Kernels run on torch's current stream, on memory shared with torch without copies, and nothing synchronises with the
device. They are recorded as graphs once and launched from then on. Warp also records graphs on its CPU device, so tests
run the same code there.
"""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from metarl.envs.simulation import warp_kernels
from metarl.errors import InputError, RunError

# By default Warp prints a line for each of the hundreds of kernels it loads.
wp.config.log_level = wp.LOG_WARNING

# Capacity for contacts per simulation, if more are geometrically possible. Humanoids writhing on the ground have up to
# 13, with self-penetrating limbs up to 39.
MOST_CONTACTS = 32
# Constants that MuJoCo derives from masses, inertias and armatures.
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0")
DERIVED_GROUPS = mjw.SetConstGroup.FIXED | mjw.SetConstGroup.INERT0


def check_driver(device: torch.device) -> wp.Device:
    """Return Warp's name for torch's device.

    Raises:
        InputError: if the driver of the device is too old for graphs.
    """
    # From a tensor, because "cuda" means the current device, which differs between torch and Warp.
    found = wp.get_device(str(torch.empty(0, device=device).device))
    if found.is_cuda and not wp.is_conditional_graph_supported():
        raise InputError(f"MuJoCo on {device} needs a driver for CUDA 12.4 or later; use --device cpu")
    return found


class WarpSim:
    """B simulations on a CUDA device, in float32; in tests also on the CPU.

    Model files that specify the PGS solver use Newton's instead; the integrator is the file's. A simulation that
    diverges continues from the model's rest position; the others are not affected.

    On a CUDA device two runs differ in the last bits, and drift apart: contacts are in the order in which threads
    happen to find them, so sums are rounded differently, and MuJoCo Warp 4.0 cannot sort them.

    Args:
        model: compiled model, which is copied.
        num_sims: number of simulations B.
        device: device of their state.
        fields: names of the model fields that differ between simulations, except those that shape geoms.
        captured: launch recorded graphs; otherwise launch each kernel from Python, which gives the same numbers and is
            used in tests.

    Raises:
        InputError: if the driver of the device is too old for graphs.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_sims: int,
        device: torch.device,
        fields: Sequence[str] = (),
        *,
        captured: bool = True,
    ) -> None:
        self._device = check_driver(device)
        self._captured, self._graphs, self._num_sims = captured, dict[Hashable, wp.Graph](), num_sims
        warp_kernels.lay_tangents_along_capsules()
        with self._scope():
            self._make(_with_newton(model), fields)
        data = self._data
        self.qpos: Tensor = wp.to_torch(data.qpos)
        self.qvel: Tensor = wp.to_torch(data.qvel)
        self.ctrl: Tensor = wp.to_torch(data.ctrl)
        self._centre_of_mass: Tensor = wp.to_torch(self._centres)
        self._unstable: Tensor = wp.to_torch(self._broken)
        self._fields: dict[str, Tensor] = {name: wp.to_torch(getattr(self._model, name)) for name in fields}
        everywhere = torch.ones(num_sims, dtype=torch.bool, device=device)
        if fields:  # So that derived constants come from the same engine in all simulations, from the start.
            self.set_fields(everywhere, {})
        self.restart(everywhere, self.qpos.clone(), self.qvel.clone())

    def _make(self, model: mujoco.MjModel, fields: Sequence[str]) -> None:
        count = self._num_sims
        batched = dict.fromkeys([*fields, *DERIVED], count) if fields else {}
        self._model = mjw.put_model(model, batch_sizes=batched)
        self._model.opt.warn_overflow = 0  # every kernel would print it; check() raises
        pairs = len(self._model.nxn_geom_pair_filtered)
        contacts, rows = _room(model, pairs)
        # All simulations share the capacity for contacts; a few of them could each need the maximum.
        shared = max(contacts * count, 2 * pairs)
        self._data = mjw.make_data(model, nworld=count, nconmax=contacts, naconmax=shared, njmax=rows)
        self._mask, self._bad, self._broken = (wp.zeros(count, dtype=wp.bool) for _ in range(3))
        self._start = wp.clone(self._data.qpos), wp.clone(self._data.qvel)
        self._centres = wp.zeros(count, dtype=wp.vec3)
        self._needs = wp.zeros(2, dtype=wp.int32)
        # Called in every forward pass after its constraints are made. RK4 makes four passes per step, and the needs of
        # one are visible only until the next.
        self._model.callback.control = partial(_note_needs, self._needs)

    @property
    def centre_of_mass(self) -> Tensor:
        """``[B, 3]``, live; for a diverged simulation, that of the last valid step."""
        return self._centre_of_mass

    def step(self, substeps: int, active: Tensor | None = None) -> None:
        """Step every simulation by ``substeps`` time steps, including inactive ones."""
        before = self._unstable.clone()
        self._run(substeps, partial(self._advance, substeps))
        if active is not None:
            self._unstable.copy_(before | (self._unstable & active))

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` is true, set their state, and compute its centre of mass."""
        for staged, given in zip((self._mask, *self._start), (mask, qpos, qvel), strict=True):
            wp.to_torch(staged).copy_(given)
        self._run("restart", self._begin)

    def set_fields(self, mask: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Set model fields where ``mask`` is true, and recompute everything derived from masses and inertias."""
        for name, values in fields.items():
            own = self._fields[name]
            # In place, because the graphs refer to this memory.
            own.copy_(torch.where(mask.view(-1, *[1] * (own.ndim - 1)), values.to(own.dtype), own))
        self._run("set_fields", self._derive)

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``: simulations with a NaN or a number beyond 1e10 while active since their restart."""
        return self._unstable.clone()

    def check(self) -> None:
        """Check that no contact or constraint was dropped for lack of memory since the last check.

        Synchronises with the device.

        Raises:
            RunError: if one was.
        """
        needs = wp.to_torch(self._needs)
        contacts, rows = needs.tolist()
        needs.zero_()
        if contacts > self._data.naconmax:
            raise _crowded(f"{self._num_sims} simulations", "contacts", contacts, self._data.naconmax)
        if rows > self._data.njmax:
            raise _crowded("a simulation", "constraints", rows, self._data.njmax)

    def _advance(self, substeps: int) -> None:
        data = self._data
        self._bad.fill_(False)  # type: ignore[no-untyped-call]
        for _ in range(substeps):
            mjw.step(self._model, data)
            _launch(self._num_sims, warp_kernels.judge, [data.qpos, data.qvel, data.qacc], [self._bad, self._broken])
        _launch(self._num_sims, warp_kernels.copy_centres, [self._bad, False, data.subtree_com], [self._centres])
        mjw.reset_data(self._model, data, reset=self._bad)

    def _begin(self) -> None:
        data = self._data
        mjw.reset_data(self._model, data, reset=self._mask)
        _launch(self._num_sims, warp_kernels.place, [self._mask, *self._start], [data.qpos, data.qvel, self._broken])
        # The rest of the forward pass is not needed: the next step computes its own, in all simulations.
        mjw.kinematics(self._model, data)
        mjw.com_pos(self._model, data)
        _launch(self._num_sims, warp_kernels.copy_centres, [self._mask, True, data.subtree_com], [self._centres])

    def _derive(self) -> None:
        mjw.set_const(self._model, self._data, groups=DERIVED_GROUPS, restore=False)

    def _run(self, name: Hashable, work: Callable[[], None]) -> None:
        """Run ``work`` on torch's stream: run and record it at the first call, launch the recorded graph later."""
        with self._scope():
            if self._device.is_cuda and self._device.stream.is_capturing:
                # Into the graph that torch is recording, of which Warp must be informed, for loops on the device.
                with wp.ScopedCapture(stream=self._device.stream, external=True, capture_mode=wp.CaptureMode.GLOBAL):
                    work()
            elif name in self._graphs:
                wp.capture_launch(self._graphs[name])
            else:
                work()  # Loads the kernels, which some drivers cannot do while recording.
                if self._captured:
                    self._graphs[name] = self._record(work)

    def _record(self, work: Callable[[], None]) -> wp.Graph:
        # CUDA cannot record on the default stream, which torch normally uses; the graph runs on any stream.
        aside = wp.Stream(self._device) if self._device.is_cuda else None
        with wp.ScopedStream(aside, sync_enter=False), wp.ScopedCapture() as capture:
            work()
        graph: wp.Graph = capture.graph
        return graph

    def _scope(self) -> AbstractContextManager[object]:
        if self._device.is_cpu:
            return wp.ScopedDevice(self._device)
        stream = torch.cuda.current_stream(wp.device_to_torch(self._device))
        return wp.ScopedStream(_warp_stream(stream), sync_enter=False)


@cache
def _warp_stream(stream: torch.cuda.Stream) -> wp.Stream:
    # Cached, because Warp forgets a stream when any of its wrappers is garbage-collected.
    return wp.Stream(wp.device_from_torch(stream.device), cuda_stream=stream.cuda_stream)


def _launch(count: int, kernel: wp.Kernel, inputs: list[object], outputs: list[object]) -> None:
    wp.launch(kernel, dim=count, inputs=inputs, outputs=outputs)


def _note_needs(needs: wp.array[int], model: mjw.Model, data: mjw.Data) -> None:
    _launch(data.nworld, warp_kernels.note_needs, [data.ncollision, data.nacon, data.nefc], [needs])


def _with_newton(model: mujoco.MjModel) -> mujoco.MjModel:
    own = copy.copy(model)
    if own.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        own.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return own


def _room(model: mujoco.MjModel, pairs: int) -> tuple[int, int]:
    """Return the capacity for contacts and constraint rows per simulation.

    This is the possible maximum for capsules and spheres with few ``pairs``, such as robots that touch only the floor,
    and less for those that touch themselves.
    """
    contacts = min(2 * pairs, MOST_CONTACTS)
    in_contact = max(1, 2 * (int(model.geom_condim.max()) - 1))
    limits = int(model.jnt_limited.sum() + model.tendon_limited.sum())
    friction = int((model.dof_frictionloss > 0).sum() + (model.tendon_frictionloss > 0).sum())
    return contacts, limits + friction + 6 * int(model.neq) + in_contact * contacts


def _crowded(who: str, what: str, needed: int, room: int) -> RunError:
    return RunError(
        f"MuJoCo Warp dropped contacts: {who} needed space for at least {needed} {what}, but had {room}; "
        "use --device cpu, where MuJoCo allocates as needed"
    )
