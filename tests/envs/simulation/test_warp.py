import copy
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs the extra gpu")

from metarl.envs.simulation import warp as simulation_warp
from metarl.envs.simulation.batched import gymnasium_model
from metarl.envs.simulation.warp import DERIVED, WarpSim
from metarl.errors import RunError

CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]
on_cuda = pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA)])
on_both = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])

# Largest errors of one step in float32 against MuJoCo in float64, of positions and, relative to 1 + |v|, of velocities.
# They are about twice those of the worst of 2,000 states. Without contacts 1e-6 is float32's rounding of positions and
# velocities of order 1 to 10; a contact turns the rounding of its depth, about 1e-7 m, into velocity by its stiffness,
# and the time constant of the half-cheetah's is the shortest beside its time step.
ERRORS = {
    "half_cheetah": (5e-6, 2e-4),
    "ant": (1e-6, 1e-5),
    "humanoid": (1e-6, 5e-5),
    "hopper": (1e-6, 2e-6),
    "walker2d_v5": (1e-6, 1e-4),
    "swimmer": (1e-6, 3e-6),
}
FIELDS = ("body_mass", "body_inertia", "geom_friction", "dof_damping")


class States(NamedTuple):
    """States with controls, float32 ``[B, ...]``."""

    qpos: torch.Tensor
    qvel: torch.Tensor
    ctrl: torch.Tensor


def newton(model: mujoco.MjModel) -> mujoco.MjModel:
    """Copy a model for comparison with Warp, which has no PGS."""
    own = copy.copy(model)
    own.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return own


def visited(model: mujoco.MjModel, count: int) -> States:
    """Return states along random walks in MuJoCo, in the air, at rest and fallen."""
    stream, data = np.random.default_rng(0), mujoco.MjData(model)
    found: list[list[torch.Tensor]] = []
    low, high = model.actuator_ctrlrange.T
    while len(found) < count:
        mujoco.mj_resetData(model, data)
        data.qpos[:] += 0.1 * stream.uniform(-1, 1, model.nq)
        for _ in range(20):
            data.ctrl[:] = stream.uniform(low, high)
            mujoco.mj_step(model, data, nstep=15)
            found.append([torch.from_numpy(each).float() for each in (data.qpos, data.qvel, data.ctrl)])
    return States(*(torch.stack(each[:count]) for each in zip(*found, strict=True)))


def mujoco_step(model: mujoco.MjModel, states: States, row: int) -> dict[str, torch.Tensor]:
    """Step MuJoCo once from one of the states."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = (each[row].numpy() for each in states)
    mujoco.mj_step(model, data)
    found = {"qpos": data.qpos, "qvel": data.qvel, "centre_of_mass": data.subtree_com[0]}
    return {key: torch.from_numpy(value.copy()).float() for key, value in found.items()}


def restored(states: States, sim: WarpSim) -> WarpSim:
    """Put simulations into states."""
    everywhere = torch.ones(len(states.qpos), dtype=torch.bool)
    sim.restart(everywhere, states.qpos, states.qvel)
    sim.ctrl.copy_(states.ctrl)
    return sim


def assert_agree(sim: WarpSim, expected: list[dict[str, torch.Tensor]], name: str) -> None:
    of_qpos, of_qvel = ERRORS[name]
    for key, rtol, atol in (("qpos", 0, of_qpos), ("qvel", of_qvel, of_qvel), ("centre_of_mass", 0, 2e-6)):
        rows = torch.stack([each[key] for each in expected])
        torch.testing.assert_close(
            getattr(sim, key).cpu(), rows, rtol=rtol, atol=atol, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.fixture
def cheetah() -> mujoco.MjModel:
    return gymnasium_model("half_cheetah")


@pytest.fixture
def hopper() -> mujoco.MjModel:
    return gymnasium_model("hopper")


def running(model: mujoco.MjModel, count: int = 3, fields: tuple[str, ...] = (), *, captured: bool = True) -> WarpSim:
    """Make simulations that have been pushed about differently."""
    sim = WarpSim(model, count, torch.device("cpu"), fields, captured=captured)
    push(sim, 2)
    return sim


def push(sim: WarpSim, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Step simulations by random controls, and return what was seen."""
    stream, seen = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        sim.ctrl.copy_(2 * torch.rand(sim.ctrl.shape, generator=stream) - 1)
        sim.step(2)
        seen += [sim.qpos.clone(), sim.qvel.clone(), sim.centre_of_mass.clone()]
    return seen


