from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from metarl.envs.locomotion.directions_and_goals import HumanoidDir
from metarl.envs.locomotion.velocities import HalfCheetahVel, HopperVel
from tests.envs.robots import dynamics, place, worlds
from tests.forked import Child

FAMILY = HalfCheetahVel()


def targets(*velocities: float) -> TensorDict:
    return TensorDict({"velocity": torch.tensor(velocities)}, [len(velocities)])


def test_rewards_add_up_from_their_terms() -> None:
    env = worlds(FAMILY, targets(0.5, 2.0))
    _, rewards, _, _, info = env.step(torch.full((2, 6), 0.3))
    terms = info["reward_velocity"] + info["reward_ctrl"] + info["reward_survive"]
    torch.testing.assert_close(rewards, terms.float())


def test_observations_are_positions_but_the_first_then_velocities() -> None:
    env = worlds(FAMILY, targets(1.0))
    simulation = dynamics(env).simulation
    observations, *_ = env.step(torch.full((1, 6), 0.5))
    expected = torch.cat([simulation.qpos[:, 1:], simulation.qvel], 1).float()
    assert torch.equal(observations, expected)


def test_gaussian_starts() -> None:
    # Positions ±0.1 uniform, velocities Gaussian of deviation 0.1: over 500 x 9 numbers each, deviation
    # 0.1/√3 = 0.0577 and 0.1, with standard errors of about 1 % (uniform less); four of them.
    simulation = dynamics(worlds(FAMILY, targets(*[1.0] * 500))).simulation
    offsets = simulation.qpos - torch.from_numpy(FAMILY.model.qpos0)
    assert offsets.abs().max() <= 0.1
    assert offsets.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.04)
    assert simulation.qvel.std().item() == pytest.approx(0.1, rel=0.045)


def test_uniform_starts() -> None:
    family = HopperVel()
    simulation = dynamics(worlds(family, targets(*[1.0] * 500))).simulation
    for drawn in (simulation.qpos - torch.from_numpy(family.model.qpos0), simulation.qvel):
        assert 0.0049 < drawn.abs().max() <= 0.005
        assert drawn.std().item() == pytest.approx(0.005 / 3**0.5, rel=0.04)


def test_worlds_start_differently() -> None:
    observations, _ = worlds(FAMILY, targets(1.0, 1.0)).reset(seed=0)
    assert not torch.equal(observations[0], observations[1])


def test_a_world_that_fell_stays_where_it_fell_until_its_reset() -> None:
    env = worlds(HopperVel(), targets(1.0, 1.0))
    simulation = dynamics(env).simulation
    simulation.qpos[0, 1] = 0.5
    _, _, terminated, *_ = env.step(torch.zeros(2, 3))
    assert terminated.tolist() == [True, False]
    before = simulation.qpos.clone()
    env.step(torch.zeros(2, 3))
    assert torch.equal(simulation.qpos[0], before[0])
    assert not torch.equal(simulation.qpos[1], before[1])
    env.reset(options={"reset_mask": torch.tensor([True, False])})
    before = simulation.qpos.clone()
    env.step(torch.zeros(2, 3))
    assert not torch.equal(simulation.qpos[0], before[0])


def breaking(env_qpos_height: float, tmp_path: Path) -> list[bool]:
    """Return what hoppers say of a world that breaks down at this height, and of its neighbour."""
    env = worlds(HopperVel(), targets(1.0, 1.0))
    simulation = dynamics(env).simulation
    simulation.qpos[0, 1] = env_qpos_height
    env.step(torch.zeros(2, 3))
    simulation.qvel[0, 0] = 1e12
    env.step(torch.zeros(2, 3))
    unstable = env.unstable()
    assert unstable is not None
    return unstable.tolist()


def test_a_breakdown_within_the_episode_is_unstable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT there.
    assert breaking(1.25, tmp_path) == [True, False]


def test_what_happens_after_the_episode_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert breaking(0.5, tmp_path) == [False, False]


def test_a_humanoids_speed_is_that_of_its_centre_of_mass() -> None:
    family = HumanoidDir()
    env = worlds(family, TensorDict({"heading": torch.zeros(1)}, [1]))
    place(env, torch.from_numpy(family.model.qpos0), torch.zeros(family.model.nv))
    place_of = dynamics(env).simulation.centre_of_mass
    before = place_of.clone()
    *_, info = env.step(torch.full((1, 17), 0.4))
    assert info["velocity"].item() == pytest.approx(((place_of - before)[0, 0] / family.dt).item())


def test_the_shared_model_is_the_one_that_runs() -> None:
    assert isinstance(FAMILY.model, mujoco.MjModel)
    assert FAMILY.model is HalfCheetahVel(horizon=3).model


def test_the_action_space_is_the_models() -> None:
    np.testing.assert_allclose(HumanoidDir().action_space.high, 0.4)


def make_and_step() -> None:
    import gymnasium

    import metarl.envs  # noqa: F401 (registers the families)

    env = gymnasium.make("metarl/HalfCheetahVel-v0")
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())
    print("done")


def test_making_and_stepping_is_silent_and_leaves_no_log(tmp_path: Path) -> None:
    # Gymnasium's model file has attributes that MuJoCo calls deprecated, on the terminal and in MUJOCO_LOG.TXT.
    done = Child(make_and_step, folder=tmp_path).ended()
    assert done.stdout == "done\n"
    assert "deprecated" not in done.stderr.lower()
    assert not list(tmp_path.iterdir())
