"""Every robot moves, is observed and falls as in Gymnasium's own environments."""

from typing import Any

import numpy as np
import pytest
import torch

from metarl.envs.locomotion.robots import ANT, HALF_CHEETAH, HOPPER, HUMANOID, SWIMMER, WALKER2D, Robot
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.envs.simulation.batched import gymnasium_model
from metarl.families.family import FAMILIES, make_family
from tests.envs.robots import gymnasium_env, walk_beside

POSITIONS_AND_VELOCITIES = {
    f"include_{part}_in_observation": False for part in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
}
STEPS = 150
# family, task, Gymnasium's environment and its arguments, action scale (small where robots fall at once)
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], float]] = {
    "half-cheetah": ("half-cheetah-vel", {"velocity": 1.25}, "HalfCheetah-v5", {}, 1.0),
    "ant": ("ant-vel", {"velocity": 1.0}, "Ant-v5", {"include_cfrc_ext_in_observation": False}, 1.0),
    "ant with place": (
        "ant-goal",
        {"goal": [1.0, 1.0]},
        "Ant-v5",
        {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False},
        0.3,
    ),
    "humanoid": ("humanoid-dir", {"heading": 0.0}, "Humanoid-v5", POSITIONS_AND_VELOCITIES, 1.0),
    "hopper": ("hopper-vel", {"velocity": 1.0}, "Hopper-v5", {}, 1.0),
    "walker": ("walker2d-vel", {"velocity": 1.0}, "Walker2d-v5", {}, 1.0),
    "swimmer": ("swimmer-vel", {"velocity": 0.15}, "Swimmer-v5", {}, 1.0),
}


def nominal(name: str) -> dict[str, Any]:
    """Return the task of a random-parameters family that leaves the model as it is."""
    return {key: np.ones(space.shape) for key, space in make_family(name).task_space.items()}


for _name, _id, _arguments in (
    ("hopper-rand-params", "Hopper-v5", {"timestep": 0.004}),
    ("walker2d-rand-params", "Walker2d-v5", {"timestep": 0.004}),
):
    CASES[_name] = (_name, nominal(_name), _id, _arguments, 1.0)


@pytest.fixture(scope="module", params=sorted(CASES))
def walk(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    name, task, env_id, arguments, scale = CASES[request.param]
    theirs = gymnasium_env(env_id, **arguments)
    family = make_family(name)
    assert isinstance(family, LocomotionFamily)
    walked = walk_beside(theirs, family, task, STEPS, scale)
    theirs.close()
    return walked


@pytest.mark.parametrize("quantity", ["qpos", "qvel", "observation", "terminated"])
def test_every_step_equals_gymnasiums_bit_for_bit(walk: list[dict[str, Any]], quantity: str) -> None:
    assert [np.array_equal(*step[quantity]) for step in walk] == [True] * STEPS


def test_speed_along_x_is_gymnasiums(walk: list[dict[str, Any]], request: pytest.FixtureRequest) -> None:
    case = request.node.callspec.params["walk"]
    if case.startswith("ant"):
        pytest.skip("Gymnasium takes the ant's speed from body positions, which lag one substep in MuJoCo")
    found = [(theirs["x_velocity"], ours.get("x_velocity", ours.get("velocity"))) for theirs, ours in pairs(walk)]
    np.testing.assert_allclose([ours for _, ours in found], [theirs for theirs, _ in found], rtol=1e-9, atol=1e-9)


def pairs(walk: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [step["info"] for step in walk]


def test_the_robots_that_can_fall_did(request: pytest.FixtureRequest) -> None:
    # Otherwise the comparison of the ends above says nothing.
    for case in ("humanoid", "hopper", "walker"):
        name, task, env_id, arguments, scale = CASES[case]
        family = make_family(name)
        assert isinstance(family, LocomotionFamily)
        walked = walk_beside(gymnasium_env(env_id, **arguments), family, task, STEPS, scale)
        assert any(step["terminated"][1] for step in walked), case


def state(robot: Robot, **coordinates: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one row of positions and velocities, zero but for ``q1=...`` or ``v1=...``."""
    model = gymnasium_model(robot.model_name)
    rows = {"q": torch.zeros(1, model.nq, dtype=torch.float64), "v": torch.zeros(1, model.nv, dtype=torch.float64)}
    for name, value in coordinates.items():
        rows[name[0]][0, int(name[1:])] = value
    return rows["q"], rows["v"]


@pytest.mark.parametrize(
    ("robot", "coordinates", "fallen"),
    [
        (ANT, {"q2": 0.19}, True),
        (ANT, {"q2": 0.21}, False),
        (ANT, {"q2": 0.99}, False),
        (ANT, {"q2": 1.01}, True),
        (HUMANOID, {"q2": 0.99}, True),
        (HUMANOID, {"q2": 1.5}, False),
        (HUMANOID, {"q2": 2.01}, True),
        (WALKER2D, {"q1": 0.79}, True),
        (WALKER2D, {"q1": 1.2}, False),
        (WALKER2D, {"q1": 2.01}, True),
        (WALKER2D, {"q1": 1.2, "q2": 1.01}, True),
        (WALKER2D, {"q1": 1.2, "q2": -1.01}, True),
        (WALKER2D, {"q1": 1.2, "q2": -0.99}, False),
        (HOPPER, {"q1": 0.7}, True),
        (HOPPER, {"q1": 0.71}, False),
        (HOPPER, {"q1": 1.2, "q2": 0.2}, True),
        (HOPPER, {"q1": 1.2, "q2": -0.19}, False),
        (HOPPER, {"q1": 1.2, "v0": 101.0}, True),
        (HALF_CHEETAH, {"q1": -5.0, "q2": 9.0}, False),
        (SWIMMER, {"q2": 9.0}, False),
    ],
)
def test_falls(robot: Robot, coordinates: dict[str, float], fallen: bool) -> None:
    assert robot.fallen(*state(robot, **coordinates)).tolist() == [fallen]


@pytest.mark.parametrize("robot", [HOPPER, WALKER2D])
def test_observed_velocities_are_clipped(robot: Robot) -> None:
    qpos, qvel = state(robot, v1=50.0, v2=-50.0)
    observed = robot.observe(qpos, qvel)[0, qpos.shape[1] - 1 :]
    assert observed[1:3].tolist() == [10.0, -10.0]


@pytest.mark.parametrize(
    ("robot", "env_id"),
    [
        (HALF_CHEETAH, "HalfCheetah-v5"),
        (ANT, "Ant-v5"),
        (HUMANOID, "Humanoid-v5"),
        (HOPPER, "Hopper-v5"),
        (WALKER2D, "Walker2d-v5"),
        (SWIMMER, "Swimmer-v5"),
    ],
)
def test_the_start_is_gymnasiums(robot: Robot, env_id: str) -> None:
    theirs = gymnasium_env(env_id)
    assert theirs.frame_skip == robot.frame_skip
    assert theirs._reset_noise_scale == robot.position_noise == robot.velocity_noise
    # Uniform velocities stay inside the noise's width; Gaussian ones do not.
    velocities = []
    for _ in range(20):
        theirs.reset()
        velocities.append(np.abs(theirs.data.qvel).max())
    assert (max(velocities) > robot.velocity_noise) == robot.gaussian


def test_every_robot_has_a_family() -> None:
    robots = {family.robot.model_name for family in FAMILIES.values() if issubclass(family, LocomotionFamily)}
    assert robots == {"half_cheetah", "ant", "humanoid", "hopper", "walker2d_v5", "swimmer"}
