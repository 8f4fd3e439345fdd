"""Push or sweep an object to the goal on the table."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Scene, Turned, at, first_way, turned
from metarl.envs.manipulation.tasks.grasp import caged, pinched
from metarl.envs.manipulation.terms import both, near, norm

RADIUS = 0.05


def push(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return up to 2 for the grasp, more for the way of a grasped object, and 10 at the goal."""
    away = norm(scene.object - scene.target)
    there = near(away, RADIUS, first_way(scene))
    grasp = 2 * caged(scene, scene.object, radius=0.015, reach=0.01, height=0.005)
    held = (scene.reach < 0.02) & (scene.opened > 0)
    reward = torch.where(held, 1 + 2 * grasp + 5 * there, grasp)
    return reward.masked_fill(away < RADIUS, 10), away <= RADIUS


def push_around_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push to the left end of a wall first, and behind it to the goal."""
    thing, target = scene.object, scene.target
    scale = scene.vector(3.0, 1.0)
    corner = scene.vector(-0.05, 0.77)
    aside = norm((thing[:, :2] - corner) * scale)
    # The corner is as high as the object is now.
    first = (scene.first_object[:, :2] - corner) * scale
    margin = norm(torch.cat((first, scene.first_object[:, 2:] - thing[:, 2:]), 1))
    away = norm(thing - target)
    grasp = caged(scene, thing, radius=0.015, reach=0.01, height=0.005)
    held = (scene.reach < 0.02) & (scene.opened > 0)
    before = 1 + 4 * near(aside, RADIUS, margin)
    behind = 5 + 3 * near(away, RADIUS, first_way(scene))
    reward = 2 * grasp + torch.where(held, torch.where(thing[:, 1] > 0.75, behind, before), 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


def push_back(scene: Scene) -> tuple[Tensor, Tensor]:
    """Draw the object towards the robot."""
    away, first = norm(scene.object - scene.target), first_way(scene)
    there = near(away, RADIUS, first)
    grasp = pinched(scene, radius=0.007, grip=0.003, height=0.01)
    held = (scene.reach < 0.01) & (scene.opened > 0) & (scene.opened < 0.55) & (first - away > 0.01)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * there, 0)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.07


def sweep(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep the object off the table."""
    return _swept(scene, scene.target, grip=0.01, height=0.005)


def sweep_into(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep the object into a hole, whatever its height."""
    target = torch.cat((scene.target[:, :2], scene.object[:, 2:]), 1)
    return _swept(scene, target, grip=0.005, height=0.01)


def _swept(scene: Scene, target: Tensor, grip: float, height: float) -> tuple[Tensor, Tensor]:
    away = norm(scene.object - target)
    there = near(away, RADIUS, norm(scene.first_object - target))
    grasp = pinched(scene, radius=0.02, grip=grip, height=height)
    reward = 2 * grasp + 6 * both(grasp, there)
    return reward.masked_fill(away < RADIUS, 10), away <= 0.05


def push_mug(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push or pull a mug on the table."""
    scale = scene.vector(2.0, 2.0, 1.0)
    way = scene.object - scene.target
    away = norm(way * scale)
    there = near(away, RADIUS, norm((scene.first_object - scene.target) * scale))
    grasp = caged(scene, scene.object, radius=0.02, reach=0.04, height=0.05, effort=0.7, density="medium")
    held = (scene.reach < 0.04) & (scene.opened > 0)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * there, 0)
    return reward.masked_fill(away < RADIUS, 10), norm(way) <= 0.07


def kick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a ball into a goal, whose line it must cross between the posts."""
    thing, target = scene.object, scene.target
    scale = scene.vector(3.0, 1.0, 1.0)
    away = norm((thing - target) * scale)
    moved = norm((thing - scene.first_object) * scale).clamp_min(1e-9)  # which the package takes for a margin
    there = near(away, 0.07, moved)
    line = target[:, 1] - 0.1
    beyond = thing[:, 1] - line
    missed = (there - 2 * beyond / (1 - line)).clamp(0, 1)
    there = torch.where((beyond > 0) & ((thing - target)[:, 0].abs() > 0.1), missed, there)
    reward = 3 * pinched(scene, radius=0.013, grip=0.01, height=0.005) + 6.5 * there
    return reward.masked_fill(away < 0.07, 10), norm(thing - target) <= 0.07


_OBJECT = at("body", "obj")
_GEOM = at("geom", "objGeom")
_TURN = Turned("geom", "objGeom")
_MUG = Kind((_OBJECT,), (Turned("geom", "mug"),), push_mug)
KINDS = {
    "push-v3": Kind((_OBJECT,), (_TURN,), push),
    "push-wall-v3": Kind((_GEOM,), (_TURN,), push_around_wall),
    "push-back-v3": Kind((_GEOM,), (_TURN,), push_back),
    "sweep-v3": Kind((_OBJECT,), (turned("obj"),), sweep),
    "sweep-into-v3": Kind((_OBJECT,), (_TURN,), sweep_into),
    "coffee-push-v3": _MUG,
    "coffee-pull-v3": _MUG,
    "soccer-v3": Kind((at("body", "soccer_ball"),), (Turned("body", "soccer_ball"),), kick),
}
