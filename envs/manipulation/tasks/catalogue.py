"""The specs of all batched environments, by name, with v2 rewards."""

from metarl.envs.manipulation.scene import EnvironmentSpec
from metarl.envs.manipulation.tasks import lift, press, push, reach, slide, tool, turn

SPECS: dict[str, EnvironmentSpec] = {
    **reach.SPECS,
    **push.SPECS,
    **lift.SPECS,
    **press.SPECS,
    **slide.SPECS,
    **turn.SPECS,
    **tool.SPECS,
}
