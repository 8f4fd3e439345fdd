"""Turn a door, a lock, a faucet, a dial or a lever about its hinge."""

import math

import torch
from torch import Tensor

from metarl.envs.manipulation.arms import Arms
from metarl.envs.manipulation.scene import (
    EnvironmentSpec,
    RotationMatrix,
    Scene,
    initial_distance,
    position_of,
    quaternion_of,
)
from metarl.envs.manipulation.tasks.clearance import high_enough
from metarl.envs.manipulation.terms import constant, hamacher_product, near, near_gaussian, norm

# Offset from the hand to the part of the arm that pushes locks and levers.
SHOULDER = (0.0, 0.055, 0.07)


def open_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a door open by its handle, approached from above."""
    handle = scene.object + scene.vector(-0.05, 0.0, 0.0)
    above = high_enough(scene.hand, handle, 0.12)
    in_place = near(norm(scene.hand - handle - scene.vector(0.05, 0.03, -0.01)), 0.06, 0.5)
    angle = scene.joint("doorjoint")
    remaining = math.pi / 2 + math.pi / 6 + angle
    opened = 0.2 * (angle < -math.pi / 90) + 0.8 * near(remaining, 0.5, math.pi / 3)
    reward = 2 * hamacher_product(hamacher_product(above, in_place), (scene.effort + 1) / 2) + 8 * opened
    done = (scene.object - scene.target)[:, 0].abs() <= 0.08
    return reward.masked_fill(done, 10), done


def close_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a door shut."""
    remaining = norm(scene.object - scene.target)
    in_place = near_gaussian(remaining, 0.05, initial_distance(scene))
    margin = norm(scene.attributes["hand_init_pos"] - scene.object) + 0.1
    follow = near_gaussian(norm(scene.tcp - scene.target), 0.0125, margin)
    return (3 * follow + 6 * in_place).masked_fill(remaining < 0.05, 10), remaining <= 0.08


def lock_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a lock down with the left pad."""
    remaining = (scene.target - scene.object)[:, 2].abs()
    distance = norm((scene.object - scene.pads[:, 0]) * scene.vector(0.25, 1.0, 0.5))
    # The package stores the pad's initial position as a view of the current one, so the margin is the distance.
    approach = hamacher_product(scene.opening, near(distance, 0.01, distance))
    return 2 * approach + 8 * near(remaining, 0.005, 0.1), remaining <= 0.02


def unlock_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a lock aside."""
    remaining = (scene.target - scene.object)[:, 0].abs()
    scale, shoulder = scene.vector(0.25, 1.0, 0.5), scene.vector(*SHOULDER)
    distance = norm((scene.hand + shoulder - scene.object) * scale)
    # The lock's current position: the package stores its initial one as a view of it.
    margin = norm((scene.initial_tcp + shoulder - scene.position("body", "lock_link")) * scale)
    return 2 * near(distance, 0.02, margin) + 8 * near(remaining, 0.005, 0.1), remaining <= 0.02


def open_faucet(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a faucet on."""
    return _faucet(scene, scene.object + scene.vector(-0.04, 0.0, 0.03))


def close_faucet(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a faucet off."""
    return _faucet(scene, scene.object)


def _faucet(scene: Scene, handle: Tensor) -> tuple[Tensor, Tensor]:
    remaining = norm(handle - scene.target)
    in_place = near(remaining, 0.07, (initial_distance(scene) - 0.07).abs())
    margin = (norm(scene.initial_object - scene.initial_tcp) - 0.01).abs()
    approach = near_gaussian(norm(handle - scene.tcp), 0.01, margin)
    done = remaining <= 0.07
    return (4 * approach + 6 * in_place).masked_fill(done, 10), done


def turn_dial(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a dial."""
    initial = scene.attributes["dial_push_position"]
    remaining = norm(scene.object - scene.target)
    in_place = near(remaining, 0.07, (norm(initial - scene.target) - 0.07).abs())
    distance = norm(scene.object + scene.vector(0.05, 0.02, 0.09) - scene.tcp)
    approach = near_gaussian(distance, 0.005, (norm(initial - scene.initial_tcp) - 0.005).abs())
    return 10 * hamacher_product(hamacher_product(approach, scene.closing), in_place), remaining <= 0.07


def pull_lever(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a lever up by 90 degrees."""
    initial = scene.attributes["_lever_pos_init"]
    scale, shoulder = scene.vector(4.0, 1.0, 4.0), scene.vector(*SHOULDER)
    distance = norm((scene.hand + shoulder - scene.object) * scale)
    ready = near(distance, 0.02, norm((scene.initial_tcp + shoulder - initial) * scale))
    in_place = near(norm(scene.object - scene.target), 0.04, norm(initial - scene.target))
    remaining = (-scene.joint("LeverAxis") - math.pi / 2).abs()
    return 10 * hamacher_product(ready, in_place), remaining <= math.pi / 24


def _dial(arms: Arms) -> Tensor:
    """Return the position of the mark on the dial's rim ``[W, 3]``, 5 cm from its centre."""
    centre = arms.view("xpos", "body", "dial")
    angle = arms.joint("knob_Joint_1")
    rim = torch.stack((angle.sin(), -angle.cos(), torch.zeros_like(angle)), 1)
    return centre + rim * constant((0.05,), rim.dtype, rim.device)


_HANDLE = (position_of("geom", "handle"),), (RotationMatrix("geom", "handle"),)
_LOCK, _FAUCET = (quaternion_of("door_link"),), (quaternion_of("faucetBase"),)
_LEVER = (position_of("site", "leverStart"),), (RotationMatrix("geom", "objGeom"),)
SPECS = {
    "door-open-v3": EnvironmentSpec(*_HANDLE, open_door),
    "door-close-v3": EnvironmentSpec(*_HANDLE, close_door),
    "door-lock-v3": EnvironmentSpec((position_of("site", "lockStartLock"),), _LOCK, lock_door),
    "door-unlock-v3": EnvironmentSpec((position_of("site", "lockStartUnlock"),), _LOCK, unlock_door),
    "faucet-open-v3": EnvironmentSpec((position_of("site", "handleStartOpen", 0.0, 0.0, -0.01),), _FAUCET, open_faucet),
    "faucet-close-v3": EnvironmentSpec(
        (position_of("site", "handleStartClose", 0.0, 0.0, -0.01),), _FAUCET, close_faucet
    ),
    "dial-turn-v3": EnvironmentSpec((_dial,), (quaternion_of("dial"),), turn_dial, ("dial_push_position",)),
    "lever-pull-v3": EnvironmentSpec(*_LEVER, pull_lever, ("_lever_pos_init",)),
}
