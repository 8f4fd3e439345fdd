import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.locomotion import HalfCheetahVel, LocomotionDynamics
from metarl.envs.simulation import quiet_compiler
from metarl.errors import InputError
from metarl.family import make_family
from metarl.vector_env import TaskVectorEnv

FAMILY = HalfCheetahVel()


def cheetahs(*velocities: float) -> TaskVectorEnv:
    env = TaskVectorEnv(FAMILY, len(velocities), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(TensorDict({"velocity": torch.tensor(velocities)}, [len(velocities)]))
    env.reset(seed=0)
    return env


def dynamics(env: TaskVectorEnv) -> LocomotionDynamics:
    worlds = env._dynamics
    assert isinstance(worlds, LocomotionDynamics)
    return worlds


@pytest.fixture(scope="module")
def walk() -> Iterator[list[dict[str, np.ndarray]]]:
    """Walk Gymnasium's HalfCheetah-v5 and ours 200 steps from the same state by the same random actions."""
    with quiet_compiler():  # Gymnasium's own loading of the model is not quiet.
        theirs = gymnasium.make("HalfCheetah-v5").unwrapped
    theirs.reset(seed=1)
    ours = cheetahs(1.25)
    simulation = dynamics(ours).simulation
    stream = np.random.default_rng(0)
    qpos, qvel = theirs.init_qpos + 0.1 * stream.uniform(-1, 1, 9), 0.1 * stream.standard_normal(9)
    theirs.set_state(qpos, qvel)
    simulation.restart(torch.ones(1, dtype=torch.bool), torch.from_numpy(qpos)[None], torch.from_numpy(qvel)[None])
    steps = []
    for _ in range(200):
        action = stream.uniform(-1, 1, 6).astype(np.float32)
        observation, _, _, _, info = theirs.step(action)
        our_observation, our_reward, _, _, our_info = ours.step(torch.from_numpy(action)[None])
        steps.append(
            {
                "action": action,
                "qpos": np.stack([theirs.data.qpos, simulation.qpos[0].numpy()]),
                "qvel": np.stack([theirs.data.qvel, simulation.qvel[0].numpy()]),
                "observation": np.stack([observation.astype(np.float32), our_observation[0].numpy()]),
                "x_velocity": np.array([info["x_velocity"], our_info["x_velocity"].item()]),
                "reward_ctrl": np.array([info["reward_ctrl"], our_info["reward_ctrl"].item()]),
                "reward": our_reward.numpy(),
            }
        )
    yield steps
    theirs.close()


@pytest.mark.parametrize("quantity", ["qpos", "qvel", "observation", "x_velocity"])
def test_every_step_equals_gymnasiums_bit_for_bit(walk: list[dict[str, np.ndarray]], quantity: str) -> None:
    assert [np.array_equal(*step[quantity]) for step in walk] == [True] * 200


def test_control_costs_half_of_gymnasiums(walk: list[dict[str, np.ndarray]]) -> None:
    # 0.05 |a|² against 0.1 |a|².
    costs = np.stack([step["reward_ctrl"] for step in walk])
    np.testing.assert_allclose(costs[:, 1], costs[:, 0] / 2, rtol=1e-6)


def test_the_reward_is_distance_in_speed_and_control_cost(walk: list[dict[str, np.ndarray]]) -> None:
    expected = [
        -abs(step["x_velocity"][0] - 1.25) - 0.05 * np.square(step["action"].astype(np.float64)).sum() for step in walk
    ]
    np.testing.assert_allclose([step["reward"][0] for step in walk], expected, rtol=1e-5)


def test_the_speed_is_the_mean_over_the_step() -> None:
    # Five simulation steps of 0.01 s.
    env = cheetahs(1.0)
    simulation = dynamics(env).simulation
    before = simulation.qpos[0, 0].item()
    *_, info = env.step(torch.full((1, 6), 0.5))
    assert info["x_velocity"].item() == pytest.approx((simulation.qpos[0, 0].item() - before) / 0.05)


def test_one_step_takes_a_twentieth_of_a_second() -> None:
    assert pytest.approx(0.05) == FAMILY.dt


def test_worlds_are_rewarded_for_their_own_speed() -> None:
    # From the same state, the worlds differ only in |v - v*|: v is near 0, so by their targets.
    env = cheetahs(0.0, 1.0, 3.0)
    simulation = dynamics(env).simulation
    everywhere, zeros = torch.ones(3, dtype=torch.bool), torch.zeros_like(simulation.qpos)
    simulation.restart(everywhere, zeros, zeros)
    *_, info = env.step(torch.zeros(3, 6))
    speed = info["x_velocity"][0]
    assert (info["x_velocity"] == speed).all()
    targets = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(info["reward_velocity"], -(speed - targets).abs())


def test_rewards_add_up_from_their_terms() -> None:
    env = cheetahs(0.5, 2.0)
    _, rewards, _, _, info = env.step(torch.full((2, 6), 0.3))
    torch.testing.assert_close(rewards, (info["reward_velocity"] + info["reward_ctrl"]).float())


def test_control_is_charged_after_clipping() -> None:
    # |a|² of six ones, times 0.05.
    *_, info = cheetahs(1.0).step(torch.full((1, 6), 100.0))
    assert info["reward_ctrl"].item() == pytest.approx(-0.3)


def test_observations_are_positions_but_the_first_then_velocities() -> None:
    env = cheetahs(1.0)
    simulation = dynamics(env).simulation
    observations, *_ = env.step(torch.full((1, 6), 0.5))
    expected = torch.cat([simulation.qpos[:, 1:], simulation.qvel], 1).float()
    assert torch.equal(observations, expected)


def test_episodes_start_near_rest_as_gymnasiums_do() -> None:
    # Positions ±0.1 uniform, velocities Gaussian of deviation 0.1: over 500 x 9 numbers each, deviation
    # 0.1/√3 = 0.0577 and 0.1, with standard errors of about 1 % (uniform less); four of them.
    env = cheetahs(*[1.0] * 500)
    simulation = dynamics(env).simulation
    offsets = simulation.qpos - torch.from_numpy(FAMILY.model.qpos0)
    assert offsets.abs().max() <= 0.1
    assert offsets.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.04)
    assert simulation.qvel.std().item() == pytest.approx(0.1, rel=0.045)


