"""All environments that are batched, by name."""

from metarl.envs.manipulation.scene import Kind
from metarl.envs.manipulation.tasks import lift, press, push, reach, slide, tool, turn

KINDS: dict[str, Kind] = {
    **reach.KINDS,
    **push.KINDS,
    **lift.KINDS,
    **press.KINDS,
    **slide.KINDS,
    **turn.KINDS,
    **tool.KINDS,
}
