"""Meta-World's first rewards: what the hand's way costs, and what the object's way earns.

They are not bounded: an object on its way to the goal earns up to thousands.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Reward, Scene, first_way
from metarl.envs.manipulation.tasks import catalogue, first_lifts
from metarl.envs.manipulation.tasks.first_terms import earned, left_finger, tcp
from metarl.envs.manipulation.terms import norm

Distance = Callable[[Scene], Tensor]
XY, EVERYWHERE = slice(0, 2), slice(0, 3)


def apart(axes: slice) -> Distance:
    """Return the distance of the first object from the goal along some axes."""
    return lambda scene: norm((scene.object - scene.target)[:, axes])


def along(axis: int) -> Distance:
    """Return the distance of the first object from the goal along one axis."""
    return lambda scene: (scene.object - scene.target)[:, axis].abs()


def moved(
    left: Distance,
    most: str,
    success: float,
    finger: Distance = tcp,
    narrow: float = 0.01,
    shown: Distance | None = None,
) -> Reward:
    """Return the reward of moving an object with a hand that is at it.

    Args:
        left: how far the object is from the goal ``[W]``.
        most: the name of the note that says how far it may be to earn something.
        success: how far it may be to succeed.
        finger: what should be at the object ``[W, 3]``.
        narrow: width of the bonus at the goal, in m².
        shown: the distance that success depends on, if it is another.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        away, distance = norm(scene.object - finger(scene)), left(scene)
        gain = earned(distance, scene.notes[most], narrow).clamp_min(0)
        reached = (distance if shown is None else shown(scene)) <= success
        return torch.where(away < 0.05, gain, 0) - away, reached

    return reward


