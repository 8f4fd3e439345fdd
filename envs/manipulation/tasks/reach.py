"""Bring the hand to the goal."""

from torch import Tensor

from metarl.envs.manipulation.scene import Kind, Scene, Turned, at
from metarl.envs.manipulation.terms import near, norm


def reach(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return 10 within 5 cm of the goal, falling off over the way from the hand's first place."""
    away = norm(scene.tcp - scene.target)
    return 10 * near(away, 0.05, norm(scene.notes["hand_init_pos"] - scene.target)), away <= 0.05


_KIND = Kind((at("body", "obj"),), (Turned("geom", "objGeom"),), reach)
KINDS = {"reach-v3": _KIND, "reach-wall-v3": _KIND}
