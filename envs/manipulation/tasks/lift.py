"""Grasp an object, lift it, and bring it to the goal."""

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
from metarl.envs.manipulation.tasks.clearance import required_height
from metarl.envs.manipulation.tasks.grasp import caging_reward, enclosure
from metarl.envs.manipulation.terms import hamacher_product, near, norm

RADIUS = 0.05


def lifted(scene: Scene, reach: float, height: float) -> Tensor:
    """Return a bool ``[W]``: the gripper is at the first object, not fully closed, and has lifted it by ``height``."""
    return (scene.tcp_to_object < reach) & (scene.opening > 0) & (scene.height - height > scene.initial_height)


def pick_place(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring an object to a goal in the air."""
    distance = norm(scene.object - scene.target)
    in_place = near(distance, RADIUS, initial_distance(scene))
    caging, _ = enclosure(scene, radius=0.015, height=0.005)
    grasp = (hamacher_product(caging, torch.where(caging > 0.97, scene.closing, 0)) + caging) / 2
    reward = hamacher_product(grasp, in_place) + torch.where(lifted(scene, 0.02, 0.01), 1 + 5 * in_place, 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


def pick_place_over_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift the object over a wall, then bring it to the goal."""
    obj, target = scene.object, scene.target
    scale = scene.vector(1.0, 1.0, 3.0)
    top = torch.cat((target[:, :1], scene.vector(0.77, 0.25).expand(len(target), -1)), 1)
    above = near(norm((obj - top) * scale), RADIUS, norm((scene.initial_object - top) * scale))
    distance = norm(obj - target)
    in_place = near(distance, RADIUS, initial_distance(scene))
    grasp = caging_reward(scene, obj, radius=0.015, reach=0.01, height=0.005, density="sparse")
    after = torch.where(obj[:, 1] > 0.75, 5 + 3 * in_place, 1 + 4 * above)
    reward = hamacher_product(grasp, above) + torch.where(lifted(scene, 0.02, 0.015), after, 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


def basketball(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring a ball to a height of 30 cm above the goal."""
    scale = scene.vector(1.0, 1.0, 2.0)
    target = torch.cat((scene.target[:, :2], scene.vector(0.3).expand(len(scene.target), -1)), 1)
    distance = norm((scene.object - target) * scale)
    in_place = near(distance, 0.08, norm((scene.initial_object - target) * scale))
    held = lifted(scene, 0.035, 0.01)
    grasp = caging_reward(scene, scene.object, radius=0.025, reach=0.01, height=0.005, pads=0.06).masked_fill(held, 1)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * in_place, 0)
    return reward.masked_fill(distance < 0.08, 10), distance <= 0.08


def hand_insert(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put an object into a hole, hand included."""
    distance = norm(scene.object - scene.target)
    in_place = near(distance, RADIUS, initial_distance(scene))
    grasp = caging_reward(scene, scene.object, radius=0.015, reach=0.01, height=0.005)
    held = (scene.tcp_to_object < 0.02) & (scene.opening > 0)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 7 * in_place, 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.05


def shelf_place(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put an object on a shelf; being under the shelf is penalised."""
    obj, target = scene.object, scene.target
    distance = norm(obj - target)
    in_place = near(distance, RADIUS, initial_distance(scene))
    grasp = caging_reward(scene, obj, radius=0.02, reach=0.01, height=0.01, density="sparse")
    reward = hamacher_product(grasp, in_place)
    x, y, z = obj.unbind(1)
    below = (z > 0) & (z < 0.24) & (target[:, 0] - 0.15 < x) & (x < target[:, 0] + 0.15)
    front = target[:, 1] - 3 * RADIUS
    under = hamacher_product((y - front) / (3 * RADIUS), (0.24 - z) / 0.24)
    in_place = torch.where(below & (front < y) & (y < target[:, 1]), (in_place - under).clamp(0, 1), in_place)
    in_place = in_place.masked_fill(below & (y > target[:, 1]), 0)
    reward = reward + torch.where(lifted(scene, 0.025, 0.01), 1 + 5 * in_place, 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


def bin_picking(scene: Scene) -> tuple[Tensor, Tensor]:
    """Carry an object from one bin to another, clear of their edges."""
    obj, hand, target = scene.object, scene.hand, scene.target
    distance = norm(obj - target)
    # The margin is the distance after the first step.
    margin = scene.attributes["_target_to_obj_init"]
    margin.copy_(torch.where(margin.isnan(), distance, margin))
    in_place = near(distance, RADIUS, margin)
    heights = torch.stack(
        [required_height(norm(hand[:, :2] - to[:, :2]), 0.03, 0.02, 0.2) for to in (scene.initial_object, target)]
    )
    above = near((heights.amin(0) - hand[:, 2]).clamp_min(0), 0.01, 0.05)
    grasp = caging_reward(scene, obj, radius=0.015, reach=0.01, height=0.01, effort=0.7)
    held = (norm(obj - hand) < 0.04) & (obj[:, 2] - 0.02 > scene.initial_height) & (scene.opening >= 0.43)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * hamacher_product(above, in_place), 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.05


def pick_out_of_hole(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift an object out of a hole that the hand must enter from above."""
    distance = norm(scene.object - scene.target)
    in_place = near(distance, 0.02, initial_distance(scene))
    lowest = required_height(norm((scene.tcp - scene.initial_object)[:, :2]), 0.03, 0.015, 0.15)
    above = near((lowest - scene.tcp[:, 2]).clamp_min(0), 0.01, 0.02)
    grasp = caging_reward(scene, scene.object, radius=0.015, reach=0.01, height=0.03, pads=0.02, effort=0.1)
    risen = scene.height - 0.02 > scene.initial_height
    held = (scene.tcp_to_object < 0.04) & risen & (scene.opening >= 0.33)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * hamacher_product(in_place, above), 0)
    return reward.masked_fill(distance < RADIUS, 10), distance <= 0.07


_OBJECT = position_of("body", "obj")
_TURN = RotationMatrix("geom", "objGeom")
_BIN = ("_target_to_obj_init",)
SPECS = {
    "pick-place-v3": EnvironmentSpec((_OBJECT,), (_TURN,), pick_place),
    "pick-place-wall-v3": EnvironmentSpec((position_of("geom", "objGeom"),), (_TURN,), pick_place_over_wall),
    "basketball-v3": EnvironmentSpec((position_of("body", "bsktball"),), (quaternion_of("bsktball"),), basketball),
    "hand-insert-v3": EnvironmentSpec((_OBJECT,), (quaternion_of("obj"),), hand_insert),
    "shelf-place-v3": EnvironmentSpec((_OBJECT,), (_TURN,), shelf_place),
    "bin-picking-v3": EnvironmentSpec((_OBJECT,), (quaternion_of("obj"),), bin_picking, _BIN),
    "pick-out-of-hole-v3": EnvironmentSpec((_OBJECT,), (quaternion_of("obj"),), pick_out_of_hole),
}
