"""Use an object held by the gripper: a nut, a hammer, a lid, a peg or a stick."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import (
    EnvironmentSpec,
    RotationMatrix,
    Scene,
    fixed_values,
    initial_distance,
    position_of,
    quaternion_of,
)
from metarl.envs.manipulation.tasks.clearance import high_enough, required_height
from metarl.envs.manipulation.tasks.grasp import caging_reward
from metarl.envs.manipulation.tasks.lift import lifted
from metarl.envs.manipulation.terms import hamacher_product, near, norm

# Target orientations as quaternions, rounded as in the package.
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
QUARTER = (0.707, 0.0, 0.0, 0.707)


def _alignment(scene: Scene, ideal: tuple[float, ...], tolerance: float) -> Tensor:
    """Return how close the first object is to a target orientation ``[W]``, in [0, 1]."""
    return (1 - norm(scene.rotation - scene.vector(*ideal)) / tolerance).clamp_min(0)


def _along_handle(scene: Scene, half: float) -> Tensor:
    """Return the first object's position ``[W, 3]``, with the hand's x where the hand is over the object's handle."""
    obj = scene.object
    along = torch.where((obj - scene.hand)[:, :1].abs() < half, scene.hand[:, :1], obj[:, :1])
    return torch.cat((along, obj[:, 1:]), 1)


def assemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a nut onto a peg."""
    nut = scene.position("site", "RoundNut")
    offset = scene.target - nut
    radius = norm(offset[:, :2])
    done = (radius < 0.02) & (offset[:, 2] > 0)
    around = torch.where(done, 0.02, 0.01)
    height = torch.where(radius > around, required_height(radius - around, 0.0, 0.02, 0.2), 0) - nut[:, 2]
    error = norm(torch.cat((offset[:, :2], 3 * height[:, None]), 1))
    up = (nut[:, 2] > 0.02) | (radius < around)
    in_place = 0.1 * up + 0.9 * near(error, 0.02, 0.4)
    grasp = caging_reward(scene, _along_handle(scene, 0.01), 0.015, 0.01, 0.01, pads=0.02, density="medium")
    return _tool_reward(scene, grasp, in_place, QUARTER).masked_fill(done, 10), done


def disassemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift a nut off a peg."""
    nut = scene.position("site", "RoundNut")
    error = norm(scene.target + scene.vector(0.0, 0.0, 0.1) - nut)
    in_place = 0.1 * (nut[:, 2] > 0.02) + 0.9 * near(error, 0.02, 0.2)
    grasp = caging_reward(scene, _along_handle(scene, 0.01), 0.015, 0.01, 0.01, pads=0.02)
    done = scene.height > scene.target[:, 2]
    return _tool_reward(scene, grasp, in_place, QUARTER).masked_fill(done, 10), done


def hammer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Drive a nail in with a hammer."""
    head = scene.object + scene.vector(0.16, 0.06, 0.0)
    in_place = 0.1 * (head[:, 2] > 0.02) + 0.9 * near(norm(scene.target - head), 0.02, 0.2)
    grasp = caging_reward(scene, _along_handle(scene, 0.07), 0.015, 0.01, 0.01, pads=0.02)
    reward = _tool_reward(scene, grasp, in_place, UPRIGHT)
    done = scene.joint("NailSlideJoint") > 0.09
    return reward.masked_fill(done & (reward > 5), 10), done


def _tool_reward(scene: Scene, grasp: Tensor, in_place: Tensor, ideal: tuple[float, ...]) -> Tensor:
    return (2 * grasp + 6 * in_place) * _alignment(scene, ideal, 0.4)


def close_box(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a lid on a box."""
    lid = scene.object + scene.vector(0.0, 0.0, 0.02)
    ready = hamacher_product(high_enough(scene.hand, lid, 0.02), near(norm(scene.hand - lid), 0.02, 0.5))
    error = norm((scene.target - lid) * scene.vector(1.0, 1.0, 3.0))
    in_place = 0.2 * (lid[:, 2] > 0.04) + 0.8 * near(error, 0.05, 0.25)
    done = norm(scene.object - scene.target) < 0.08
    reward = 2 * hamacher_product((scene.effort + 1) / 2, ready) + 8 * in_place
    return reward.masked_fill(done, 10) * _alignment(scene, QUARTER, 0.2), done


def insert_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Insert a peg into a hole from the side, avoiding the edges of a box."""
    head, target = scene.position("site", "pegHead"), scene.target
    scale = scene.vector(1.0, 2.0, 2.0)
    remaining = norm((head - target) * scale)
    in_place = near(remaining, 0.07, norm((scene.attributes["peg_head_pos_init"] - target) * scale))
    in_place = hamacher_product(in_place, hamacher_product(_outside(scene, head, 2), _outside(scene, head, 1)))
    held = lifted(scene, 0.08, 0.01)
    grasp = caging_reward(scene, scene.object, radius=0.0075, reach=0.01, height=0.005, pads=0.03).masked_fill(held, 1)
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * in_place, 0)
    return reward.masked_fill(remaining <= 0.07, 10), remaining <= 0.07


def _outside(scene: Scene, point: Tensor, box: int) -> Tensor:
    """Return 1 outside a box, and inside it a value from 0 at one corner to 1 at the opposite one ``[W]``."""
    low = scene.position("site", f"bottom_right_corner_collision_box_{box}")
    high = scene.position("site", f"top_left_corner_collision_box_{box}")
    share = (point - low) / (high - low)
    inside = ((share >= 0) & (share <= 1)).all(1)
    return torch.where(inside, share.prod(1), 1)


def unplug_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a peg out of a hole."""
    remaining = norm(scene.object - scene.target)
    in_place = near(remaining, 0.05, initial_distance(scene))
    grasp = 2 * caging_reward(scene, scene.object, radius=0.025, reach=0.01, height=0.005, effort=0.8)
    out = (scene.opening > 0.5) & ((scene.object - scene.initial_object)[:, 0] > 0.015)
    reward = grasp + torch.where(out & (scene.tcp_to_object < 0.035), 1 + 5 * in_place, 0)
    return reward.masked_fill(remaining <= 0.05, 10), remaining <= 0.07