def only(*rows: int, count: int = 3) -> torch.Tensor:
    """Return a mask of rows."""
    return torch.isin(torch.arange(count), torch.tensor(rows))


@on_both
@pytest.mark.parametrize("name", ERRORS)
def test_a_step_agrees_with_mujoco(name: str, device: str) -> None:
    model = newton(gymnasium_model(name))
    states = visited(model, 40)
    sim = restored(states, WarpSim(gymnasium_model(name), 40, torch.device(device)))
    sim.step(1)
    assert_agree(sim, [mujoco_step(model, states, row) for row in range(40)], name)
    sim.check()


@pytest.mark.parametrize("name", ["half_cheetah", "hopper"])  # Euler and Runge-Kutta
def test_recorded_graphs_give_the_numbers_of_single_launches(name: str) -> None:
    graphs, launches = (WarpSim(gymnasium_model(name), 3, torch.device("cpu"), captured=c) for c in (True, False))
    for sim in (graphs, launches):
        push(sim, 2)
        sim.restart(only(1), torch.full_like(sim.qpos, 0.1), torch.zeros_like(sim.qvel))
        sim.step(2)
    assert torch.equal(torch.stack(push(graphs, 2)[0::3]), torch.stack(push(launches, 2)[0::3]))


def test_state_is_float32(cheetah: mujoco.MjModel) -> None:
    sim = WarpSim(cheetah, 2, torch.device("cpu"))
    assert {each.dtype for each in (sim.qpos, sim.qvel, sim.ctrl, sim.centre_of_mass)} == {torch.float32}
    assert [each.shape[1] for each in (sim.qpos, sim.qvel, sim.ctrl, sim.centre_of_mass)] == [9, 9, 6, 3]


def test_reading_gives_the_present_state(cheetah: mujoco.MjModel) -> None:
    sim = running(cheetah)
    qpos, centre = sim.qpos, sim.centre_of_mass
    before = qpos.clone(), centre.clone()
    sim.step(5)
    assert not torch.equal(qpos, before[0])
    assert not torch.equal(centre, before[1])


def test_writing_sets_the_state(cheetah: mujoco.MjModel) -> None:
    # Forward at 3 m/s for a time step of 0.01 s.
    sim = WarpSim(cheetah, 2, torch.device("cpu"))
    sim.qvel[1, 0] = 3.0
    sim.step(1)
    assert sim.qpos[1, 0].item() == pytest.approx(0.03, abs=0.002)
    assert abs(sim.qpos[0, 0].item()) < 0.002


def test_controls_move_the_joints(cheetah: mujoco.MjModel) -> None:
    sim = WarpSim(cheetah, 2, torch.device("cpu"))
    sim.ctrl[1] = 1.0
    sim.step(5)
    assert (sim.qpos[1] - sim.qpos[0]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["half_cheetah", "hopper"])
def test_a_restart_leaves_the_others_alone(name: str) -> None:
    sim, twin = running(gymnasium_model(name)), running(gymnasium_model(name))
    centre = sim.centre_of_mass.clone()
    sim.restart(only(0), torch.zeros_like(sim.qpos), torch.zeros_like(sim.qvel))
    assert torch.equal(sim.centre_of_mass[1:], centre[1:])
    for ours, theirs in zip(push(sim, 2, seed=1), push(twin, 2, seed=1), strict=True):
        assert torch.equal(ours[1:], theirs[1:])


def test_a_restarted_simulation_continues_like_a_new_one(hopper: mujoco.MjModel) -> None:
    # Nothing of the past stays: no warm start of the solver, no control.
    used, new = running(hopper), WarpSim(hopper, 3, torch.device("cpu"))
    qpos, qvel = used.qpos.clone(), used.qvel.clone()
    for sim in (used, new):
        sim.restart(only(0, 1, 2), qpos, qvel)
        sim.step(5)
    assert torch.equal(used.qpos, new.qpos)
    assert torch.equal(used.centre_of_mass, new.centre_of_mass)


def test_a_restart_moves_the_centre_of_mass(hopper: mujoco.MjModel) -> None:
    sim, data = running(hopper), mujoco.MjData(hopper)
    data.qpos[:] = np.linspace(-0.5, 1, hopper.nq)
    mujoco.mj_forward(hopper, data)
    sim.restart(only(1), torch.from_numpy(data.qpos).expand_as(sim.qpos), torch.zeros_like(sim.qvel))
    torch.testing.assert_close(sim.centre_of_mass[1], torch.from_numpy(data.subtree_com[0]).float())


