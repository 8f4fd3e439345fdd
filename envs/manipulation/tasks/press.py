"""Press a button or a handle."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import (
    EnvironmentSpec,
    Scene,
    fixed_values,
    initial_distance,
    position_of,
    quaternion_of,
)
from metarl.envs.manipulation.tasks.grasp import caging_reward
from metarl.envs.manipulation.terms import hamacher_product, near, norm


def _near_button(scene: Scene, radius: float) -> Tensor:
    return near(scene.tcp_to_object, radius, norm(scene.object - scene.initial_tcp))


def press_down(scene: Scene) -> tuple[Tensor, Tensor]:
    """Press a button from above with a closed gripper."""
    remaining = (scene.target - scene.object)[:, 2].abs()
    pressed = near(remaining, 0.005, scene.attributes["_obj_to_target_init"])
    reward = 5 * hamacher_product(1 - scene.opening, _near_button(scene, 0.01))
    return reward + torch.where(scene.tcp_to_object <= 0.03, 5 * pressed, 0), remaining <= 0.024


def press(margin: Callable[[Scene], Tensor | float]) -> Callable[[Scene], tuple[Tensor, Tensor]]:
    """Return the reward for pressing a button along y; ``margin`` computes its initial distance from the end stop."""

    def reward(scene: Scene) -> tuple[Tensor, Tensor]:
        remaining = (scene.target - scene.object)[:, 1].abs()
        pressed = near(remaining, 0.005, margin(scene))
        approach = 2 * hamacher_product(scene.opening, _near_button(scene, 0.05))
        return approach + torch.where(scene.tcp_to_object <= 0.05, 8 * pressed, 0), remaining <= 0.02

    return reward


def press_behind_wall(scene: Scene) -> tuple[Tensor, Tensor]:
    """Reach over a wall to press a button along y; the gripper should open on arrival."""
    remaining = (scene.target - scene.object)[:, 1].abs()
    pressed = near(remaining, 0.005, scene.attributes["_obj_to_target_init"])
    approach = 2 * hamacher_product((1 - scene.opening) / 2, _near_button(scene, 0.01))
    in_place = 2 + 2 * (1 + scene.opening) + 4 * pressed.square()
    return torch.where(scene.tcp_to_object > 0.07, approach, in_place), remaining <= 0.03


def press_handle(scene: Scene) -> tuple[Tensor, Tensor]:
    """Press a handle down."""
    initial, radius = scene.attributes["_handle_init_pos"], 0.02
    remaining = (scene.object - scene.target)[:, 2].abs()
    pressed = near(remaining, radius, ((initial - scene.target)[:, 2].abs() - radius).abs())
    approach = near(scene.tcp_to_object, radius, (norm(initial - scene.initial_tcp) - radius).abs())
    return 10 * hamacher_product(approach, pressed).masked_fill(remaining <= radius, 1), remaining <= radius


def pull_handle_up(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a handle up."""
    remaining = (scene.target - scene.object)[:, 2].abs()
    in_place = near(remaining, 0.05, (scene.target - scene.initial_object)[:, 2].abs())
    grasp = caging_reward(scene, scene.object, radius=0.022, reach=0.01, height=0.01)
    # Sic: the package compares y with an initial z.
    risen = scene.object[:, 1] - 0.01 > scene.initial_height
    return _pulled(scene, grasp, in_place, remaining, risen), remaining <= 0.05


def pull_handle_aside(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull up a handle at the side."""
    remaining = norm(scene.object - scene.target)
    in_place = near(remaining, 0.05, initial_distance(scene))
    grasp = caging_reward(scene, scene.object, radius=0.032, reach=0.01, height=0.01, pads=0.06)
    risen = scene.height - 0.01 > scene.initial_height
    return _pulled(scene, grasp, in_place, remaining, risen), remaining <= 0.08


def _pulled(scene: Scene, grasp: Tensor, in_place: Tensor, remaining: Tensor, risen: Tensor) -> Tensor:
    held = (scene.tcp_to_object < 0.035) & (scene.opening > 0) & risen
    reward = hamacher_product(grasp, in_place) + torch.where(held, 1 + 5 * in_place, 0)
    return reward.masked_fill(remaining < 0.05, 10)


_ATTRIBUTES = ("_obj_to_target_init",)
_BUTTON = quaternion_of("button")
_FRONT = (position_of("body", "button", 0.0, -0.193, 0.0),)
_NONE = (fixed_values(0.0, 0.0, 0.0, 0.0),)
_DOWN = EnvironmentSpec((position_of("body", "button", 0.0, 0.0, 0.193),), (_BUTTON,), press_down, _ATTRIBUTES)
_HANDLE = EnvironmentSpec((position_of("site", "handleStart"),), _NONE, press_handle, ("_handle_init_pos",))
SPECS = {
    "button-press-topdown-v3": _DOWN,
    "button-press-topdown-wall-v3": _DOWN,
    "button-press-v3": EnvironmentSpec(
        _FRONT, (_BUTTON,), press(lambda scene: scene.attributes["_obj_to_target_init"]), _ATTRIBUTES
    ),
    "button-press-wall-v3": EnvironmentSpec(_FRONT, (_BUTTON,), press_behind_wall, _ATTRIBUTES),
    "coffee-button-v3": EnvironmentSpec(
        (position_of("site", "buttonStart"),), (fixed_values(1.0, 0.0, 0.0, 0.0),), press(lambda _: 0.03)
    ),
    "handle-press-v3": _HANDLE,
    "handle-press-side-v3": _HANDLE,
    "handle-pull-v3": EnvironmentSpec((position_of("site", "handleRight"),), _NONE, pull_handle_up),
    "handle-pull-side-v3": EnvironmentSpec((position_of("site", "handleCenter"),), _NONE, pull_handle_aside),
}
