"""How well the gripper has an object between its pads."""

from typing import Literal

import torch
from torch import Tensor

from metarl.envs.manipulation.scene import Scene, of_start
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
    first: str = "obj_init_pos",
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
        first: the note that says where the object was at the start.
    """
    across = scene.pads[:, :, 1]
    margins = ((across - scene.notes[first][:, 1:2]).abs_() - pads).abs_()
    sides = between((across - thing[:, 1:2]).abs_(), radius, pads, margins)
    caging = both(both(*sides.unbind(1)), _in_plane(scene, thing, first, height))
    closed = scene.closed if effort == 1 else scene.closed.clamp_max(effort).div_(effort)
    grasp = both(caging, closed * (caging > 0.97))
    if density == "high":
        return grasp.add_(caging).div_(2)
    if density == "medium":
        return grasp.add_(near(norm(thing - scene.tcp), reach, _first_reach(scene, first, reach))).div_(2)
    return grasp


def enclosed(scene: Scene, radius: float, height: float) -> tuple[Tensor, Tensor]:
    """Return how well the first object is between the pads ``[W]``, and the pads' distances to it along y ``[W, 2]``.

    Unlike in ``caged``, a distance is negative where a pad is on the wrong side, and its margin is the pad's present
    distance, for the package keeps its places at the start as views of the present ones.
    """
    apart = (scene.pads[:, :, 1] - scene.object[:, 1:2]).mul_(scene.vector(1.0, -1.0))
    sides = between(apart, radius, OPEN_PADS, _margins(apart))
    across = both(*sides.unbind(1))
    return both(across, _in_plane(scene, scene.object, "obj_init_pos", height)), apart


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
    return torch.where(caging > 0.95, both(*sides.unbind(1)), 0).add_(caging).div_(2)


def _margins(apart: Tensor) -> Tensor:
    return (apart.abs() - OPEN_PADS).abs_()


def _in_plane(scene: Scene, thing: Tensor, first: str, radius: float) -> Tensor:
    """Return how near the middle of the fingers is to an object in the plane of x and z ``[W]``."""
    return near(norm((scene.tcp - thing)[:, ::2]), radius, _first_in_plane(scene, first, radius))


@of_start
def _first_in_plane(scene: Scene, first: str, radius: float) -> Tensor:
    return norm((scene.notes[first] - scene.first_tcp)[:, ::2]) - radius


@of_start
def _first_reach(scene: Scene, first: str, reach: float) -> Tensor:
    return (norm(scene.notes[first] - scene.first_tcp) - reach).abs()
