"""Grasp an object, lift it, and bring it to the goal."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Scene, Turned, at, first_way, turned
from metarl.envs.manipulation.tasks.grasp import caged, enclosed
from metarl.envs.manipulation.tasks.heights import floor
from metarl.envs.manipulation.terms import both, near, norm

RADIUS = 0.05


def lifted(scene: Scene, reach: float, height: float) -> Tensor:
    """Return a bool ``[W]``: the open gripper is at the first object, which has risen by ``height``."""
    return (scene.reach < reach) & (scene.opened > 0) & (scene.height - height > scene.first_height)


def pick_place(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring an object to a goal in the air."""
    away = norm(scene.object - scene.target)
    there = near(away, RADIUS, first_way(scene))
    caging, _ = enclosed(scene, radius=0.015, height=0.005)
    grasp = (both(caging, torch.where(caging > 0.97, scene.closed, 0)) + caging) / 2
    reward = both(grasp, there) + torch.where(lifted(scene, 0.02, 0.01), 1 + 5 * there, 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


def pick_place_over_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift the object over a wall first, and behind it bring it to the goal."""
    thing, target = scene.object, scene.target
    scale = scene.vector(1.0, 1.0, 3.0)
    top = torch.cat((target[:, :1], scene.vector(0.77, 0.25).expand(len(target), -1)), 1)
    above = near(norm((thing - top) * scale), RADIUS, norm((scene.first_object - top) * scale))
    away = norm(thing - target)
    there = near(away, RADIUS, first_way(scene))
    grasp = caged(scene, thing, radius=0.015, reach=0.01, height=0.005, density="sparse")
    after = torch.where(thing[:, 1] > 0.75, 5 + 3 * there, 1 + 4 * above)
    reward = both(grasp, above) + torch.where(lifted(scene, 0.02, 0.015), after, 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


def basketball(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring a ball to the height of 30 cm above the goal's place."""
    scale = scene.vector(1.0, 1.0, 2.0)
    target = torch.cat((scene.target[:, :2], scene.vector(0.3).expand(len(scene.target), -1)), 1)
    away = norm((scene.object - target) * scale)
    there = near(away, 0.08, norm((scene.first_object - target) * scale))
    held = lifted(scene, 0.035, 0.01)
    grasp = caged(scene, scene.object, radius=0.025, reach=0.01, height=0.005, pads=0.06).masked_fill(held, 1)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * there, 0)
    return reward.masked_fill(away < 0.08, 10), away <= 0.08


def hand_insert(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring an object into a hole, with the hand."""
    away = norm(scene.object - scene.target)
    there = near(away, RADIUS, first_way(scene))
    grasp = caged(scene, scene.object, radius=0.015, reach=0.01, height=0.005)
    held = (scene.reach < 0.02) & (scene.opened > 0)
    reward = both(grasp, there) + torch.where(held, 1 + 7 * there, 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.05


def shelf_place(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put an object on a shelf, and not under it."""
    thing, target = scene.object, scene.target
    away = norm(thing - target)
    there = near(away, RADIUS, first_way(scene))
    grasp = caged(scene, thing, radius=0.02, reach=0.01, height=0.01, density="sparse")
    reward = both(grasp, there)
    x, y, z = thing.unbind(1)
    below = (z > 0) & (z < 0.24) & (target[:, 0] - 0.15 < x) & (x < target[:, 0] + 0.15)
    front = target[:, 1] - 3 * RADIUS
    under = both((y - front) / (3 * RADIUS), (0.24 - z) / 0.24)
    there = torch.where(below & (front < y) & (y < target[:, 1]), (there - under).clamp(0, 1), there)
    there = there.masked_fill(below & (y > target[:, 1]), 0)
    reward = reward + torch.where(lifted(scene, 0.025, 0.01), 1 + 5 * there, 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


def bin_picking(scene: Scene) -> tuple[Tensor, Tensor]:
    """Carry an object from one bin to another, high enough over their edges."""
    thing, hand, target = scene.object, scene.hand, scene.target
    away = norm(thing - target)
    # The margin is the distance after the first step.
    margin = scene.notes["_target_to_obj_init"]
    margin.copy_(torch.where(margin.isnan(), away, margin))
    there = near(away, RADIUS, margin)
    floors = torch.stack([floor(norm(hand[:, :2] - to[:, :2]), 0.03, 0.02, 0.2) for to in (scene.first_object, target)])
    above = near((floors.amin(0) - hand[:, 2]).clamp_min(0), 0.01, 0.05)
    grasp = caged(scene, thing, radius=0.015, reach=0.01, height=0.01, effort=0.7)
    held = (norm(thing - hand) < 0.04) & (thing[:, 2] - 0.02 > scene.first_height) & (scene.opened >= 0.43)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * both(above, there), 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.05


def pick_out_of_hole(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift an object out of a hole, into which the hand must come from above."""
    away = norm(scene.object - scene.target)
    there = near(away, 0.02, first_way(scene))
    lowest = floor(norm((scene.tcp - scene.first_object)[:, :2]), 0.03, 0.015, 0.15)
    above = near((lowest - scene.tcp[:, 2]).clamp_min(0), 0.01, 0.02)
    grasp = caged(scene, scene.object, radius=0.015, reach=0.01, height=0.03, pads=0.02, effort=0.1)
    risen = scene.height - 0.02 > scene.first_height
    held = (scene.reach < 0.04) & risen & (scene.opened >= 0.33)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * both(there, above), 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


_OBJECT = at("body", "obj")
_TURN = Turned("geom", "objGeom")
_BIN = ("_target_to_obj_init",)
KINDS = {
    "pick-place-v3": Kind((_OBJECT,), (_TURN,), pick_place),
    "pick-place-wall-v3": Kind((at("geom", "objGeom"),), (_TURN,), pick_place_over_wall),
    "basketball-v3": Kind((at("body", "bsktball"),), (turned("bsktball"),), basketball),
    "hand-insert-v3": Kind((_OBJECT,), (turned("obj"),), hand_insert),
    "shelf-place-v3": Kind((_OBJECT,), (_TURN,), shelf_place),
    "bin-picking-v3": Kind((_OBJECT,), (turned("obj"),), bin_picking, _BIN),
    "pick-out-of-hole-v3": Kind((_OBJECT,), (turned("obj"),), pick_out_of_hole),
}