def test_the_shared_model_is_not_changed() -> None:
    humanoid = gymnasium_model("humanoid")
    assert simulation_warp._with_newton(humanoid).opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert humanoid.opt.solver == mujoco.mjtSolver.mjSOL_PGS


def own_values(model: mujoco.MjModel, count: int) -> dict[str, torch.Tensor]:
    """Draw model fields as the families of random parameters do."""
    stream = torch.Generator().manual_seed(0)
    nominal = {name: torch.from_numpy(getattr(model, name).copy()).float() for name in FIELDS}
    return {
        name: value * 1.5 ** (6 * torch.rand(count, *value.shape, generator=stream) - 3)
        for name, value in nominal.items()
    }


def own_model(model: mujoco.MjModel, values: Mapping[str, torch.Tensor], row: int) -> mujoco.MjModel:
    """Return the model of one simulation, made by MuJoCo alone."""
    own = newton(model)
    for name, value in values.items():
        getattr(own, name)[:] = value[row].numpy()
    mujoco.mj_setConst(own, mujoco.MjData(own))
    return own


@pytest.mark.parametrize("name", ["hopper", "walker2d_v5"])
def test_own_fields_equal_models_of_their_own(name: str) -> None:
    model = gymnasium_model(name)
    states, values = visited(model, 16), own_values(model, 16)
    sim = WarpSim(model, 16, torch.device("cpu"), FIELDS)
    sim.set_fields(only(*range(16), count=16), values)
    restored(states, sim).step(1)
    assert_agree(sim, [mujoco_step(own_model(model, values, row), states, row) for row in range(16)], name)


@pytest.mark.parametrize("constant", DERIVED)
def test_derived_constants_are_those_of_mujoco(hopper: mujoco.MjModel, constant: str) -> None:
    values = own_values(hopper, 3)
    sim = WarpSim(hopper, 3, torch.device("cpu"), FIELDS)
    sim.set_fields(only(0, 2), values)
    for row, expected in ((0, own_model(hopper, values, 0)), (1, hopper), (2, own_model(hopper, values, 2))):
        found = getattr(sim._model, constant).numpy()[row]
        np.testing.assert_allclose(found, getattr(expected, constant), rtol=1e-4, atol=1e-6)


def test_fields_are_set_where_the_mask_says(hopper: mujoco.MjModel) -> None:
    sim, twin = running(hopper, fields=FIELDS), running(hopper, fields=FIELDS)
    sim.set_fields(only(1), own_values(hopper, 3))
    sim.restart(only(1), sim.qpos.clone(), sim.qvel.clone())
    ours, theirs = push(sim, 2, seed=1), push(twin, 2, seed=1)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine[[0, 2]], other[[0, 2]])
    assert not torch.equal(ours[-1][1], theirs[-1][1])


def test_a_healthy_simulation_is_stable(cheetah: mujoco.MjModel) -> None:
    assert not running(cheetah).unstable().any()


@pytest.fixture(params=[1e12, float("nan")])
def broken(request: pytest.FixtureRequest, cheetah: mujoco.MjModel) -> WarpSim:
    """Return three simulations of which the second has just broken down."""
    sim = running(cheetah)
    sim.qvel[1, 0] = request.param
    sim.step(5)
    return sim


def test_a_bad_state_is_noticed(broken: WarpSim) -> None:
    assert broken.unstable().tolist() == [False, True, False]


def test_a_simulation_continues_from_rest_after_a_bad_state(broken: WarpSim, cheetah: mujoco.MjModel) -> None:
    assert torch.equal(broken.qpos[1], torch.from_numpy(cheetah.qpos0).float())
    assert not broken.qvel[1].any()
    assert broken.centre_of_mass.isfinite().all()
    broken.step(5)
    assert broken.qpos[1].isfinite().all()


def test_a_breakdown_is_remembered_until_the_restart(broken: WarpSim) -> None:
    broken.step(5)
    broken.restart(only(0), broken.qpos.clone(), broken.qvel.clone())
    assert broken.unstable().tolist() == [False, True, False]
    broken.restart(only(1), broken.qpos.clone(), broken.qvel.clone())
    assert not broken.unstable().any()


def test_a_breakdown_of_an_inactive_simulation_does_not_count(cheetah: mujoco.MjModel) -> None:
    sim = running(cheetah)
    sim.qvel[:2, 0] = 1e12
    sim.step(5, torch.tensor([False, True, True]))
    assert sim.unstable().tolist() == [False, True, False]


