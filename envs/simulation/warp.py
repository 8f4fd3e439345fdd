"""MuJoCo Warp behind the engine protocol: many simulations of one model on a CUDA device, in float32.

Kernels run on torch's current stream, over memory that torch sees without copies, and nothing waits for the device.
They are recorded as graphs, in Python once and launched from then on. Warp records graphs on its CPU device too, so
tests run the same code there.
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

# At its default level Warp prints a line for each of hundreds of kernels it loads.
wp.config.log_level = wp.LOG_WARNING

# Contacts that a simulation has room for, where its geoms could meet in more. Humanoids that writhe on the ground have
# up to 13, those thrown through their own limbs 39.
MOST_CONTACTS = 32
# What MuJoCo derives from masses, inertias and armatures.
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0")
DERIVED_GROUPS = mjw.SetConstGroup.FIXED | mjw.SetConstGroup.INERT0


def check_driver(device: torch.device) -> wp.Device:
    """Return Warp's name for torch's device.

    Raises:
        InputError: when the driver of the device is too old for the graphs.
    """
    # Of a tensor, because torch's "cuda" is its current device, and Warp's another.
    found = wp.get_device(str(torch.empty(0, device=device).device))
    if found.is_cuda and not wp.is_conditional_graph_supported():
        raise InputError(f"MuJoCo on {device} needs a driver for CUDA 12.4 or later; use --device cpu")
    return found


class WarpSim:
    """B simulations on a CUDA device, in float32; for tests also on the CPU.

    Model files that ask for the PGS solver get Newton's, the integrator is the file's. A simulation that meets a
    bad state goes on from the model's rest position; the others are not affected.

    On a CUDA device two runs differ in the last bits, and drift apart: contacts are in the order in which threads
    happen to find them, so sums are rounded differently, and MuJoCo Warp 4.0 cannot sort them.

    Args:
        model: compiled model; it is copied.
        num_sims: their number B.
        device: where their state lives.
        fields: names of the model fields that differ between simulations; not of those that shape geoms.
        captured: launch recorded graphs; else each kernel from Python, which gives the same numbers and is for tests.

    Raises:
        InputError: when the driver of the device is too old for the graphs.
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
        if fields:  # So that what is derived is computed by one engine in all simulations, from the beginning.
            self.set_fields(everywhere, {})
        self.restart(everywhere, self.qpos.clone(), self.qvel.clone())

    def _make(self, model: mujoco.MjModel, fields: Sequence[str]) -> None:
        count = self._num_sims
        batched = dict.fromkeys([*fields, *DERIVED], count) if fields else {}
        self._model = mjw.put_model(model, batch_sizes=batched)
        self._model.opt.warn_overflow = 0  # every kernel would print it; check() raises
        pairs = len(self._model.nxn_geom_pair_filtered)
        contacts, rows = _room(model, pairs)
        # All simulations share the room for contacts; a few of them could each have the most.
        shared = max(contacts * count, 2 * pairs)
        self._data = mjw.make_data(model, nworld=count, nconmax=contacts, naconmax=shared, njmax=rows)
        self._mask, self._bad, self._broken = (wp.zeros(count, dtype=wp.bool) for _ in range(3))
        self._start = wp.clone(self._data.qpos), wp.clone(self._data.qvel)
        self._centres = wp.zeros(count, dtype=wp.vec3)
        self._needs = wp.zeros(2, dtype=wp.int32)
        # Called in every forward pass after its constraints are made. RK4 makes four passes a step, and what one
        # needs shows only until the next.
        self._model.callback.control = partial(_note_needs, self._needs)

    @property
    def centre_of_mass(self) -> Tensor:
        """``[B, 3]``, live; where a simulation broke down, that of the last sound step."""
        return self._centre_of_mass

    def step(self, substeps: int, active: Tensor | None = None) -> None:
        """Advance every simulation by ``substeps`` time steps, also those that are not active."""
        self._run(substeps, partial(self._advance, substeps))

    def restart(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Reset the simulations where ``mask`` is true, set their state, and compute its centre of mass."""
        for staged, given in zip((self._mask, *self._start), (mask, qpos, qvel), strict=True):
            wp.to_torch(staged).copy_(given)
        self._run("restart", self._begin)

    def set_fields(self, mask: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Set model fields where ``mask`` is true, and recompute all that is derived from masses and inertias."""
        for name, values in fields.items():
            own = self._fields[name]
            # In place: the graphs know the memory, not the name.
            own.copy_(torch.where(mask.view(-1, *[1] * (own.ndim - 1)), values.to(own.dtype), own))
        self._run("set_fields", self._derive)

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``: simulations that met a NaN or a number beyond 1e10 since their last restart."""
        return self._unstable.clone()

    def check(self) -> None:
        """Make sure that no contact or constraint was dropped for want of memory since the last check.

        Waits for the device.

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
        # No more of a forward pass: the next step makes its own, in all simulations.
        mjw.kinematics(self._model, data)
        mjw.com_pos(self._model, data)
        _launch(self._num_sims, warp_kernels.copy_centres, [self._mask, True, data.subtree_com], [self._centres])

    def _derive(self) -> None:
        mjw.set_const(self._model, self._data, groups=DERIVED_GROUPS, restore=False)

    def _run(self, name: Hashable, work: Callable[[], None]) -> None:
        """Do ``work`` on torch's stream: now and recording it at the first call, from the record at later ones."""
        with self._scope():
            if self._device.is_cuda and self._device.stream.is_capturing:
                # Into the graph that torch is recording. Warp has to know of that, for loops without the host.
                with wp.ScopedCapture(stream=self._device.stream, external=True, capture_mode=wp.CaptureMode.GLOBAL):
                    work()
            elif name in self._graphs:
                wp.capture_launch(self._graphs[name])
            else:
                work()  # Loads the kernels, which cannot be done while recording on every driver.
                if self._captured:
                    self._graphs[name] = self._record(work)

    def _record(self, work: Callable[[], None]) -> wp.Graph:
        # CUDA records on any stream but the default one, which is torch's as a rule; the graph runs on all.
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
    # One for each, kept: Warp forgets a stream when any of its wrappers is collected.
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
    """Return how many contacts and rows of constraints to make room for in each simulation.

    The most that is possible for capsules and spheres whose ``pairs`` are few, such as robots that touch the floor
    only; less for those that touch themselves.
    """
    contacts = min(2 * pairs, MOST_CONTACTS)
    in_contact = max(1, 2 * (int(model.geom_condim.max()) - 1))
    limits = int(model.jnt_limited.sum() + model.tendon_limited.sum())
    friction = int((model.dof_frictionloss > 0).sum() + (model.tendon_frictionloss > 0).sum())
    return contacts, limits + friction + 6 * int(model.neq) + in_contact * contacts


def _crowded(who: str, what: str, needed: int, room: int) -> RunError:
    return RunError(
        f"MuJoCo Warp left out contacts: {who} needed room for at least {needed} {what} and had {room}; "
        "use --device cpu, where MuJoCo makes room as needed"
    )
