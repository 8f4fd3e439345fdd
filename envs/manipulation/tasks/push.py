"""Push or sweep an object to the goal on the table."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import (
    EnvironmentSpec,
    RotationMatrix,
    Scene,
    initial_distance,
    position_of,
    quaternion_of,
)
from metarl.envs.manipulation.tasks.grasp import caging_reward, pinch_reward
from metarl.envs.manipulation.terms import hamacher_product, near, norm

RADIUS = 0.05


def push(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return up to 2 for the grasp, more as the grasped object approaches the goal, and 10 at the goal."""
    distance = norm(scene.object - scene.target)
    in_place = near(distance, RADIUS, initial_distance(scene))
    grasp = 2 * caging_reward(scene, scene.object, radius=0.015, reach=0.01, height=0.005)
    held = (scene.tcp_to_object < 0.02) & (scene.opening > 0)
    reward = torch.where(held, 1 + 2 * grasp + 5 * in_place, grasp)
    return reward.masked_fill(distance < RADIUS, 10), distance <= RADIUS


def push_around_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push the object round the left end of a wall, then to the goal."""
    obj, target = scene.object, scene.target
    scale = scene.vector(3.0, 1.0)
    corner = scene.vector(-0.05, 0.77)
    lateral = norm((obj[:, :2] - corner) * scale)
    # The corner is taken to be at the object's current height.
    initial = (scene.initial_object[:, :2] - corner) * scale
    margin = norm(torch.cat((initial, scene.initial_object[:, 2:] - obj[:, 2:]), 1))
    distance = norm(obj - target)
    grasp = caging_reward(scene, obj, radius=0.015, reach=0.01, height=0.005)
    held = (scene.tcp_to_object < 0.02) & (scene.opening > 0)
    before = 1 + 4 * near(lateral, RADIUS, margin)
    after = 5 + 3 * near(distance, RADIUS, initial_distance(scene))
    reward = 2 * grasp + torch.where(held, torch.where(obj[:, 1] > 0.75, after, before), 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


def push_back(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull the object towards the robot."""
    distance, initial = norm(scene.object - scene.target), initial_distance(scene)
    in_place = near(distance, RADIUS, initial)
    grasp = pinch_reward(scene, radius=0.007, grip=0.003, height=0.01)
    held = (scene.tcp_to_object < 0.01) & (scene.opening > 0) & (scene.opening < 0.55) & (initial - distance > 0.01)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * in_place, 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


def sweep(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep the object off the table."""
    return _swept(scene, scene.target, grip=0.01, height=0.005)


def sweep_into(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep the object into a hole; heights are ignored."""
    target = torch.cat((scene.target[:, :2], scene.object[:, 2:]), 1)
    return _swept(scene, target, grip=0.005, height=0.01)


def _swept(scene: Scene, target: Tensor, grip: float, height: float) -> tuple[Tensor, Tensor]:
    distance = norm(scene.object - target)
    in_place = near(distance, RADIUS, norm(scene.initial_object - target))
    grasp = pinch_reward(scene, radius=0.02, grip=grip, height=height)
    reward = 2 * grasp + 6 * hamacher_product(grasp, in_place)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.05


def push_mug(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push or pull a mug on the table."""
    scale = scene.vector(2.0, 2.0, 1.0)
    offset = scene.object - scene.target
    distance = norm(offset * scale)
    in_place = near(distance, RADIUS, norm((scene.initial_object - scene.target) * scale))
    grasp = caging_reward(scene, scene.object, radius=0.02, reach=0.04, height=0.05, effort=0.7, density="medium")
    held = (scene.tcp_to_object < 0.04) & (scene.opening > 0)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * in_place, 0)
    return reward.masked_fill(distance < RADIUS, 10), norm(offset) <= 0.07


def kick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a ball into a goal: it must cross the line between the posts."""
    obj, target = scene.object, scene.target
    scale = scene.vector(3.0, 1.0, 1.0)
    distance = norm((obj - target) * scale)
    travelled = norm((obj - scene.initial_object) * scale).clamp_min(1e-9)  # the package uses it as the margin
    in_place = near(distance, 0.07, travelled)
    line = target[:, 1] - 0.1
    beyond = obj[:, 1] - line
    missed = (in_place - 2 * beyond / (1 - line)).clamp(0, 1)
    in_place = torch.where((beyond > 0) & ((obj - target)[:, 0].abs() > 0.1), missed, in_place)
    reward = 3 * pinch_reward(scene, radius=0.013, grip=0.01, height=0.005) + 6.5 * in_place
    return reward.masked_fill(distance < 0.07, 10), norm(obj - target) <= 0.07


_OBJECT = position_of("body", "obj")
_GEOM = position_of("geom", "objGeom")
_TURN = RotationMatrix("geom", "objGeom")
_MUG = EnvironmentSpec((_OBJECT,), (RotationMatrix("geom", "mug"),), push_mug)
SPECS = {
    "push-v3": EnvironmentSpec((_OBJECT,), (_TURN,), push),
    "push-wall-v3": EnvironmentSpec((_GEOM,), (_TURN,), push_around_wall),
    "push-back-v3": EnvironmentSpec((_GEOM,), (_TURN,), push_back),
    "sweep-v3": EnvironmentSpec((_OBJECT,), (quaternion_of("obj"),), sweep),
    "sweep-into-v3": EnvironmentSpec((_OBJECT,), (_TURN,), sweep_into),
    "coffee-push-v3": _MUG,
    "coffee-pull-v3": _MUG,
    "soccer-v3": EnvironmentSpec((position_of("body", "soccer_ball"),), (RotationMatrix("body", "soccer_ball"),), kick),
}
