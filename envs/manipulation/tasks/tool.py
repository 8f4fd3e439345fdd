"""Use what the gripper holds: a nut, a hammer, a lid, a peg, a stick."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Scene, Turned, always, at, first_way, turned
from metarl.envs.manipulation.tasks.grasp import caged
from metarl.envs.manipulation.tasks.heights import floor, over
from metarl.envs.manipulation.tasks.lift import lifted
from metarl.envs.manipulation.terms import both, near, norm

# Quaternions of things that lie as they should, as the package rounds them.
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
QUARTER = (0.707, 0.0, 0.0, 0.707)


def _straight(scene: Scene, ideal: tuple[float, ...], tolerance: float) -> Tensor:
    """Return ``[W]`` in [0, 1]: how nearly the first object is turned as it should be."""
    return (1 - norm(scene.rotation - scene.vector(*ideal)) / tolerance).clamp_min(0)


def _along_handle(scene: Scene, half: float) -> Tensor:
    """Return the first object's place ``[W, 3]``, moved along x to the hand where that is over its handle."""
    thing = scene.object
    along = torch.where((thing - scene.hand)[:, :1].abs() < half, scene.hand[:, :1], thing[:, :1])
    return torch.cat((along, thing[:, 1:]), 1)


def assemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a nut over a peg."""
    nut = scene.place("site", "RoundNut")
    way = scene.target - nut
    radius = norm(way[:, :2])
    done = (radius < 0.02) & (way[:, 2] > 0)
    around = torch.where(done, 0.02, 0.01)
    height = torch.where(radius > around, floor(radius - around, 0.0, 0.02, 0.2), 0) - nut[:, 2]
    error = norm(torch.cat((way[:, :2], 3 * height[:, None]), 1))
    up = (nut[:, 2] > 0.02) | (radius < around)
    there = 0.1 * up + 0.9 * near(error, 0.02, 0.4)
    grasp = caged(scene, _along_handle(scene, 0.01), 0.015, 0.01, 0.01, pads=0.02, density="medium")
    return _whole(scene, grasp, there, QUARTER).masked_fill(done, 10), done


def disassemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift a nut off a peg."""
    nut = scene.place("site", "RoundNut")
    error = norm(scene.target + scene.vector(0.0, 0.0, 0.1) - nut)
    there = 0.1 * (nut[:, 2] > 0.02) + 0.9 * near(error, 0.02, 0.2)
    grasp = caged(scene, _along_handle(scene, 0.01), 0.015, 0.01, 0.01, pads=0.02)
    done = scene.height > scene.target[:, 2]
    return _whole(scene, grasp, there, QUARTER).masked_fill(done, 10), done


def hammer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Drive a nail in with a hammer."""
    head = scene.object + scene.vector(0.16, 0.06, 0.0)
    there = 0.1 * (head[:, 2] > 0.02) + 0.9 * near(norm(scene.target - head), 0.02, 0.2)
    grasp = caged(scene, _along_handle(scene, 0.07), 0.015, 0.01, 0.01, pads=0.02)
    reward = _whole(scene, grasp, there, UPRIGHT)
    done = scene.joint("NailSlideJoint") > 0.09
    return reward.masked_fill(done & (reward > 5), 10), done


def _whole(scene: Scene, grasp: Tensor, there: Tensor, ideal: tuple[float, ...]) -> Tensor:
    return (2 * grasp + 6 * there) * _straight(scene, ideal, 0.4)


def close_box(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a lid on a box."""
    lid = scene.object + scene.vector(0.0, 0.0, 0.02)
    ready = both(over(scene.hand, lid, 0.02), near(norm(scene.hand - lid), 0.02, 0.5))
    error = norm((scene.target - lid) * scene.vector(1.0, 1.0, 3.0))
    there = 0.2 * (lid[:, 2] > 0.04) + 0.8 * near(error, 0.05, 0.25)
    done = norm(scene.object - scene.target) < 0.08
    reward = 2 * both((scene.effort + 1) / 2, ready) + 8 * there
    return reward.masked_fill(done, 10) * _straight(scene, QUARTER, 0.2), done


def insert_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a peg into a hole from the side, around the edges of a box."""
    head, target = scene.place("site", "pegHead"), scene.target
    scale = scene.vector(1.0, 2.0, 2.0)
    left = norm((head - target) * scale)
    there = near(left, 0.07, norm((scene.notes["peg_head_pos_init"] - target) * scale))
    there = both(there, both(_outside(scene, head, 2), _outside(scene, head, 1)))
    held = lifted(scene, 0.08, 0.01)
    grasp = caged(scene, scene.object, radius=0.0075, reach=0.01, height=0.005, pads=0.03).masked_fill(held, 1)
    reward = both(grasp, there) + torch.where(held, 1 + 5 * there, 0)
    return reward.masked_fill(left <= 0.07, 10), left <= 0.07


def _outside(scene: Scene, point: Tensor, box: int) -> Tensor:
    """Return 1 outside a box ``[W]``, and inside what rises from 0 to 1 between two of its corners."""
    low = scene.place("site", f"bottom_right_corner_collision_box_{box}")
    high = scene.place("site", f"top_left_corner_collision_box_{box}")
    share = (point - low) / (high - low)
    inside = ((share >= 0) & (share <= 1)).all(1)
    return torch.where(inside, share.prod(1), 1)


def unplug_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a peg out of a hole."""
    left = norm(scene.object - scene.target)
    there = near(left, 0.05, first_way(scene))
    grasp = 2 * caged(scene, scene.object, radius=0.025, reach=0.01, height=0.005, effort=0.8)
    out = (scene.opened > 0.5) & ((scene.object - scene.first_object)[:, 0] > 0.015)
    reward = grasp + torch.where(out & (scene.reach < 0.035), 1 + 5 * there, 0)
    return reward.masked_fill(left <= 0.05, 10), left <= 0.07


