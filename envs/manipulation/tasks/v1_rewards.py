"""Meta-World's v1 rewards: a cost for the hand's distance to the object, a reward for the object's progress.

They are unbounded: moving an object to the goal is worth up to several thousand.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import EnvironmentSpec, Reward, Scene, initial_distance
from metarl.envs.manipulation.tasks import catalogue, v1_lifts
from metarl.envs.manipulation.tasks.v1_terms import left_finger, progress_reward, tcp
from metarl.envs.manipulation.terms import norm

Distance = Callable[[Scene], Tensor]
XY, XYZ = slice(0, 2), slice(0, 3)


def distance_in(axes: slice) -> Distance:
    """Return a function that computes the first object's distance to the goal in the given axes."""
    return lambda scene: norm((scene.object - scene.target)[:, axes])


def distance_along(axis: int) -> Distance:
    """Return a function that computes the first object's distance to the goal along one axis."""
    return lambda scene: (scene.object - scene.target)[:, axis].abs()


def move_object(
    remaining: Distance,
    limit: str,
    success: float,
    finger: Distance = tcp,
    width: float = 0.01,
    success_distance: Distance | None = None,
) -> Reward:
    """Return the reward for moving an object to the goal, paid only while the hand is at the object.

    Args:
        remaining: computes the object's distance to the goal ``[W]``.
        limit: name of the attribute with the distance at which the linear reward is zero.
        success: largest distance that counts as success, in m.
        finger: computes the point that should be at the object ``[W, 3]``.
        width: width of the bonus at the goal, in m².
        success_distance: computes the distance that decides success, if it is not ``remaining``.
    """

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        reach, distance = norm(scene.object - finger(scene)), remaining(scene)
        gain = progress_reward(distance, scene.attributes[limit], width).clamp_min(0)
        reached = (distance if success_distance is None else success_distance(scene)) <= success
        return torch.where(reach < 0.05, gain, 0) - reach, reached

    return reward


