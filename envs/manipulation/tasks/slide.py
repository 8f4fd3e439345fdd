"""Slide a drawer, a window or a plate."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import (
    EnvironmentSpec,
    Reward,
    RotationMatrix,
    Scene,
    fixed_values,
    initial_distance,
    position_of,
    quaternion_of,
)
from metarl.envs.manipulation.terms import hamacher_product, near, near_gaussian, norm

RADIUS = 0.05


def open_drawer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a drawer open by 20 cm."""
    handle, target, travel = scene.object, scene.target, scene.vector(0.0, 0.2, 0.0)
    remaining = norm(handle - target)
    scale = scene.vector(3.0, 3.0, 1.0)
    approach = near(norm((handle - scene.hand) * scale), 0.01, norm((target + travel - scene.initial_tcp) * scale))
    return 5 * (approach + near(remaining, 0.02, 0.2)), remaining <= 0.03


def close_drawer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a drawer shut."""
    remaining = norm(scene.object - scene.target)
    in_place = near(remaining, RADIUS, (initial_distance(scene) - RADIUS).abs())
    margin = (norm(scene.initial_object - scene.initial_tcp) - 0.005).abs()
    approach = hamacher_product(near_gaussian(scene.tcp_to_object, 0.005, margin), scene.closing)
    shut = remaining <= RADIUS + 0.015
    return 10 * hamacher_product(approach, in_place).masked_fill(shut, 1), shut


def open_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window to the right."""
    remaining, in_place = _window(scene, scene.initial_object)
    margin = _handle_margin(scene)
    return 10 * hamacher_product(near(scene.tcp_to_object, 0.02, margin), in_place), remaining <= RADIUS


def close_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window to the left."""
    remaining, in_place = _window(scene, scene.attributes["window_handle_pos_init"])
    margin = _handle_margin(scene)
    return 10 * hamacher_product(near_gaussian(scene.tcp_to_object, 0.02, margin), in_place), remaining <= RADIUS


def _window(scene: Scene, initial: Tensor) -> tuple[Tensor, Tensor]:
    remaining = (scene.object - scene.target)[:, 0].abs()
    return remaining, near(remaining, RADIUS, ((initial - scene.target)[:, 0].abs() - RADIUS).abs())


def _handle_margin(scene: Scene) -> Tensor:
    return (norm(scene.attributes["window_handle_pos_init"] - scene.initial_tcp) - 0.02).abs()


def slide_plate(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a plate into a goal."""
    remaining, in_place, approach = _plate(scene, 0.0)
    return (8 * hamacher_product(approach, in_place)).masked_fill(remaining < RADIUS, 10), remaining <= 0.07


def slide_plate_back(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a plate out of a goal, or to it from the side, with the hand low."""
    remaining, in_place, approach = _plate(scene, RADIUS)
    low = (scene.tcp[:, 2] <= 0.03) & (scene.tcp_to_object < 0.07)
    reward = torch.where(low, 2 + 7 * in_place, 1.5 * approach)
    return reward.masked_fill(remaining < RADIUS, 10), remaining <= 0.07


def _plate(scene: Scene, offset: float) -> tuple[Tensor, Tensor, Tensor]:
    remaining = norm(scene.object - scene.target)
    in_place = near(remaining, RADIUS, initial_distance(scene) - offset)
    return (
        remaining,
        in_place,
        near(scene.tcp_to_object, RADIUS, norm(scene.initial_tcp - scene.initial_object) - offset),
    )


def _window_spec(site: str, reward: Reward) -> EnvironmentSpec:
    return EnvironmentSpec(
        (position_of("site", site),), (fixed_values(0.0, 0.0, 0.0, 0.0),), reward, ("window_handle_pos_init",)
    )


_PUCK = (position_of("geom", "puck"),), (RotationMatrix("geom", "puck"),)
_BACK = EnvironmentSpec(*_PUCK, slide_plate_back)
SPECS = {
    "drawer-open-v3": EnvironmentSpec(
        (position_of("body", "drawer_link", 0.0, -0.16, 0.0),), (quaternion_of("drawer_link"),), open_drawer
    ),
    "drawer-close-v3": EnvironmentSpec(
        (position_of("body", "drawer_link", 0.0, -0.16, 0.05),), (fixed_values(0.0, 0.0, 0.0, 0.0),), close_drawer
    ),
    "window-open-v3": _window_spec("handleOpenStart", open_window),
    "window-close-v3": _window_spec("handleCloseStart", close_window),
    "plate-slide-v3": EnvironmentSpec(*_PUCK, slide_plate),
    "plate-slide-side-v3": _BACK,
    "plate-slide-back-v3": _BACK,
    "plate-slide-back-side-v3": _BACK,
}