def push_with_stick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a container with a stick."""
    stick, target, radius = scene.object + scene.vector(0.015, 0.0, 0.0), scene.target, 0.12
    initial = scene.attributes["stick_init_pos"]
    remaining = norm(scene.second_object - target)
    pushed = near(remaining, radius, initial_distance(scene) - radius)
    in_place = near(norm(stick - target), radius, norm(initial - target) - radius)
    held = (norm(stick - scene.tcp) < 0.02) & _stick_is_up(scene)
    after = (2 + 5 * in_place + 3 * pushed).masked_fill(remaining <= radius, 10)
    before = caging_reward(scene, stick, 0.04, 0.01, 0.01, initial="stick_init_pos")
    return torch.where(held, after, before), pushed_by_stick(scene)


def pushed_by_stick(scene: Scene) -> Tensor:
    """Return a bool ``[W]``: the container is at the goal while both pads grip the lifted stick."""
    done = (norm(scene.second_object - scene.target) <= 0.12) & _stick_is_up(scene)
    (asked,) = done.nonzero(as_tuple=True)
    done[asked] = scene.arms.gripped(asked, "objGeom")
    return done


def _stick_is_up(scene: Scene) -> Tensor:
    return (scene.opening > 0) & (scene.height - 0.01 > scene.attributes["stick_init_pos"][:, 2])


def pull_with_stick(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a container by its handle with a stick."""
    stick, handle, target = scene.object, scene.second_object, scene.target
    initial, to_middle = scene.attributes["stick_init_pos"], scene.vector(0.05, 0.0, 0.0)
    container = handle + to_middle
    scale = scene.vector(1.0, 1.0, 2.0)
    margin = norm((initial - scene.initial_object - to_middle) * scale)
    at_handle = near(norm((stick - container) * scale), 0.05, margin)
    in_place = near(norm(stick - target), 0.05, norm(initial - target))
    pulled = near(norm(container - target), 0.05, initial_distance(scene))
    held = (norm(stick - scene.tcp) < 0.02) & _stick_is_up(scene)
    grasp = caging_reward(scene, stick, radius=0.014, reach=0.01, height=0.01).masked_fill(held, 1)
    done = pulled_by_stick(scene)
    more = torch.where(_stick_is_inserted(scene), 6 + 2 * in_place + pulled, 1 + 5 * at_handle)
    reward = hamacher_product(grasp, at_handle) + torch.where(held, more, 0)
    return reward.masked_fill(held & done, 10), done


def pulled_by_stick(scene: Scene) -> Tensor:
    """Return a bool ``[W]``: the container's handle is at the goal, with the stick inserted."""
    return (norm(scene.second_object - scene.target) <= 0.12) & _stick_is_inserted(scene)


def _stick_is_inserted(scene: Scene) -> Tensor:
    offset = scene.position("site", "stick_end") - scene.second_object
    return (offset[:, 0] >= 0) & (offset[:, 1].abs() <= 0.04) & (offset[:, 2].abs() <= 0.06)


_NUT = (position_of("site", "RoundNut-8"),), (quaternion_of("RoundNut"),)
_STICK = RotationMatrix("body", "stick"), fixed_values(0.0, 0.0, 0.0, 0.0)
_STICK_ATTRIBUTES = ("stick_init_pos",)
SPECS = {
    "assembly-v3": EnvironmentSpec(*_NUT, assemble),
    "disassemble-v3": EnvironmentSpec(*_NUT, disassemble),
    "hammer-v3": EnvironmentSpec(
        (position_of("body", "hammer"), position_of("body", "nail_link")),
        (quaternion_of("hammer"), quaternion_of("nail_link")),
        hammer,
    ),
    "box-close-v3": EnvironmentSpec((position_of("body", "top_link"),), (quaternion_of("top_link"),), close_box),
    "peg-insert-side-v3": EnvironmentSpec(
        (position_of("site", "pegGrasp"),), (RotationMatrix("site", "pegGrasp"),), insert_peg, ("peg_head_pos_init",)
    ),
    "peg-unplug-side-v3": EnvironmentSpec((position_of("site", "pegEnd"),), (quaternion_of("plug1"),), unplug_peg),
    "stick-push-v3": EnvironmentSpec(
        (position_of("body", "stick"), position_of("site", "insertion", 0.0, 0.09, 0.0)),
        _STICK,
        push_with_stick,
        _STICK_ATTRIBUTES,
        needs_contact_forces=True,
    ),
    "stick-pull-v3": EnvironmentSpec(
        (position_of("body", "stick"), position_of("site", "insertion")), _STICK, pull_with_stick, _STICK_ATTRIBUTES
    ),
}
