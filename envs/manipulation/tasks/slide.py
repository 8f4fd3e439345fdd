"""Slide a drawer, a window or a plate along its way."""

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Reward, Scene, Turned, always, at, first_way, turned
from metarl.envs.manipulation.terms import both, near, near_gaussian, norm

RADIUS = 0.05


def open_drawer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Pull a drawer open by 20 cm."""
    handle, target, way = scene.object, scene.target, scene.vector(0.0, 0.2, 0.0)
    left = norm(handle - target)
    scale = scene.vector(3.0, 3.0, 1.0)
    approach = near(norm((handle - scene.hand) * scale), 0.01, norm((target + way - scene.first_tcp) * scale))
    return 5 * (approach + near(left, 0.02, 0.2)), left <= 0.03


def close_drawer(scene: Scene) -> tuple[Tensor, Tensor]:
    """Push a drawer shut."""
    left = norm(scene.object - scene.target)
    there = near(left, RADIUS, (first_way(scene) - RADIUS).abs())
    margin = (norm(scene.first_object - scene.first_tcp) - 0.005).abs()
    approach = both(near_gaussian(scene.reach, 0.005, margin), scene.closed)
    shut = left <= RADIUS + 0.015
    return 10 * both(approach, there).masked_fill(shut, 1), shut


def open_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window to the right."""
    left, there = _window(scene, scene.first_object)
    margin = _handle_margin(scene)
    return 10 * both(near(scene.reach, 0.02, margin), there), left <= RADIUS


def close_window(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a window to the left."""
    left, there = _window(scene, scene.notes["window_handle_pos_init"])
    margin = _handle_margin(scene)
    return 10 * both(near_gaussian(scene.reach, 0.02, margin), there), left <= RADIUS


def _window(scene: Scene, first: Tensor) -> tuple[Tensor, Tensor]:
    left = (scene.object - scene.target)[:, 0].abs()
    return left, near(left, RADIUS, ((first - scene.target)[:, 0].abs() - RADIUS).abs())


def _handle_margin(scene: Scene) -> Tensor:
    return (norm(scene.notes["window_handle_pos_init"] - scene.first_tcp) - 0.02).abs()


def slide_plate(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a plate into a goal."""
    left, there, approach = _plate(scene, 0.0)
    return (8 * both(approach, there)).masked_fill(left < RADIUS, 10), left <= 0.07


def slide_plate_back(scene: Scene) -> tuple[Tensor, Tensor]:
    """Slide a plate out of a goal, or to it from the side, with the hand low."""
    left, there, approach = _plate(scene, RADIUS)
    low = (scene.tcp[:, 2] <= 0.03) & (scene.reach < 0.07)
    reward = torch.where(low, 2 + 7 * there, 1.5 * approach)
    return reward.masked_fill(left < RADIUS, 10), left <= 0.07


def _plate(scene: Scene, less: float) -> tuple[Tensor, Tensor, Tensor]:
    left = norm(scene.object - scene.target)
    there = near(left, RADIUS, first_way(scene) - less)
    return left, there, near(scene.reach, RADIUS, norm(scene.first_tcp - scene.first_object) - less)


def _window_kind(site: str, reward: Reward) -> Kind:
    return Kind((at("site", site),), (always(0.0, 0.0, 0.0, 0.0),), reward, ("window_handle_pos_init",))


_PUCK = (at("geom", "puck"),), (Turned("geom", "puck"),)
_BACK = Kind(*_PUCK, slide_plate_back)
KINDS = {
    "drawer-open-v3": Kind((at("body", "drawer_link", 0.0, -0.16, 0.0),), (turned("drawer_link"),), open_drawer),
    "drawer-close-v3": Kind(
        (at("body", "drawer_link", 0.0, -0.16, 0.05),), (always(0.0, 0.0, 0.0, 0.0),), close_drawer
    ),
    "window-open-v3": _window_kind("handleOpenStart", open_window),
    "window-close-v3": _window_kind("handleCloseStart", close_window),
    "plate-slide-v3": Kind(*_PUCK, slide_plate),
    "plate-slide-side-v3": _BACK,
    "plate-slide-back-v3": _BACK,
    "plate-slide-back-side-v3": _BACK,
}
