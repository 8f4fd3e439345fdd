import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import mujoco
import pytest
import torch

from metarl.envs.simulation.batched import CpuSim, gymnasium_model, make_simulation, quiet_compiler
from metarl.errors import InputError
from metarl.families.family import make_family


@pytest.fixture
def model() -> mujoco.MjModel:
    return gymnasium_model("half_cheetah")


@pytest.fixture
def handler() -> Iterator[object]:
    """Set a warning handler of the user's own (which must not raise: MuJoCo would abort the process)."""

    def collect(message: str) -> None:
        print(message)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(collect)
    yield collect
    mujoco.set_mju_user_warning(before)


def running(model: mujoco.MjModel, count: int, steps: int = 3) -> CpuSim:
    """Make simulations that have been pushed about differently."""
    sim = CpuSim(model, count)
    stream = torch.Generator().manual_seed(0)
    for _ in range(steps):
        sim.ctrl.copy_(2 * torch.rand(sim.ctrl.shape, generator=stream) - 1)
        sim.step(5)
    return sim


def test_a_batch_equals_single_simulations_bit_for_bit(model: mujoco.MjModel) -> None:
    sim, stream = CpuSim(model, 3), torch.Generator().manual_seed(0)
    singles = [mujoco.MjData(model) for _ in range(3)]
    for _ in range(50):
        sim.ctrl.copy_(2 * torch.rand(sim.ctrl.shape, generator=stream) - 1)
        sim.step(5)
        for row, data in enumerate(singles):
            data.ctrl[:] = sim.ctrl[row].numpy()
            mujoco.mj_step(model, data, nstep=5)
    assert torch.equal(sim.qpos, torch.stack([torch.from_numpy(data.qpos.copy()) for data in singles]))
    assert torch.equal(sim.qvel, torch.stack([torch.from_numpy(data.qvel.copy()) for data in singles]))


def test_state_is_float64(model: mujoco.MjModel) -> None:
    sim = CpuSim(model, 2)
    assert {sim.qpos.dtype, sim.qvel.dtype, sim.ctrl.dtype} == {torch.float64}


def test_state_has_a_row_for_each_simulation(model: mujoco.MjModel) -> None:
    sim = CpuSim(model, 2)
    assert (sim.qpos.shape, sim.qvel.shape, sim.ctrl.shape) == ((2, 9), (2, 9), (2, 6))


def test_reading_gives_the_present_state(model: mujoco.MjModel) -> None:
    sim = CpuSim(model, 1)
    qpos = sim.qpos
    before = qpos.clone()
    sim.step(5)
    assert not torch.equal(qpos, before)


def test_writing_sets_the_state(model: mujoco.MjModel) -> None:
    # Forward at 3 m/s for a time step of 0.01 s.
    sim = CpuSim(model, 2)
    sim.qvel[1, 0] = 3.0
    sim.step(1)
    assert sim.qpos[1, 0].item() == pytest.approx(0.03, abs=0.002)
    assert abs(sim.qpos[0, 0].item()) < 0.002


def test_restart_sets_the_chosen_states(model: mujoco.MjModel) -> None:
    sim = running(model, 3)
    qpos, qvel = torch.full_like(sim.qpos, 0.25), torch.full_like(sim.qvel, 0.5)
    sim.restart(torch.tensor([False, True, True]), qpos, qvel)
    assert torch.equal(sim.qpos[1:], qpos[1:])
    assert torch.equal(sim.qvel[1:], qvel[1:])


def test_restart_leaves_the_others_alone(model: mujoco.MjModel) -> None:
    sim, twin = running(model, 3), running(model, 3)
    sim.restart(torch.tensor([True, False, False]), torch.zeros_like(sim.qpos), torch.zeros_like(sim.qvel))
    for each in (sim, twin):
        each.step(5)
    assert torch.equal(sim.qpos[1:], twin.qpos[1:])
    assert torch.equal(sim.qvel[1:], twin.qvel[1:])


def test_a_restarted_simulation_continues_like_a_new_one(model: mujoco.MjModel) -> None:
    # Nothing of the past stays: no warm start of the solver, no control.
    used, new = running(model, 2), CpuSim(model, 2)
    everywhere = torch.ones(2, dtype=torch.bool)
    qpos, qvel = 0.1 * torch.ones_like(used.qpos), torch.zeros_like(used.qvel)
    for each in (used, new):
        each.restart(everywhere, qpos, qvel)
        for _ in range(10):
            each.step(5)
    assert torch.equal(used.qpos, new.qpos)
    assert torch.equal(used.qvel, new.qvel)


