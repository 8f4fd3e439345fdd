import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from metarl.envs.locomotion.velocities import AntVel, HalfCheetahVel, HopperVel, SwimmerVel, TargetVelocity, Walker2dVel
from metarl.errors import InputError
from metarl.families.family import make_family
from tests.envs.robots import dynamics, place, worlds

FAMILIES: list[type[TargetVelocity]] = [HalfCheetahVel, AntVel, HopperVel, Walker2dVel, SwimmerVel]
FAMILY = HalfCheetahVel()


def targets(*velocities: float) -> TensorDict:
    return TensorDict({"velocity": torch.tensor(velocities)}, [len(velocities)])


@pytest.mark.parametrize(
    ("family", "speed", "target", "control", "expected"),
    [  # |a|² is control² times the number of actuators: 6, 8, 3, 6, 2.
        (HalfCheetahVel(), 1.5, 2.0, 1.0, -0.5 - 0.05 * 6),
        (AntVel(), 1.5, 2.0, 1.0, 1 - 0.5 - 0.005 * 8 + 0.05),
        (HopperVel(), 1.5, 1.0, 0.5, 1 - 0.5 - 0.001 * 0.75),
        (Walker2dVel(), 1.5, 1.0, 1.0, 1 - 0.5 - 0.001 * 6),
        (make_family("walker2d-vel", "promp"), 4.0, 10.0, 1.0, 15 - 6.0 - 0.001 * 6),
        (SwimmerVel(), 0.0, 0.125, 1.0, -0.125 - 0.0001 * 2),
    ],
)
def test_rewards(family: TargetVelocity, speed: float, target: float, control: float, expected: float) -> None:
    actions = torch.full((1, family.model.nu), control)
    velocity = torch.tensor([[speed, 7.0]], dtype=torch.float64)  # the second axis does not count
    terms = family.reward_terms(velocity, torch.zeros(1, family.model.nq), actions, targets(target))
    assert sum(value.item() for key, value in terms.items() if key.startswith("reward_")) == pytest.approx(expected)


@given(st.floats(-10, 10), st.floats(0, 3, width=32))
def test_the_target_speed_is_the_best(speed: float, target: float) -> None:
    velocity, zeros = torch.tensor([[speed], [target]], dtype=torch.float64), torch.zeros(2, 6)
    terms = FAMILY.reward_terms(velocity, torch.zeros(2, 9), zeros, targets(target, target).to(torch.float64))
    assert terms["reward_velocity"][0] <= terms["reward_velocity"][1] == 0


def test_the_speed_is_the_mean_over_the_step() -> None:
    # Five simulation steps of 0.01 s.
    env = worlds(FAMILY, targets(1.0))
    simulation = dynamics(env).simulation
    before = simulation.qpos[0, 0].item()
    *_, info = env.step(torch.full((1, 6), 0.5))
    assert info["x_velocity"].item() == pytest.approx((simulation.qpos[0, 0].item() - before) / 0.05)


def test_worlds_are_rewarded_for_their_own_speed() -> None:
    # From the same state, the worlds differ only in |v - v*|: v is near 0, so by their targets.
    env = worlds(FAMILY, targets(0.0, 1.0, 3.0))
    place(env, torch.zeros(9), torch.zeros(9))
    *_, info = env.step(torch.zeros(3, 6))
    speed = info["x_velocity"][0]
    assert (info["x_velocity"] == speed).all()
    torch.testing.assert_close(info["reward_velocity"], -(speed - torch.tensor([0.0, 1.0, 3.0]).double()).abs())


def test_control_is_charged_after_clipping() -> None:
    # |a|² of six ones, times 0.05.
    *_, info = worlds(FAMILY, targets(1.0)).step(torch.full((1, 6), 100.0))
    assert info["reward_ctrl"].item() == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("name", "preset", "low", "high", "horizon"),
    [
        ("half-cheetah-vel", "0-3-h200", 0, 3, 200),
        ("half-cheetah-vel", "0-3-h100", 0, 3, 100),
        ("half-cheetah-vel", "0-3-h1000", 0, 3, 1000),
        ("half-cheetah-vel", "0-2-h200", 0, 2, 200),
        ("half-cheetah-vel", "0-2-h100", 0, 2, 100),
        ("ant-vel", "0-3-h200", 0, 3, 200),
        ("hopper-vel", "0-2-h200", 0, 2, 200),
        ("walker2d-vel", "0-3-h200", 0, 3, 200),
        ("walker2d-vel", "promp", 0, 10, 200),
        ("swimmer-vel", "promp", 0.1, 0.2, 200),
    ],
)
def test_presets(name: str, preset: str, low: float, high: float, horizon: int) -> None:
    family = make_family(name, preset)
    assert family.horizon == horizon
    speeds = family.task_space["velocity"]
    assert isinstance(speeds, gymnasium.spaces.Box)
    assert (speeds.low.item(), speeds.high.item()) == (np.float32(low), np.float32(high))
    drawn = family.sample_tasks(2000, torch.Generator().manual_seed(0))["velocity"]
    margin = 0.01 * (high - low)
    assert low <= drawn.min() < low + margin
    assert high - margin < drawn.max() <= high


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_preset_is_the_fields(family: type[TargetVelocity]) -> None:
    assert make_family(family.name) == family()


@pytest.mark.parametrize(
    ("name", "preset", "milliseconds"),
    [
        ("half-cheetah-vel", None, 50),
        ("ant-vel", None, 50),
        ("hopper-vel", None, 8),
        ("walker2d-vel", None, 8),
        ("walker2d-vel", "promp", 16),
        ("swimmer-vel", None, 40),
    ],
)
def test_one_step_takes(name: str, preset: str | None, milliseconds: float) -> None:
    family = make_family(name, preset)
    assert isinstance(family, TargetVelocity)
    assert family.dt == pytest.approx(milliseconds / 1000)


def test_an_empty_range_of_speeds_is_refused() -> None:
    with pytest.raises(InputError, match=r"min_velocity 2\.0 must lie below max_velocity 2\.0"):
        HalfCheetahVel(min_velocity=2.0, max_velocity=2.0)