def reach(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring the hand to the goal."""
    left = norm(scene.tcp - scene.target)
    return earned(left, scene.notes["maxReachDist"]).clamp_min(0), left <= 0.05


def slide_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window; going too far costs."""
    away, left = scene.reach, along(0)(scene)
    return torch.where(away < 0.05, earned(left, scene.notes["maxPullDist"]), 0) - away, left <= 0.05


def hand_insert(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring the hand over the goal, and down to it. Success depends on the placement alone."""
    way = scene.tcp - scene.target
    aside = norm(way[:, :2])
    gain = torch.where(aside < 0.05, earned(way[:, 2].abs(), scene.notes["maxReachDist"]), 0).clamp_min(0)
    return gain - aside, first_way(scene) <= 0.05


def pull_mug(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a mug; the way of the hand is measured from the origin of the table."""
    away = scene.reach
    from_origin = norm(torch.cat((scene.object[:, :2], scene.first_tcp[:, 2:]), 1))
    hold = torch.where(away < 0.05, scene.closed / 50, 0)
    approach = torch.where(from_origin < 0.05, 0.1 - away + hold, -from_origin)
    gain = earned(apart(XY)(scene), scene.notes["maxPullDist"]).clamp_min(0)
    return approach + torch.where(away < 0.05, gain, 0), apart(EVERYWHERE)(scene) <= 0.07


def unplug_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a peg out of a hole."""
    left = apart(XY)(scene)
    height = scene.notes["hand_init_pos"][:, 2]
    approach = first_lifts.approach(scene, scene.object, 0.05, 2.0, height)
    gain = earned(left, scene.notes["maxPlacingDist"]).clamp_min(0)
    return approach + torch.where(scene.reach < 0.05, gain, 0), left <= 0.07


def sweep(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep an object off the table."""
    return _swept(scene, scene.height < scene.first_height - 0.05)


def sweep_into(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep an object into a hole."""
    thing = scene.object
    below = thing[:, 2] < scene.first_height - 0.05
    return _swept(scene, below & (thing[:, 1] > 0.4) & (thing[:, 1] < 1))


def _swept(scene: Scene, fallen: Tensor) -> tuple[Tensor, Tensor]:
    away = scene.reach
    left = apart(XY)(scene).masked_fill(fallen, 0)
    gain = earned(left, scene.notes["maxPushDist"]).clamp_min(0)
    return torch.where(away < 0.05, gain, 0) - away.masked_fill(fallen, 0), left <= 0.05


def _kind(name: str, reward: Reward, *notes: str) -> Kind:
    return replace(catalogue.KINDS[name], reward=reward, notes=notes, by_contact=False)


def _moved(name: str, left: Distance, most: str, success: float, **settings: Distance | float) -> Kind:
    return _kind(name, moved(left, most, success, **settings), most)  # type: ignore[arg-type]


def _door(scene: Scene) -> Tensor:
    return along(0)(scene)


def _pushed(name: str, success: float, shown: Distance | None = None) -> Kind:
    return _kind(name, moved(apart(XY), "maxPushDist", success, shown=shown), "maxPushDist")


_PULLED = "maxPullDist"
KINDS: dict[str, Kind] = {
    "reach-v3": _kind("reach-v3", reach, "maxReachDist"),
    "reach-wall-v3": _kind("reach-wall-v3", reach, "maxReachDist"),
    "push-v3": _pushed("push-v3", 0.05),
    "push-wall-v3": _pushed("push-wall-v3", 0.07),
    "push-back-v3": _pushed("push-back-v3", 0.07),
    "soccer-v3": _pushed("soccer-v3", 0.07),
    "coffee-push-v3": _pushed("coffee-push-v3", 0.07, apart(EVERYWHERE)),
    "coffee-pull-v3": _kind("coffee-pull-v3", pull_mug, _PULLED),
    "sweep-v3": _kind("sweep-v3", sweep, "maxPushDist"),
    "sweep-into-v3": _kind("sweep-into-v3", sweep_into, "maxPushDist"),
    "hand-insert-v3": _kind("hand-insert-v3", hand_insert, "maxReachDist"),
    "button-press-topdown-v3": _moved("button-press-topdown-v3", along(2), "maxDist", 0.024),
    "button-press-topdown-wall-v3": _moved("button-press-topdown-wall-v3", along(2), "maxDist", 0.024),
    "button-press-v3": _moved("button-press-v3", along(1), "maxDist", 0.02, finger=left_finger),
    "button-press-wall-v3": _moved("button-press-wall-v3", along(1), "maxDist", 0.03, finger=left_finger),
    "coffee-button-v3": _moved("coffee-button-v3", along(1), "maxDist", 0.02, finger=left_finger),
    "handle-press-v3": _moved("handle-press-v3", along(2), "maxDist", 0.02, finger=left_finger),
    "handle-press-side-v3": _moved("handle-press-side-v3", along(2), "maxDist", 0.02, finger=left_finger),
    "handle-pull-v3": _moved("handle-pull-v3", along(2), "maxDist", 0.05, finger=left_finger),
    "handle-pull-side-v3": _moved("handle-pull-side-v3", along(2), "maxDist", 0.08, finger=left_finger),
    "drawer-open-v3": _moved("drawer-open-v3", along(1), "maxDist", 0.03),
    "drawer-close-v3": _moved("drawer-close-v3", along(1), "maxDist", 0.065),
    "window-open-v3": _kind("window-open-v3", slide_window, _PULLED),
    "window-close-v3": _kind("window-close-v3", slide_window, _PULLED),
    "plate-slide-v3": _moved("plate-slide-v3", apart(XY), "maxDist", 0.07),
    "plate-slide-side-v3": _moved("plate-slide-side-v3", apart(XY), "maxDist", 0.07),
    "plate-slide-back-v3": _moved("plate-slide-back-v3", apart(XY), "maxDist", 0.07),
    "plate-slide-back-side-v3": _moved("plate-slide-back-side-v3", apart(XY), "maxDist", 0.07),
    "door-open-v3": _moved("door-open-v3", apart(XY), _PULLED, 0.08, shown=_door),
    "door-close-v3": _moved("door-close-v3", apart(XY), _PULLED, 0.08),
    "door-lock-v3": _moved("door-lock-v3", apart(EVERYWHERE), _PULLED, 0.02),
    "door-unlock-v3": _moved("door-unlock-v3", apart(EVERYWHERE), _PULLED, 0.02),
    "faucet-open-v3": _moved("faucet-open-v3", apart(EVERYWHERE), _PULLED, 0.07),
    "faucet-close-v3": _moved("faucet-close-v3", apart(EVERYWHERE), _PULLED, 0.07),
    "dial-turn-v3": _moved("dial-turn-v3", along(1), _PULLED, 0.07, narrow=0.001),
    "lever-pull-v3": _moved("lever-pull-v3", apart(EVERYWHERE), _PULLED, torch.pi / 24),
    "peg-unplug-side-v3": _kind("peg-unplug-side-v3", unplug_peg, "maxPlacingDist"),
    **{name: _kind(name, reward, *notes) for name, (reward, notes) in first_lifts.REWARDS.items()},
}