def test_worlds_start_differently() -> None:
    observations, _ = cheetahs(1.0, 1.0).reset(seed=0)
    assert not torch.equal(observations[0], observations[1])


@pytest.mark.parametrize(
    ("preset", "fastest", "horizon"),
    [("0-3-h200", 3.0, 200), ("0-3-h100", 3.0, 100), ("0-2-h200", 2.0, 200), ("0-2-h100", 2.0, 100)],
)
def test_presets(preset: str, fastest: float, horizon: int) -> None:
    family = make_family("half-cheetah-vel", preset)
    assert family.horizon == horizon
    speeds = family.task_space["velocity"]
    assert isinstance(speeds, gymnasium.spaces.Box)
    assert (speeds.low.item(), speeds.high.item()) == (0.0, fastest)
    drawn = family.sample_tasks(2000, torch.Generator().manual_seed(0))["velocity"]
    assert drawn.min() < 0.01 * fastest
    assert 0.99 * fastest < drawn.max() <= fastest


def test_the_default_preset_is_the_fields() -> None:
    assert make_family("half-cheetah-vel") == make_family("half-cheetah-vel", "0-3-h200")


def test_an_empty_range_of_speeds_is_refused() -> None:
    with pytest.raises(InputError, match=r"min_velocity 2\.0 must lie below max_velocity 2\.0"):
        HalfCheetahVel(min_velocity=2.0, max_velocity=2.0)


def test_a_cheetah_never_terminates() -> None:
    assert not FAMILY.terminated(torch.full((3, 9), 100.0)).any()


def test_the_shared_model_is_the_one_that_runs() -> None:
    assert isinstance(FAMILY.model, mujoco.MjModel)
    assert FAMILY.model is HalfCheetahVel(horizon=3).model


def test_making_and_stepping_is_silent_and_leaves_no_log(tmp_path: Path) -> None:
    # Gymnasium's model file has attributes that MuJoCo calls deprecated, on the terminal and in MUJOCO_LOG.TXT.
    program = (
        "import gymnasium, metarl.envs\n"
        "env = gymnasium.make('metarl/HalfCheetahVel-v0')\n"
        "env.reset(seed=0)\n"
        "for _ in range(5): env.step(env.action_space.sample())\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
    assert "deprecated" not in done.stderr.lower()
    assert not list(tmp_path.iterdir())
