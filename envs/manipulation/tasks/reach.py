"""Bring the hand to the goal."""

from torch import Tensor

from metarl.envs.manipulation.scene import EnvironmentSpec, RotationMatrix, Scene, position_of
from metarl.envs.manipulation.terms import near, norm


def reach(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return 10 within 5 cm of the goal, falling off over the hand's initial distance to it."""
    distance = norm(scene.tcp - scene.target)
    return 10 * near(distance, 0.05, norm(scene.attributes["hand_init_pos"] - scene.target)), distance <= 0.05


_SPEC = EnvironmentSpec((position_of("body", "obj"),), (RotationMatrix("geom", "objGeom"),), reach)
SPECS = {"reach-v3": _SPEC, "reach-wall-v3": _SPEC}
