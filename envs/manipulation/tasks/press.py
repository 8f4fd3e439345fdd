"""Press a button or a handle."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Scene, always, at, first_way, turned
from metarl.envs.manipulation.tasks.grasp import caged
from metarl.envs.manipulation.terms import both, near, norm


def _near_button(scene: Scene, radius: float) -> Tensor:
    return near(scene.reach, radius, norm(scene.object - scene.first_tcp))


def press_down(scene: Scene) -> tuple[Tensor, Tensor]:
    """Press a button from above with a closed gripper."""
    left = (scene.target - scene.object)[:, 2].abs()
    pressed = near(left, 0.005, scene.notes["_obj_to_target_init"])
    reward = 5 * both(1 - scene.opened, _near_button(scene, 0.01))
    return reward + torch.where(scene.reach <= 0.03, 5 * pressed, 0), left <= 0.024


def press(margin: Callable[[Scene], Tensor | float]) -> Callable[[Scene], tuple[Tensor, Tensor]]:
    """Return the reward of pressing a button along y, given how far it is from its end at the start."""

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        left = (scene.target - scene.object)[:, 1].abs()
        pressed = near(left, 0.005, margin(scene))
        approach = 2 * both(scene.opened, _near_button(scene, 0.05))
        return approach + torch.where(scene.reach <= 0.05, 8 * pressed, 0), left <= 0.02

    return reward


def press_behind_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Press a button along y over a wall: the gripper opens once it is there."""
    left = (scene.target - scene.object)[:, 1].abs()
    pressed = near(left, 0.005, scene.notes["_obj_to_target_init"])
    approach = 2 * both((1 - scene.opened) / 2, _near_button(scene, 0.01))
    there = 2 + 2 * (1 + scene.opened) + 4 * pressed.square()
    return torch.where(scene.reach > 0.07, approach, there), left <= 0.03


def press_handle(scene: Scene) -> tuple[Tensor, Tensor]:
    """Press a handle down."""
    first, radius = scene.notes["_handle_init_pos"], 0.02
    left = (scene.object - scene.target)[:, 2].abs()
    pressed = near(left, radius, ((first - scene.target)[:, 2].abs() - radius).abs())
    approach = near(scene.reach, radius, (norm(first - scene.first_tcp) - radius).abs())
    return 10 * both(approach, pressed).masked_fill(left <= radius, 1), left <= radius


def pull_handle_up(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a handle up."""
    left = (scene.target - scene.object)[:, 2].abs()
    there = near(left, 0.05, (scene.target - scene.first_object)[:, 2].abs())
    grasp = caged(scene, scene.object, radius=0.022, reach=0.01, height=0.01)
    # The package compares y with z.
    risen = scene.object[:, 1] - 0.01 > scene.first_height
    return _pulled(scene, grasp, there, left, risen), left <= 0.05


def pull_handle_aside(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a handle up that is at the side."""
    left = norm(scene.object - scene.target)
    there = near(left, 0.05, first_way(scene))
    grasp = caged(scene, scene.object, radius=0.032, reach=0.01, height=0.01, pads=0.06)
    risen = scene.height - 0.01 > scene.first_height
    return _pulled(scene, grasp, there, left, risen), left <= 0.08


def _pulled(scene: Scene, grasp: Tensor, there: Tensor, left: Tensor, risen: Tensor) -> Tensor:
    held = (scene.reach < 0.035) & (scene.opened > 0) & risen
    reward = both(grasp, there) + torch.where(held, 1 + 5 * there, 0)
    return reward.masked_fill(left < 0.05, 10)


_NOTES = ("_obj_to_target_init",)
_BUTTON = turned("button")
_FRONT = (at("body", "button", 0.0, -0.193, 0.0),)
_NONE = (always(0.0, 0.0, 0.0, 0.0),)
_DOWN = Kind((at("body", "button", 0.0, 0.0, 0.193),), (_BUTTON,), press_down, _NOTES)
_HANDLE = Kind((at("site", "handleStart"),), _NONE, press_handle, ("_handle_init_pos",))
KINDS = {
    "button-press-topdown-v3": _DOWN,
    "button-press-topdown-wall-v3": _DOWN,
    "button-press-v3": Kind(_FRONT, (_BUTTON,), press(lambda scene: scene.notes["_obj_to_target_init"]), _NOTES),
    "button-press-wall-v3": Kind(_FRONT, (_BUTTON,), press_behind_wall, _NOTES),
    "coffee-button-v3": Kind((at("site", "buttonStart"),), (always(1.0, 0.0, 0.0, 0.0),), press(lambda _: 0.03)),
    "handle-press-v3": _HANDLE,
    "handle-press-side-v3": _HANDLE,
    "handle-pull-v3": Kind((at("site", "handleRight"),), _NONE, pull_handle_up),
    "handle-pull-side-v3": Kind((at("site", "handleCenter"),), _NONE, pull_handle_aside),
}