def test_stable_worlds_do_not_notice_an_unstable_one(broken: WarpSim, cheetah: mujoco.MjModel) -> None:
    twin = running(cheetah)
    twin.step(5)
    assert torch.equal(broken.qpos[[0, 2]], twin.qpos[[0, 2]])
    for ours, theirs in zip(push(broken, 2), push(twin, 2), strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])


def buried(model: mujoco.MjModel) -> WarpSim:
    """Return three cheetahs inside the floor, which touch it with both ends of all their capsules."""
    sim = WarpSim(model, 3, torch.device("cpu"))
    sim.qpos[:, 1] = -2.0
    sim.step(1)
    return sim


def test_there_is_room_for_all_contacts_of_a_robot_with_the_floor(cheetah: mujoco.MjModel) -> None:
    sim = buried(cheetah)
    assert sim._needs.numpy()[0] == 3 * 16
    sim.check()


@pytest.mark.parametrize(
    ("room", "complaint"),
    [
        ((1, 70), "3 simulations needed space for at least 32 contacts, but had 16"),
        ((16, 20), "a simulation needed space for at least 64 constraints, but had 20"),
    ],
)
def test_dropped_contacts_are_reported_once(
    cheetah: mujoco.MjModel, monkeypatch: pytest.MonkeyPatch, room: tuple[int, int], complaint: str
) -> None:
    monkeypatch.setattr(simulation_warp, "_room", lambda model, pairs: room)
    sim = buried(cheetah)
    with pytest.raises(RunError, match=f"dropped contacts: {complaint}"):
        sim.check()
    sim.check()


def test_every_forward_pass_of_a_step_is_watched_for_room(hopper: mujoco.MjModel) -> None:
    # Runge-Kutta makes four, and the engine's own counters show the last.
    sim, watched = WarpSim(hopper, 3, torch.device("cpu"), captured=False), []
    sim._model.callback.control = lambda model, data: watched.append(1)
    sim.step(3)
    assert len(watched) == 4 * 3


@pytest.fixture
def ants() -> Iterator[WarpSim]:
    sim = WarpSim(gymnasium_model("ant"), 64, torch.device("cuda"))
    stream = torch.Generator("cuda").manual_seed(0)
    for _ in range(3):
        sim.ctrl.copy_(2 * torch.rand(sim.ctrl.shape, generator=stream, device="cuda") - 1)
        sim.step(5)
        sim.restart(sim.qpos[:, 0] > 1e9, sim.qpos.clone(), sim.qvel.clone())
    yield sim
    torch.cuda.set_sync_debug_mode("default")


@on_cuda
def test_nothing_waits_for_the_device(device: str, ants: WarpSim) -> None:
    mask, qpos, qvel = ants.qpos[:, 0] > 0, ants.qpos.clone(), ants.qvel.clone()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # It sees what torch does; that the event is not over, what Warp does.
    torch.cuda._sleep(2 * 10**9)
    slept = torch.cuda.Event()
    slept.record()
    ants.step(5)
    ants.restart(mask, qpos, qvel)
    ants.unstable()
    assert not slept.query()


@on_cuda
def test_steps_and_restarts_join_a_graph_that_torch_records(device: str, ants: WarpSim) -> None:
    mask = ants.qpos[:, 0] > 0
    qpos, qvel, ctrl = ants.qpos.clone(), ants.qvel.clone(), ants.ctrl.clone()

    def work() -> None:
        ants.ctrl.copy_(ctrl)
        ants.step(5)
        ants.restart(mask, qpos, qvel)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    found = []
    for run in (work, graph.replay):
        ants.restart(torch.ones_like(mask), qpos, qvel)
        run()
        found.append((ants.qpos.clone(), ants.qvel.clone(), ants.centre_of_mass.clone()))
    for single, joined in zip(*found, strict=True):
        torch.testing.assert_close(joined, single, rtol=1e-3, atol=1e-3)


@on_cuda
def test_the_engine_follows_torchs_stream(device: str, ants: WarpSim) -> None:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        torch.cuda._sleep(10**9)
        ants.qvel[:, 0] = 5.0  # After the sleep; a step on another stream would not see it.
        before = ants.qpos[:, 0].clone()
        ants.step(5)
        covered = ants.qpos[:, 0] - before
    torch.cuda.current_stream().wait_stream(aside)
    assert covered.mean().item() > 0.1
