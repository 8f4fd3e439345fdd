"""Rewards for having an object between the gripper's pads."""

from typing import Literal

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Scene, cached_until_reset
from metarl.envs.manipulation.terms import between, hamacher_product, near, norm

# Largest good distance of a pad from the object along y, in m.
OPEN_PADS = 0.05


def caging_reward(
    scene: Scene,
    obj: Tensor,
    radius: float,
    reach: float,
    height: float,
    pads: float = OPEN_PADS,
    effort: float = 1.0,
    density: Literal["sparse", "high", "medium"] = "high",
    initial: str = "obj_init_pos",
) -> Tensor:
    """Return a reward ``[W]`` in [0, 1] for closing the gripper with its pads on both sides of an object.

    Args:
        scene: the worlds.
        obj: the object's position ``[W, 3]``.
        radius: smallest good distance of a pad from the object along y, in m.
        reach: distance of the fingers' midpoint from the object that gets full reward, in m; for medium density.
        height: the same in the xz plane, in m.
        pads: largest good distance of a pad from the object along y, in m.
        effort: closing effort that gets full reward.
        density: what makes the term less sparse: nothing (``sparse``), the caging (``high``) or the reach (``medium``).
        initial: name of the attribute with the object's initial position.
    """
    across = scene.pads[:, :, 1]
    margins = ((across - scene.attributes[initial][:, 1:2]).abs_() - pads).abs_()
    sides = between((across - obj[:, 1:2]).abs_(), radius, pads, margins)
    caging = hamacher_product(hamacher_product(*sides.unbind(1)), _in_plane(scene, obj, initial, height))
    closed = scene.closing if effort == 1 else scene.closing.clamp_max(effort).div_(effort)
    grasp = hamacher_product(caging, closed * (caging > 0.97))
    if density == "high":
        return grasp.add_(caging).div_(2)
    if density == "medium":
        return grasp.add_(near(norm(obj - scene.tcp), reach, _initial_tcp_distance(scene, initial, reach))).div_(2)
    return grasp


def enclosure(scene: Scene, radius: float, height: float) -> tuple[Tensor, Tensor]:
    """Return how well the pads enclose the first object ``[W]``, and their distances to it along y ``[W, 2]``.

    Unlike in ``caging_reward``, a distance is negative where a pad is on the wrong side, and the margin comes from the
    pad's current distance, because the package stores the pads' initial positions as views of the current ones.
    """
    pad_distances = (scene.pads[:, :, 1] - scene.object[:, 1:2]).mul_(scene.vector(1.0, -1.0))
    sides = between(pad_distances, radius, OPEN_PADS, _margins(pad_distances))
    across = hamacher_product(*sides.unbind(1))
    return hamacher_product(across, _in_plane(scene, scene.object, "obj_init_pos", height)), pad_distances


def pinch_reward(scene: Scene, radius: float, grip: float, height: float) -> Tensor:
    """Return a reward ``[W]`` in [0, 1] for having the first object between the pads and the pads close to it.

    Args:
        scene: the worlds.
        radius: smallest good distance of a pad from the object along y, in m.
        grip: how much farther a pad may be and still grip, in m.
        height: distance of the fingers' midpoint from the object in the xz plane that gets full reward, in m.
    """
    caging, pad_distances = enclosure(scene, radius, height)
    sides = between(pad_distances, radius, radius + grip, _margins(pad_distances))
    return torch.where(caging > 0.95, hamacher_product(*sides.unbind(1)), 0).add_(caging).div_(2)


def _margins(pad_distances: Tensor) -> Tensor:
    return (pad_distances.abs() - OPEN_PADS).abs_()


def _in_plane(scene: Scene, obj: Tensor, initial: str, radius: float) -> Tensor:
    """Return how close the fingers' midpoint is to an object in the xz plane ``[W]``, in [0, 1]."""
    return near(norm((scene.tcp - obj)[:, ::2]), radius, _initial_plane_distance(scene, initial, radius))


@cached_until_reset
def _initial_plane_distance(scene: Scene, initial: str, radius: float) -> Tensor:
    return norm((scene.attributes[initial] - scene.initial_tcp)[:, ::2]) - radius


@cached_until_reset
def _initial_tcp_distance(scene: Scene, initial: str, reach: float) -> Tensor:
    return (norm(scene.attributes[initial] - scene.initial_tcp) - reach).abs()
