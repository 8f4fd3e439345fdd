"""Turn a door, a lock, a faucet, a dial or a lever about its hinge."""

import math

import torch
from torch import Tensor

from metarl.envs.manipulation.arms import Arms
from metarl.envs.manipulation.scene import Kind, Scene, Turned, at, first_way, turned
from metarl.envs.manipulation.tasks.heights import over
from metarl.envs.manipulation.terms import both, constant, near, near_gaussian, norm

# From the hand to what the arm pushes locks and levers with.
SHOULDER = (0.0, 0.055, 0.07)


def open_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a door open by its handle, which the hand reaches from above."""
    handle = scene.object + scene.vector(-0.05, 0.0, 0.0)
    above = over(scene.hand, handle, 0.12)
    there = near(norm(scene.hand - handle - scene.vector(0.05, 0.03, -0.01)), 0.06, 0.5)
    angle = scene.joint("doorjoint")
    left = math.pi / 2 + math.pi / 6 + angle
    opened = 0.2 * (angle < -math.pi / 90) + 0.8 * near(left, 0.5, math.pi / 3)
    reward = 2 * both(both(above, there), (scene.effort + 1) / 2) + 8 * opened
    done = (scene.object - scene.target)[:, 0].abs() <= 0.08
    return reward.masked_fill(done, 10), done


def close_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a door shut."""
    left = norm(scene.object - scene.target)
    there = near_gaussian(left, 0.05, first_way(scene))
    margin = norm(scene.notes["hand_init_pos"] - scene.object) + 0.1
    follow = near_gaussian(norm(scene.tcp - scene.target), 0.0125, margin)
    return (3 * follow + 6 * there).masked_fill(left < 0.05, 10), left <= 0.08


def lock_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a lock down with the left pad."""
    left = (scene.target - scene.object)[:, 2].abs()
    away = norm((scene.object - scene.pads[:, 0]) * scene.vector(0.25, 1.0, 0.5))
    # The package keeps the pad's place at the start as a view of the present one, so the margin is the distance.
    approach = both(scene.opened, near(away, 0.01, away))
    return 2 * approach + 8 * near(left, 0.005, 0.1), left <= 0.02


def unlock_door(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a lock aside."""
    left = (scene.target - scene.object)[:, 0].abs()
    scale, shoulder = scene.vector(0.25, 1.0, 0.5), scene.vector(*SHOULDER)
    away = norm((scene.hand + shoulder - scene.object) * scale)
    # Where the lock is now: the package keeps its place at the start as a view of the present one.
    margin = norm((scene.first_tcp + shoulder - scene.place("body", "lock_link")) * scale)
    return 2 * near(away, 0.02, margin) + 8 * near(left, 0.005, 0.1), left <= 0.02


def open_faucet(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a faucet on."""
    return _faucet(scene, scene.object + scene.vector(-0.04, 0.0, 0.03))


def close_faucet(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a faucet off."""
    return _faucet(scene, scene.object)


def _faucet(scene: Scene, handle: Tensor) -> tuple[Tensor, Tensor]:
    left = norm(handle - scene.target)
    there = near(left, 0.07, (first_way(scene) - 0.07).abs())
    margin = (norm(scene.first_object - scene.first_tcp) - 0.01).abs()
    approach = near_gaussian(norm(handle - scene.tcp), 0.01, margin)
    done = left <= 0.07
    return (4 * approach + 6 * there).masked_fill(done, 10), done


def turn_dial(scene: Scene) -> tuple[Tensor, Tensor]:
    """Turn a dial."""
    first = scene.notes["dial_push_position"]
    left = norm(scene.object - scene.target)
    there = near(left, 0.07, (norm(first - scene.target) - 0.07).abs())
    away = norm(scene.object + scene.vector(0.05, 0.02, 0.09) - scene.tcp)
    approach = near_gaussian(away, 0.005, (norm(first - scene.first_tcp) - 0.005).abs())
    return 10 * both(both(approach, scene.closed), there), left <= 0.07


def pull_lever(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a lever up by 90 degrees."""
    first = scene.notes["_lever_pos_init"]
    scale, shoulder = scene.vector(4.0, 1.0, 4.0), scene.vector(*SHOULDER)
    away = norm((scene.hand + shoulder - scene.object) * scale)
    ready = near(away, 0.02, norm((scene.first_tcp + shoulder - first) * scale))
    there = near(norm(scene.object - scene.target), 0.04, norm(first - scene.target))
    left = (-scene.joint("LeverAxis") - math.pi / 2).abs()
    return 10 * both(ready, there), left <= math.pi / 24


def _dial(arms: Arms) -> Tensor:
    """Return the place on the dial's rim ``[W, 3]``, 5 cm from its centre."""
    centre = arms.view("xpos", "body", "dial")
    angle = arms.joint("knob_Joint_1")
    rim = torch.stack((angle.sin(), -angle.cos(), torch.zeros_like(angle)), 1)
    return centre + rim * constant((0.05,), rim.dtype, rim.device)


_HANDLE = (at("geom", "handle"),), (Turned("geom", "handle"),)
_LOCK, _FAUCET = (turned("door_link"),), (turned("faucetBase"),)
_LEVER = (at("site", "leverStart"),), (Turned("geom", "objGeom"),)
KINDS = {
    "door-open-v3": Kind(*_HANDLE, open_door),
    "door-close-v3": Kind(*_HANDLE, close_door),
    "door-lock-v3": Kind((at("site", "lockStartLock"),), _LOCK, lock_door),
    "door-unlock-v3": Kind((at("site", "lockStartUnlock"),), _LOCK, unlock_door),
    "faucet-open-v3": Kind((at("site", "handleStartOpen", 0.0, 0.0, -0.01),), _FAUCET, open_faucet),
    "faucet-close-v3": Kind((at("site", "handleStartClose", 0.0, 0.0, -0.01),), _FAUCET, close_faucet),
    "dial-turn-v3": Kind((_dial,), (turned("dial"),), turn_dial, ("dial_push_position",)),
    "lever-pull-v3": Kind(*_LEVER, pull_lever, ("_lever_pos_init",)),
}
