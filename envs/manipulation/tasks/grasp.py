"""How well the gripper has an object between its pads."""

from typing import Literal

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Scene
from metarl.envs.manipulation.terms import between, both, near, norm

# Between how little and how much the two are apart along y.
OPEN_PADS = 0.05


def caged(
    scene: Scene,
    thing: Tensor,
    radius: float,
    reach: float,
    height: float,
    pads: float = OPEN_PADS,
    effort: float = 1.0,
    density: Literal["sparse", "high", "medium"] = "high",
    first: Tensor | None = None,
) -> Tensor:
    """Return ``[W]`` in [0, 1]: the pads are on both sides of an object, and the gripper closes.

    Args:
        scene: the worlds.
        thing: the object's position ``[W, 3]``.
        radius: how near a pad should be along y at least, in m.
        reach: how near the middle of the fingers should be, in m; for medium density.
        height: how near it should be in the plane of x and z, in m.
        pads: how near a pad should be along y at most, in m.
        effort: to close, above which there is nothing to gain.
        density: what is added to make the term less sparse: nothing, the caging, or the reach.
        first: where the object was at the start ``[W, 3]``; by default what the package says.
    """
    first = scene.first_object if first is None else first
    across = scene.pads[:, :, 1]
    margins = ((across - first[:, 1:2]).abs() - pads).abs()
    sides = between((across - thing[:, 1:2]).abs(), radius, pads, margins)
    caging = both(both(sides[:, 0], sides[:, 1]), _in_plane(scene, thing, first, height))
    closed = scene.effort.clamp(0, effort) / effort
    grasp = both(caging, torch.where(caging > 0.97, closed, 0))
    if density == "high":
        return (grasp + caging) / 2
    if density == "medium":
        margin = (norm(first - scene.first_tcp) - reach).abs()
        return (grasp + near(norm(thing - scene.tcp), reach, margin)) / 2
    return grasp


def enclosed(scene: Scene, radius: float, height: float) -> tuple[Tensor, Tensor]:
    """Return how well the first object is between the pads ``[W]``, and the pads' distances to it along y ``[W, 2]``.

    Unlike in ``caged``, a distance is negative where a pad is on the wrong side, and its margin is the pad's present
    distance, for the package keeps its places at the start as views of the present ones.
    """
    thing = scene.object
    apart = _apart(scene)
    sides = between(apart, radius, OPEN_PADS, _margins(apart))
    across = both(sides[:, 0], sides[:, 1])
    return both(across, _in_plane(scene, thing, scene.first_object, height)), apart


def pinched(scene: Scene, radius: float, grip: float, height: float) -> Tensor:
    """Return ``[W]`` in [0, 1]: the first object is between the pads, and they are near it.

    Args:
        scene: the worlds.
        radius: how near a pad should be along y at least, in m.
        grip: how much farther it may be to grip.
        height: how near the middle of the fingers should be in the plane of x and z, in m.
    """
    caging, apart = enclosed(scene, radius, height)
    sides = between(apart, radius, radius + grip, _margins(apart))
    return (caging + torch.where(caging > 0.95, both(sides[:, 0], sides[:, 1]), 0)) / 2


def _apart(scene: Scene) -> Tensor:
    signs = scene.vector(1.0, -1.0)
    return (scene.pads[:, :, 1] - scene.object[:, 1:2]) * signs


def _margins(apart: Tensor) -> Tensor:
    return (apart.abs() - OPEN_PADS).abs()


def _in_plane(scene: Scene, thing: Tensor, first: Tensor, radius: float) -> Tensor:
    """Return how near the middle of the fingers is to an object in the plane of x and z ``[W]``."""
    margin = norm((first - scene.first_tcp)[:, ::2]) - radius
    return near(norm((scene.tcp - thing)[:, ::2]), radius, margin)