def reach(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring the hand to the goal."""
    remaining = norm(scene.tcp - scene.target)
    return progress_reward(remaining, scene.attributes["maxReachDist"]).clamp_min(0), remaining <= 0.05


def slide_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window; overshooting is penalised."""
    distance, remaining = scene.tcp_to_object, distance_along(0)(scene)
    gain = progress_reward(remaining, scene.attributes["maxPullDist"])
    return torch.where(distance < 0.05, gain, 0) - distance, remaining <= 0.05


def hand_insert(scene: Scene) -> tuple[Tensor, Tensor]:
    """Bring the hand above the goal and down to it. Success depends only on the placement, as in the package."""
    offset = scene.tcp - scene.target
    lateral = norm(offset[:, :2])
    gain = progress_reward(offset[:, 2].abs(), scene.attributes["maxReachDist"]).clamp_min(0)
    return torch.where(lateral < 0.05, gain, 0) - lateral, initial_distance(scene) <= 0.05


def pull_mug(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a mug; the hand's lateral distance is measured from the origin of the table, as in the package."""
    distance = scene.tcp_to_object
    from_origin = norm(torch.cat((scene.object[:, :2], scene.initial_tcp[:, 2:]), 1))
    grip = torch.where(distance < 0.05, scene.closing / 50, 0)
    approach = torch.where(from_origin < 0.05, 0.1 - distance + grip, -from_origin)
    gain = progress_reward(distance_in(XY)(scene), scene.attributes["maxPullDist"]).clamp_min(0)
    return approach + torch.where(distance < 0.05, gain, 0), distance_in(XYZ)(scene) <= 0.07


def unplug_peg(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a peg out of a hole."""
    remaining = distance_in(XY)(scene)
    height = scene.attributes["hand_init_pos"][:, 2]
    approach = v1_lifts.approach(scene, scene.object, 0.05, 2.0, height)
    gain = progress_reward(remaining, scene.attributes["maxPlacingDist"]).clamp_min(0)
    return approach + torch.where(scene.tcp_to_object < 0.05, gain, 0), remaining <= 0.07


def sweep(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep an object off the table."""
    return _swept(scene, scene.height < scene.initial_height - 0.05)


def sweep_into(scene: Scene) -> tuple[Tensor, Tensor]:
    """Sweep an object into a hole."""
    obj = scene.object
    below = obj[:, 2] < scene.initial_height - 0.05
    return _swept(scene, below & (obj[:, 1] > 0.4) & (obj[:, 1] < 1))


def _swept(scene: Scene, fallen: Tensor) -> tuple[Tensor, Tensor]:
    distance = scene.tcp_to_object
    remaining = distance_in(XY)(scene).masked_fill(fallen, 0)
    gain = progress_reward(remaining, scene.attributes["maxPushDist"]).clamp_min(0)
    return torch.where(distance < 0.05, gain, 0) - distance.masked_fill(fallen, 0), remaining <= 0.05


def _spec(name: str, reward: Reward, *attributes: str) -> EnvironmentSpec:
    return replace(catalogue.SPECS[name], reward=reward, attributes=attributes, needs_contact_forces=False)


def _moved(name: str, remaining: Distance, limit: str, success: float, **settings: Distance | float) -> EnvironmentSpec:
    return _spec(name, move_object(remaining, limit, success, **settings), limit)  # type: ignore[arg-type]


def _door(scene: Scene) -> Tensor:
    return distance_along(0)(scene)


def _pushed(name: str, success: float, success_distance: Distance | None = None) -> EnvironmentSpec:
    reward = move_object(distance_in(XY), "maxPushDist", success, success_distance=success_distance)
    return _spec(name, reward, "maxPushDist")


_PULLED = "maxPullDist"
SPECS: dict[str, EnvironmentSpec] = {
    "reach-v3": _spec("reach-v3", reach, "maxReachDist"),
    "reach-wall-v3": _spec("reach-wall-v3", reach, "maxReachDist"),
    "push-v3": _pushed("push-v3", 0.05),
    "push-wall-v3": _pushed("push-wall-v3", 0.07),
    "push-back-v3": _pushed("push-back-v3", 0.07),
    "soccer-v3": _pushed("soccer-v3", 0.07),
    "coffee-push-v3": _pushed("coffee-push-v3", 0.07, distance_in(XYZ)),
    "coffee-pull-v3": _spec("coffee-pull-v3", pull_mug, _PULLED),
    "sweep-v3": _spec("sweep-v3", sweep, "maxPushDist"),
    "sweep-into-v3": _spec("sweep-into-v3", sweep_into, "maxPushDist"),
    "hand-insert-v3": _spec("hand-insert-v3", hand_insert, "maxReachDist"),
    "button-press-topdown-v3": _moved("button-press-topdown-v3", distance_along(2), "maxDist", 0.024),
    "button-press-topdown-wall-v3": _moved("button-press-topdown-wall-v3", distance_along(2), "maxDist", 0.024),
    "button-press-v3": _moved("button-press-v3", distance_along(1), "maxDist", 0.02, finger=left_finger),
    "button-press-wall-v3": _moved("button-press-wall-v3", distance_along(1), "maxDist", 0.03, finger=left_finger),
    "coffee-button-v3": _moved("coffee-button-v3", distance_along(1), "maxDist", 0.02, finger=left_finger),
    "handle-press-v3": _moved("handle-press-v3", distance_along(2), "maxDist", 0.02, finger=left_finger),
    "handle-press-side-v3": _moved("handle-press-side-v3", distance_along(2), "maxDist", 0.02, finger=left_finger),
    "handle-pull-v3": _moved("handle-pull-v3", distance_along(2), "maxDist", 0.05, finger=left_finger),
    "handle-pull-side-v3": _moved("handle-pull-side-v3", distance_along(2), "maxDist", 0.08, finger=left_finger),
    "drawer-open-v3": _moved("drawer-open-v3", distance_along(1), "maxDist", 0.03),
    "drawer-close-v3": _moved("drawer-close-v3", distance_along(1), "maxDist", 0.065),
    "window-open-v3": _spec("window-open-v3", slide_window, _PULLED),
    "window-close-v3": _spec("window-close-v3", slide_window, _PULLED),
    "plate-slide-v3": _moved("plate-slide-v3", distance_in(XY), "maxDist", 0.07),
    "plate-slide-side-v3": _moved("plate-slide-side-v3", distance_in(XY), "maxDist", 0.07),
    "plate-slide-back-v3": _moved("plate-slide-back-v3", distance_in(XY), "maxDist", 0.07),
    "plate-slide-back-side-v3": _moved("plate-slide-back-side-v3", distance_in(XY), "maxDist", 0.07),
    "door-open-v3": _moved("door-open-v3", distance_in(XY), _PULLED, 0.08, success_distance=_door),
    "door-close-v3": _moved("door-close-v3", distance_in(XY), _PULLED, 0.08),
    "door-lock-v3": _moved("door-lock-v3", distance_in(XYZ), _PULLED, 0.02),
    "door-unlock-v3": _moved("door-unlock-v3", distance_in(XYZ), _PULLED, 0.02),
    "faucet-open-v3": _moved("faucet-open-v3", distance_in(XYZ), _PULLED, 0.07),
    "faucet-close-v3": _moved("faucet-close-v3", distance_in(XYZ), _PULLED, 0.07),
    "dial-turn-v3": _moved("dial-turn-v3", distance_along(1), _PULLED, 0.07, width=0.001),
    "lever-pull-v3": _moved("lever-pull-v3", distance_in(XYZ), _PULLED, torch.pi / 24),
    "peg-unplug-side-v3": _spec("peg-unplug-side-v3", unplug_peg, "maxPlacingDist"),
    **{name: _spec(name, reward, *attributes) for name, (reward, attributes) in v1_lifts.REWARDS.items()},
}