def push_with_stick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a container with a stick."""
    stick, target, radius = scene.object + scene.vector(0.015, 0.0, 0.0), scene.target, 0.12
    first = scene.notes["stick_init_pos"]
    left = norm(scene.second_object - target)
    pushed = near(left, radius, first_way(scene) - radius)
    there = near(norm(stick - target), radius, norm(first - target) - radius)
    held = (norm(stick - scene.tcp) < 0.02) & _stick_is_up(scene)
    after = (2 + 5 * there + 3 * pushed).masked_fill(left <= radius, 10)
    return torch.where(held, after, caged(scene, stick, 0.04, 0.01, 0.01, first="stick_init_pos")), pushed_by_stick(
        scene
    )


def pushed_by_stick(scene: Scene) -> Tensor:
    """Return a bool ``[W]``: the container is at the goal, while both pads press on the lifted stick."""
    done = (norm(scene.second_object - scene.target) <= 0.12) & _stick_is_up(scene)
    (asked,) = done.nonzero(as_tuple=True)
    done[asked] = scene.arms.touched(asked, "objGeom")
    return done


def _stick_is_up(scene: Scene) -> Tensor:
    return (scene.opened > 0) & (scene.height - 0.01 > scene.notes["stick_init_pos"][:, 2])


def pull_with_stick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a container by its handle with a stick."""
    stick, handle, target = scene.object, scene.second_object, scene.target
    first, to_middle = scene.notes["stick_init_pos"], scene.vector(0.05, 0.0, 0.0)
    container = handle + to_middle
    scale = scene.vector(1.0, 1.0, 2.0)
    margin = norm((first - scene.first_object - to_middle) * scale)
    at_handle = near(norm((stick - container) * scale), 0.05, margin)
    there = near(norm(stick - target), 0.05, norm(first - target))
    pulled = near(norm(container - target), 0.05, first_way(scene))
    held = (norm(stick - scene.tcp) < 0.02) & _stick_is_up(scene)
    grasp = caged(scene, stick, radius=0.014, reach=0.01, height=0.01).masked_fill(held, 1)
    done = pulled_by_stick(scene)
    more = torch.where(_stick_is_inserted(scene), 6 + 2 * there + pulled, 1 + 5 * at_handle)
    reward = both(grasp, at_handle) + torch.where(held, more, 0)
    return reward.masked_fill(held & done, 10), done


def pulled_by_stick(scene: Scene) -> Tensor:
    """Return a bool ``[W]``: the container's handle is at the goal, with the stick in it."""
    return (norm(scene.second_object - scene.target) <= 0.12) & _stick_is_inserted(scene)


def _stick_is_inserted(scene: Scene) -> Tensor:
    way = scene.place("site", "stick_end") - scene.second_object
    return (way[:, 0] >= 0) & (way[:, 1].abs() <= 0.04) & (way[:, 2].abs() <= 0.06)


_NUT = (at("site", "RoundNut-8"),), (turned("RoundNut"),)
_STICK = Turned("body", "stick"), always(0.0, 0.0, 0.0, 0.0)
_FIRST = ("stick_init_pos",)
KINDS = {
    "assembly-v3": Kind(*_NUT, assemble),
    "disassemble-v3": Kind(*_NUT, disassemble),
    "hammer-v3": Kind((at("body", "hammer"), at("body", "nail_link")), (turned("hammer"), turned("nail_link")), hammer),
    "box-close-v3": Kind((at("body", "top_link"),), (turned("top_link"),), close_box),
    "peg-insert-side-v3": Kind(
        (at("site", "pegGrasp"),), (Turned("site", "pegGrasp"),), insert_peg, ("peg_head_pos_init",)
    ),
    "peg-unplug-side-v3": Kind((at("site", "pegEnd"),), (turned("plug1"),), unplug_peg),
    "stick-push-v3": Kind(
        (at("body", "stick"), at("site", "insertion", 0.0, 0.09, 0.0)), _STICK, push_with_stick, _FIRST, by_contact=True
    ),
    "stick-pull-v3": Kind((at("body", "stick"), at("site", "insertion")), _STICK, pull_with_stick, _FIRST),
}
