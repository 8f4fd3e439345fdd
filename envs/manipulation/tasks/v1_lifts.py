"""V1 rewards of the tasks in which an object is grasped and lifted before it is moved to the goal."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Reward, Scene
from metarl.envs.manipulation.tasks.tool import pulled_by_stick
from metarl.envs.manipulation.tasks.v1_terms import progress_reward
from metarl.envs.manipulation.terms import norm

LIFT_ATTRIBUTES = ("heightTarget", "objHeight", "maxPlacingDist")
STICK_ATTRIBUTES = ("heightTarget", "stickHeight", "maxPlaceDist", "stick_init_pos")
# How far below its target height an object counts as there, and how far above its initial height as off the table.
HEIGHT_TOLERANCE, MIN_LIFT = 0.01, 0.005


def approach(scene: Scene, obj: Tensor, radius: float, weight: float, height: Tensor) -> Tensor:
    """Return the negative cost of the hand's distance to an object ``[W]``.

    Outside ``radius``, in the plane of the table, the hand should keep ``height``; inside, it comes down.
    """
    distance = norm(obj - scene.tcp)
    lateral = norm((obj - scene.tcp)[:, :2])
    height_error = (scene.tcp[:, 2] - height).abs()
    cost = torch.where(lateral < radius, -distance, -lateral - weight * height_error)
    return torch.where(distance < min(radius, 0.05), scene.closing / 50 - distance, cost)


@dataclass(frozen=True)
class Lift:
    """The state of lifting an object.

    Attributes:
        picked: whether the object is at its target height and has not been dropped, bool ``[W]``.
        gain: reward for lifting it ``[W]``.
    """

    picked: Tensor
    gain: Tensor


def lift(
    scene: Scene,
    obj: Tensor,
    remaining: Tensor,
    initial_height: Tensor,
    condition: Tensor | None = None,
    radius: float = 0.1,
    offset: Tensor | float = 0.0,
) -> Lift:
    """Return whether an object is lifted, and the reward for lifting it: 100 per metre.

    Args:
        scene: the worlds.
        obj: the object's position ``[W, 3]``.
        remaining: its distance to the goal ``[W]``; an object at the goal does not count as dropped.
        initial_height: its height at the start of the episode ``[W]``.
        condition: must also hold for the object to count as lifted, bool ``[W]``.
        radius: largest distance of the hand at which raising the object is rewarded, in m.
        offset: subtracted from the heights that are rewarded, in m.
    """
    distance, target = norm(obj - scene.tcp), scene.attributes["heightTarget"]
    at_height = obj[:, 2] >= target - HEIGHT_TOLERANCE
    at_height = at_height if condition is None else at_height & condition
    dropped = (obj[:, 2] < initial_height + MIN_LIFT) & (remaining > 0.02) & (distance > 0.02)
    rising = (distance < radius) & (obj[:, 2] > initial_height + MIN_LIFT)
    picked = at_height & ~dropped
    partial = torch.where(rising, torch.minimum(target, obj[:, 2]) - offset, 0)
    return Lift(picked, 100 * torch.where(picked, target - offset, partial))


def pick_and_place(success: float, weight: float = 2.0, below_initial: float | None = None) -> Reward:
    """Return the reward for lifting an object and bringing it to the goal.

    Args:
        success: largest distance to the goal that counts as success, in m.
        weight: weight of the hand's height error during the approach.
        below_initial: if given, heights are rewarded from this far below the object's initial height, in m.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        remaining, initial_height = norm(scene.object - scene.target), scene.attributes["objHeight"]
        offset = 0.0 if below_initial is None else initial_height - below_initial
        lifted = lift(scene, scene.object, remaining, initial_height, offset=offset)
        gain = progress_reward(remaining, scene.attributes["maxPlacingDist"]).clamp_min(0)
        cost = approach(scene, scene.object, 0.05, weight, scene.initial_tcp[:, 2])
        return cost + lifted.gain + torch.where(
            lifted.picked & (scene.tcp_to_object < 0.1), gain, 0
        ), remaining <= success

    return reward