def test_a_healthy_simulation_is_stable(model: mujoco.MjModel) -> None:
    assert running(model, 2).unstable().tolist() == [False, False]


@pytest.mark.parametrize("bad", [1e12, float("nan")])
def test_a_bad_state_is_noticed(
    model: mujoco.MjModel, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT here.
    sim = running(model, 3)
    sim.qvel[1, 0] = bad
    sim.step(5)
    assert sim.unstable().tolist() == [False, True, False]


@pytest.fixture
def broken(model: mujoco.MjModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CpuSim:
    """Return two simulations of which the second has just broken down."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT there.
    sim = running(model, 2)
    sim.qvel[1, 0] = 1e12
    sim.step(5)
    return sim


def test_a_breakdown_is_remembered_until_the_restart(broken: CpuSim) -> None:
    broken.step(5)
    assert broken.unstable().tolist() == [False, True]
    broken.restart(torch.tensor([False, True]), torch.zeros_like(broken.qpos), torch.zeros_like(broken.qvel))
    assert broken.unstable().tolist() == [False, False]


def test_restarting_another_simulation_does_not_forget_a_breakdown(broken: CpuSim) -> None:
    broken.restart(torch.tensor([True, False]), torch.zeros_like(broken.qpos), torch.zeros_like(broken.qvel))
    assert broken.unstable().tolist() == [False, True]


def test_stable_worlds_do_not_notice_an_unstable_one(
    model: mujoco.MjModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sim, twin = running(model, 2), running(model, 2)
    sim.qvel[1, 0] = 1e12
    for each in (sim, twin):
        each.step(5)
    assert torch.equal(sim.qpos[0], twin.qpos[0])


def test_models_are_compiled_once() -> None:
    assert gymnasium_model("half_cheetah") is gymnasium_model("half_cheetah")


def test_compiling_keeps_the_users_warning_handler(handler: object) -> None:
    gymnasium_model.__wrapped__("half_cheetah")  # not from the cache
    assert mujoco.get_mju_user_warning() is handler


def test_compiling_does_not_bother_the_users_warning_handler(
    handler: object, capsys: pytest.CaptureFixture[str]
) -> None:
    gymnasium_model.__wrapped__("half_cheetah")
    assert not capsys.readouterr().out


def test_a_failure_keeps_the_users_warning_handler(handler: object) -> None:
    with pytest.raises(ValueError, match="no_such_robot"):
        gymnasium_model("no_such_robot")
    assert mujoco.get_mju_user_warning() is handler


def test_the_compiler_is_quiet_only_inside(handler: object) -> None:
    with quiet_compiler():
        assert mujoco.get_mju_user_warning() is not handler
    assert mujoco.get_mju_user_warning() is handler


def test_compiling_leaves_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gymnasium_model.__wrapped__("half_cheetah")
    assert not list(tmp_path.iterdir())


def test_simulations_that_are_not_active_stay(model: mujoco.MjModel) -> None:
    sim, twin = running(model, 3), running(model, 3)
    before = sim.qpos[1].clone()
    sim.step(5, torch.tensor([True, False, True]))
    twin.step(5)
    assert torch.equal(sim.qpos[1], before)
    assert torch.equal(sim.qpos[[0, 2]], twin.qpos[[0, 2]])


def test_the_centre_of_mass_is_that_of_all_bodies() -> None:
    model = gymnasium_model("humanoid")
    sim, data = CpuSim(model, 2), mujoco.MjData(model)
    place = sim.centre_of_mass  # asked for before the steps, and live
    sim.ctrl.fill_(0.3)
    sim.step(5)
    data.ctrl[:] = 0.3
    mujoco.mj_step(model, data, nstep=5)
    by_mass = (model.body_mass[:, None] * data.xipos).sum(0) / model.body_mass.sum()
    torch.testing.assert_close(place, torch.from_numpy(by_mass).expand(2, 3), rtol=1e-12, atol=1e-12)


def test_a_restart_moves_the_centre_of_mass() -> None:
    sim = CpuSim(gymnasium_model("humanoid"), 2)
    before, raised = sim.centre_of_mass.clone(), sim.qpos.clone()
    raised[:, 2] += 1
    sim.restart(torch.tensor([False, True]), raised, sim.qvel.clone())
    torch.testing.assert_close(sim.centre_of_mass - before, torch.tensor([[0.0, 0, 0], [0, 0, 1]]).double())


def with_masses(model: mujoco.MjModel, masses: torch.Tensor) -> CpuSim:
    """Make simulations with body masses ``[B, nbody]``."""
    sim = CpuSim(model, len(masses), ["body_mass"])
    everywhere = torch.ones(len(masses), dtype=torch.bool)
    sim.set_fields(everywhere, {"body_mass": masses})
    sim.restart(everywhere, torch.from_numpy(model.qpos0).expand_as(sim.qpos), torch.zeros_like(sim.qvel))
    return sim


def test_own_fields_equal_models_of_their_own(model: mujoco.MjModel) -> None:
    # mj_setConst matters: without it the solver's weights would be those of the shared model.
    masses = torch.from_numpy(model.body_mass) * torch.tensor([[1.0], [2.5]])
    sim = with_masses(model, masses)
    sim.ctrl.fill_(0.5)
    sim.step(20)
    for row in range(2):
        own = copy.copy(model)
        own.body_mass[:] = masses[row].numpy()
        data = mujoco.MjData(own)
        mujoco.mj_setConst(own, data)
        mujoco.mj_resetData(own, data)
        data.ctrl[:] = 0.5
        mujoco.mj_step(own, data, nstep=20)
        assert torch.equal(sim.qpos[row], torch.from_numpy(data.qpos))


def test_gravity_may_differ_by_the_name_that_the_refusal_of_another_gives(model: mujoco.MjModel) -> None:
    for name in ("opt_gravity", "gravity"):
        with pytest.raises(
            InputError, match=rf"^{name} is not a model field .* between simulations; name it 'opt.gravity'$"
        ):
            CpuSim(model, 2, (name,))
    sim = CpuSim(model, 2, ("opt.gravity",))
    everywhere = torch.ones(2, dtype=torch.bool)
    sim.set_fields(everywhere, {"opt.gravity": torch.tensor([[0.0, 0, -1], [0, 0, -20]]).double()})
    sim.restart(everywhere, *(torch.zeros(2, size).double() for size in (model.nq, model.nv)))
    sim.step(3)
    assert not torch.equal(sim.qvel[0], sim.qvel[1])


def test_fields_that_there_are_not_are_refused(model: mujoco.MjModel) -> None:
    with pytest.raises(InputError, match=r"^nonsense is not a model field that can differ between simulations$"):
        CpuSim(model, 2, ("nonsense",))


def test_own_fields_leave_the_shared_model_alone(model: mujoco.MjModel) -> None:
    before = model.body_mass.copy()
    with_masses(model, torch.from_numpy(2 * before)[None])
    assert (model.body_mass == before).all()


def test_fields_are_set_where_the_mask_says(model: mujoco.MjModel) -> None:
    masses = torch.from_numpy(model.body_mass).repeat(2, 1)
    sim, twin = with_masses(model, masses), with_masses(model, masses)
    mask = torch.tensor([False, True])
    sim.set_fields(mask, {"body_mass": 3 * masses})
    sim.restart(mask, sim.qpos.clone(), sim.qvel.clone())
    for each in (sim, twin):
        each.ctrl.fill_(0.5)
        each.step(5)
    assert torch.equal(sim.qpos[0], twin.qpos[0])
    assert not torch.equal(sim.qpos[1], twin.qpos[1])


def test_setting_fields_twice_does_not_compound(model: mujoco.MjModel) -> None:
    masses = 2 * torch.from_numpy(model.body_mass)[None]
    once, twice = with_masses(model, masses), with_masses(model, masses)
    everywhere = torch.ones(1, dtype=torch.bool)
    twice.set_fields(everywhere, {"body_mass": masses})
    twice.restart(everywhere, twice.qpos.clone(), twice.qvel.clone())
    for each in (once, twice):
        each.step(5)
    assert torch.equal(once.qpos, twice.qpos)


def test_without_warp_the_extra_is_named(model: mujoco.MjModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    monkeypatch.delitem(sys.modules, "metarl.envs.simulation.warp", raising=False)
    with pytest.raises(InputError, match=r"needs mujoco_warp, which is not installed; pip install 'metarl-gym\[gpu\]'"):
        make_simulation(model, 2, torch.device("cuda"))


def test_a_config_on_cuda_says_what_is_missing_and_makes_no_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    monkeypatch.delitem(sys.modules, "metarl.envs.simulation.warp", raising=False)
    with pytest.raises(InputError, match="MuJoCo on cuda needs mujoco_warp, which is not installed"):
        make_family("half-cheetah-vel").check_device(torch.device("cuda"))
    make_family("half-cheetah-vel").check_device(torch.device("cpu"))
    make_family("navigation-2d").check_device(torch.device("cuda"))
