"""First rewards of what is grasped and lifted before it earns on its way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Reward, Scene
from metarl.envs.manipulation.tasks.first_terms import earned
from metarl.envs.manipulation.tasks.tool import pulled_by_stick
from metarl.envs.manipulation.terms import norm

LIFT = ("heightTarget", "objHeight", "maxPlacingDist")
STICK = ("heightTarget", "stickHeight", "maxPlaceDist", "stick_init_pos")
# An object counts as lifted this far below the height to which it should be lifted, and from this far above its first.
SHORT, ABOVE = 0.01, 0.005


def approach(scene: Scene, thing: Tensor, radius: float, weight: float, height: Tensor) -> Tensor:
    """Return what the hand's way to an object costs ``[W]``: it is to come down from ``height`` within ``radius``."""
    away = norm(thing - scene.tcp)
    aside = norm((thing - scene.tcp)[:, :2])
    high = (scene.tcp[:, 2] - height).abs()
    cost = torch.where(aside < radius, -away, -aside - weight * high)
    return torch.where(away < min(radius, 0.05), scene.closed / 50 - away, cost)


@dataclass(frozen=True)
class Lift:
    """How far an object is lifted.

    Attributes:
        picked: it is at its height and not dropped, bool ``[W]``.
        gain: for lifting it ``[W]``.
    """

    picked: Tensor
    gain: Tensor


def lift(
    scene: Scene,
    thing: Tensor,
    left: Tensor,
    high: Tensor,
    also: Tensor | None = None,
    hold: float = 0.1,
    less: Tensor | float = 0.0,
) -> Lift:
    """Return how far an object is lifted, and what is earned: 100 for each metre.

    Args:
        scene: the worlds.
        thing: the object ``[W, 3]``.
        left: how far it is from the goal ``[W]``; at the goal it is not dropped.
        high: its height at the start ``[W]``.
        also: what else must be true to have it at its height, bool ``[W]``.
        hold: how near the hand must be to earn something on the way up, in m.
        less: taken from the heights that earn.
    """
    away, target = norm(thing - scene.tcp), scene.notes["heightTarget"]
    up = thing[:, 2] >= target - SHORT
    up = up if also is None else up & also
    dropped = (thing[:, 2] < high + ABOVE) & (left > 0.02) & (away > 0.02)
    rising = (away < hold) & (thing[:, 2] > high + ABOVE)
    picked = up & ~dropped
    on_the_way = torch.where(rising, torch.minimum(target, thing[:, 2]) - less, 0)
    return Lift(picked, 100 * torch.where(picked, target - less, on_the_way))


def placed(success: float, weight: float = 2.0, above_first: float | None = None) -> Reward:
    """Return the reward of lifting an object and bringing it to the goal.

    Args:
        success: how near to the goal it must come, in m.
        weight: of the hand's height on its way.
        above_first: with it, heights earn from so far below the object's first.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        left, high = norm(scene.object - scene.target), scene.notes["objHeight"]
        less = 0.0 if above_first is None else high - above_first
        lifted = lift(scene, scene.object, left, high, less=less)
        gain = earned(left, scene.notes["maxPlacingDist"]).clamp_min(0)
        cost = approach(scene, scene.object, 0.05, weight, scene.first_tcp[:, 2])
        return cost + lifted.gain + torch.where(lifted.picked & (scene.reach < 0.1), gain, 0), left <= success

    return reward


def close_box(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a lid on a box; the border of success does not belong to it."""
    reward, _ = placed(0.08)(scene)
    return reward, norm(scene.object - scene.target) < 0.08


def insert_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a peg into a hole: its head first."""
    head, left = norm(scene.place("site", "pegHead") - scene.target), norm(scene.object - scene.target)
    lifted = lift(scene, scene.object, left, scene.notes["objHeight"])
    gain = earned(torch.where(head <= 0.05, left, head), scene.notes["maxPlacingDist"]).clamp_min(0)
    cost = approach(scene, scene.object, 0.05, 1.0, scene.first_tcp[:, 2])
    return cost + lifted.gain + torch.where(lifted.picked & (scene.reach < 0.1), gain, 0), left <= 0.07


def bin_picking(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring an object into the other bin, and let it go."""
    thing, high = scene.object, scene.notes["objHeight"]
    way = thing - scene.target
    left = norm(way[:, :2])
    over = (way[:, :2].abs() < 0.05).all(1)
    inside = over & (thing[:, 2] < high + 0.05)
    lifted = lift(scene, thing, left, high)
    gain = earned(left, scene.notes["maxPlacingDist"]).clamp_min(0)
    let_go = gain - 200 * scene.effort
    carried = torch.where(lifted.picked & (scene.reach < 0.1), torch.where(over, let_go, gain), 0)
    # Over the bins the hand may come down from further away, but closes at the same distance.
    cost = approach(scene, thing, 0.06, 1.0, scene.first_tcp[:, 2])
    return torch.where(inside, let_go, cost + lifted.gain + carried), left <= 0.05


def assemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Put a nut over a peg."""
    nut, grasp, first = scene.place("body", "RoundNut"), scene.object, scene.notes["obj_height"]
    target = scene.notes["heightTarget"]
    away, left = scene.reach, norm((nut - scene.target)[:, :2])
    down = (nut[:, 2] - first).abs()
    over = ((nut - scene.target)[:, :2].abs() < 0.03).all(1)
    up = (nut[:, 2] >= target - SHORT) & (away < 0.03)
    dropped = (nut[:, 2] < first + ABOVE) & (left > 0.02) & (away > 0.02)
    rising = (away < 0.04) & (nut[:, 2] > first + ABOVE)
    climb = torch.where(rising, torch.minimum(target, nut[:, 2]), 0)
    pick = 100 * torch.where(over | (up & ~dropped), target, climb)
    gain = earned(left, scene.notes["maxPlacingDist"])
    lower = 2000 * (target - down + torch.exp(-down.square() / 0.003) + torch.exp(-down.square() / 0.0003))
    gain = (gain + torch.where(over, lower, 0)).clamp_min(0)
    cost = approach(scene, grasp, 0.04, 1.0, scene.first_tcp[:, 2])
    carried = torch.where(over | (up & ~dropped), gain, 0)
    return cost + pick + carried, over & (down <= 0.04)


def disassemble(scene: Scene) -> tuple[Tensor, Tensor]:
    """Lift a nut off a peg."""
    thing, high, away = scene.object, scene.notes["objHeight"], scene.reach
    left = norm(thing - scene.target)
    lifted = lift(scene, thing, left, high, also=away < 0.04, hold=0.04)
    gain = earned(left, scene.notes["maxPlacingDist"]).clamp_min(0)
    carried = torch.where(lifted.picked & (away < 0.03), gain, 0)
    aside = scene.place("body", "RoundNut") - scene.arms.view("body_pos", "body", "peg")
    free = (aside[:, :2].abs() > 0.05).any(1)
    cost = approach(scene, thing, 0.04, 2.0, scene.first_tcp[:, 2])
    before = torch.where(free, 100 * scene.notes["heightTarget"], cost + lifted.gain)
    return before + carried, thing[:, 2] > scene.target[:, 2]


def _grasp_cost(scene: Scene) -> Tensor:
    return torch.where(scene.reach < 0.05, scene.closed / 50, 0) - scene.reach


def hammer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Drive a nail in with a hammer."""
    nail, tool = scene.place("site", "nailHead"), scene.object
    hit = norm(nail - scene.place("geom", "HammerHead"))
    lifted = lift(scene, tool, hit, scene.notes["hammerHeight"])
    left = hit + (nail - scene.target)[:, 1].abs()
    gain = earned(left, scene.notes["maxHammerDist"]).clamp_min(0)
    carried = torch.where(lifted.picked & (scene.reach < 0.1), gain, 0)
    return _grasp_cost(scene) + lifted.gain + carried, scene.joint("NailSlideJoint") > 0.09


def with_stick(most: str, narrow: float, done: Callable[[Scene], Tensor]) -> Reward:
    """Return the reward of moving a container with a stick.

    The package takes numbers of the observation for the container that are the stick's height and rotation.

    Args:
        most: the note that says how far the container may be to earn something.
        narrow: width of the bonus at the goal, in m².
        done: where the goal is reached, bool ``[W]``.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        stick, container = scene.object, scene.seen[:, 6:9]
        left, apart = norm(container[:, :2] - scene.target[:, :2]), norm(stick - container)
        lifted = lift(scene, stick, left, scene.notes["stickHeight"])
        moved = torch.where(apart < 0.05, earned(left, scene.notes[most], narrow, bonus=2000), 0)
        gain = (earned(apart, scene.notes["maxPlaceDist"]) + moved).clamp_min(0)
        carried = torch.where(lifted.picked & (scene.reach < 0.1), gain, 0)
        return _grasp_cost(scene) + lifted.gain + carried, done(scene)

    return reward


def _never(scene: Scene) -> Tensor:
    """Return that no world reached the goal: the package asks for a grasp, which its first reward never reports."""
    return torch.zeros_like(scene.opened, dtype=torch.bool)


REWARDS: dict[str, tuple[Reward, tuple[str, ...]]] = {
    "basketball-v3": (placed(0.08), LIFT),
    "box-close-v3": (close_box, LIFT),
    "pick-place-v3": (placed(0.07), LIFT),
    "pick-place-wall-v3": (placed(0.07), LIFT),
    "shelf-place-v3": (placed(0.07), LIFT),
    "pick-out-of-hole-v3": (placed(0.07, above_first=0.02), LIFT),
    "peg-insert-side-v3": (insert_peg, LIFT),
    "bin-picking-v3": (bin_picking, LIFT),
    "assembly-v3": (assemble, ("heightTarget", "obj_height", "maxPlacingDist")),
    "disassemble-v3": (disassemble, LIFT),
    "hammer-v3": (hammer, ("heightTarget", "hammerHeight", "maxHammerDist")),
    "stick-push-v3": (with_stick("maxPushDist", 0.001, _never), (*STICK, "maxPushDist")),
    "stick-pull-v3": (with_stick("maxPullDist", 0.01, pulled_by_stick), (*STICK, "maxPullDist")),
}