def close_box(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a lid on a box; success needs a distance strictly below the threshold."""
    reward, _ = pick_and_place(0.08)(scene)
    return reward, norm(scene.object - scene.target) < 0.08


def insert_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Insert a peg into a hole, head first."""
    head, remaining = norm(scene.position("site", "pegHead") - scene.target), norm(scene.object - scene.target)
    lifted = lift(scene, scene.object, remaining, scene.attributes["objHeight"])
    gain = progress_reward(torch.where(head <= 0.05, remaining, head), scene.attributes["maxPlacingDist"]).clamp_min(0)
    cost = approach(scene, scene.object, 0.05, 1.0, scene.initial_tcp[:, 2])
    return cost + lifted.gain + torch.where(lifted.picked & (scene.tcp_to_object < 0.1), gain, 0), remaining <= 0.07


def bin_picking(scene: Scene) -> tuple[Tensor, Tensor]:
    """Move an object to the other bin and release it."""
    obj, initial_height = scene.object, scene.attributes["objHeight"]
    offset = obj - scene.target
    remaining = norm(offset[:, :2])
    over = (offset[:, :2].abs() < 0.05).all(1)
    inside = over & (obj[:, 2] < initial_height + 0.05)
    lifted = lift(scene, obj, remaining, initial_height)
    gain = progress_reward(remaining, scene.attributes["maxPlacingDist"]).clamp_min(0)
    let_go = gain - 200 * scene.effort
    carried = torch.where(lifted.picked & (scene.tcp_to_object < 0.1), torch.where(over, let_go, gain), 0)
    # The hand may come down from farther away, but closes at the same distance.
    cost = approach(scene, obj, 0.06, 1.0, scene.initial_tcp[:, 2])
    return torch.where(inside, let_go, cost + lifted.gain + carried), remaining <= 0.05


def assemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a nut onto a peg."""
    nut, grasp, initial = scene.position("body", "RoundNut"), scene.object, scene.attributes["obj_height"]
    target = scene.attributes["heightTarget"]
    distance, remaining = scene.tcp_to_object, norm((nut - scene.target)[:, :2])
    down = (nut[:, 2] - initial).abs()
    over = ((nut - scene.target)[:, :2].abs() < 0.03).all(1)
    at_height = (nut[:, 2] >= target - HEIGHT_TOLERANCE) & (distance < 0.03)
    dropped = (nut[:, 2] < initial + MIN_LIFT) & (remaining > 0.02) & (distance > 0.02)
    rising = (distance < 0.04) & (nut[:, 2] > initial + MIN_LIFT)
    climb = torch.where(rising, torch.minimum(target, nut[:, 2]), 0)
    pick = 100 * torch.where(over | (at_height & ~dropped), target, climb)
    gain = progress_reward(remaining, scene.attributes["maxPlacingDist"])
    lower = 2000 * (target - down + torch.exp(-down.square() / 0.003) + torch.exp(-down.square() / 0.0003))
    gain = (gain + torch.where(over, lower, 0)).clamp_min(0)
    cost = approach(scene, grasp, 0.04, 1.0, scene.initial_tcp[:, 2])
    carried = torch.where(over | (at_height & ~dropped), gain, 0)
    return cost + pick + carried, over & (down <= 0.04)


def disassemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift a nut off a peg."""
    obj, initial_height, distance = scene.object, scene.attributes["objHeight"], scene.tcp_to_object
    remaining = norm(obj - scene.target)
    lifted = lift(scene, obj, remaining, initial_height, condition=distance < 0.04, radius=0.04)
    gain = progress_reward(remaining, scene.attributes["maxPlacingDist"]).clamp_min(0)
    carried = torch.where(lifted.picked & (distance < 0.03), gain, 0)
    lateral = scene.position("body", "RoundNut") - scene.arms.view("body_pos", "body", "peg")
    free = (lateral[:, :2].abs() > 0.05).any(1)
    cost = approach(scene, obj, 0.04, 2.0, scene.initial_tcp[:, 2])
    before = torch.where(free, 100 * scene.attributes["heightTarget"], cost + lifted.gain)
    return before + carried, obj[:, 2] > scene.target[:, 2]


def _grasp_cost(scene: Scene) -> Tensor:
    return torch.where(scene.tcp_to_object < 0.05, scene.closing / 50, 0) - scene.tcp_to_object


def hammer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Drive a nail in with a hammer."""
    nail, tool = scene.position("site", "nailHead"), scene.object
    hit = norm(nail - scene.position("geom", "HammerHead"))
    lifted = lift(scene, tool, hit, scene.attributes["hammerHeight"])
    remaining = hit + (nail - scene.target)[:, 1].abs()
    gain = progress_reward(remaining, scene.attributes["maxHammerDist"]).clamp_min(0)
    carried = torch.where(lifted.picked & (scene.tcp_to_object < 0.1), gain, 0)
    return _grasp_cost(scene) + lifted.gain + carried, scene.joint("NailSlideJoint") > 0.09


def move_with_stick(limit: str, width: float, done: Callable[[Scene], Tensor]) -> Reward:
    """Return the reward for moving a container with a stick.

    As the container's position the package reads entries 6 to 8 of the observation, which are the stick's height and
    rotation; so do we.

    Args:
        limit: name of the attribute with the container's distance at which the linear reward is zero.
        width: width of the bonus at the goal, in m².
        done: returns whether the goal is reached, bool ``[W]``.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        stick, container = scene.object, scene.observation[:, 6:9]
        remaining, apart = norm(container[:, :2] - scene.target[:, :2]), norm(stick - container)
        lifted = lift(scene, stick, remaining, scene.attributes["stickHeight"])
        move_reward = torch.where(
            apart < 0.05, progress_reward(remaining, scene.attributes[limit], width, bonus=2000), 0
        )
        gain = (progress_reward(apart, scene.attributes["maxPlaceDist"]) + move_reward).clamp_min(0)
        carried = torch.where(lifted.picked & (scene.tcp_to_object < 0.1), gain, 0)
        return _grasp_cost(scene) + lifted.gain + carried, done(scene)

    return reward


def _never(scene: Scene) -> Tensor:
    """Return False for every world: success requires a grasp in the package, which its v1 reward never reports."""
    return torch.zeros_like(scene.opening, dtype=torch.bool)


REWARDS: dict[str, tuple[Reward, tuple[str, ...]]] = {
    "basketball-v3": (pick_and_place(0.08), LIFT_ATTRIBUTES),
    "box-close-v3": (close_box, LIFT_ATTRIBUTES),
    "pick-place-v3": (pick_and_place(0.07), LIFT_ATTRIBUTES),
    "pick-place-wall-v3": (pick_and_place(0.07), LIFT_ATTRIBUTES),
    "shelf-place-v3": (pick_and_place(0.07), LIFT_ATTRIBUTES),
    "pick-out-of-hole-v3": (pick_and_place(0.07, below_initial=0.02), LIFT_ATTRIBUTES),
    "peg-insert-side-v3": (insert_peg, LIFT_ATTRIBUTES),
    "bin-picking-v3": (bin_picking, LIFT_ATTRIBUTES),
    "assembly-v3": (assemble, ("heightTarget", "obj_height", "maxPlacingDist")),
    "disassemble-v3": (disassemble, LIFT_ATTRIBUTES),
    "hammer-v3": (hammer, ("heightTarget", "hammerHeight", "maxHammerDist")),
    "stick-push-v3": (move_with_stick("maxPushDist", 0.001, _never), (*STICK_ATTRIBUTES, "maxPushDist")),
    "stick-pull-v3": (move_with_stick("maxPullDist", 0.01, pulled_by_stick), (*STICK_ATTRIBUTES, "maxPullDist")),
}
