"""``metarl families show``: describe and render a task family."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

import numpy as np
import tyro
from gymnasium.vector import AutoresetMode
from PIL import Image
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.families.pictures import captioned, side_by_side
from metarl.seeding import generator
from metarl.storage.files import write_whole
from metarl.validation import require_count
from metarl.worlds.vector_env import TaskVectorEnv

LONGEST_VALUE = 6


@dataclass(frozen=True)
class ShowOptions:
    """Describe one task family, and render a few of its tasks side by side."""

    family: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FAMILY")]
    """Name of the family."""
    preset: str | None = None
    """Preset of the family; by default the first."""
    render: str | None = None
    """PNG file for pictures of tasks, each at the start of an episode, captioned with its parameters."""
    tasks: int = 4
    """Number of tasks to render."""
    seed: int = 0
    """Seed of the rendered tasks and their episodes."""


def show_family(options: ShowOptions) -> str:
    """Return the description of a family; render some of its tasks if ``options.render`` is set.

    Raises:
        InputError: for an unknown family or preset, fewer than one task, or a file name without .png.
    """
    family = make_family(options.family, options.preset)
    _, _, details = _documentation(type(family)).partition("\n")
    text = f"{_entry(family)}\n{details}".rstrip()
    if options.render is None:
        return text
    require_count("the number of tasks", options.tasks)
    if Path(options.render).suffix.lower() != ".png":
        raise InputError(f"--render writes a PNG file: give a name that ends in .png, not {options.render}")
    frame = draw_tasks(family, options.tasks, options.seed)
    write_whole(Path(options.render), lambda part: Image.fromarray(frame).save(part, format="png"))
    return f"{text}\n\ndrawn: {options.render}"


def draw_tasks(family: TaskFamily, count: int, seed: int) -> np.ndarray:
    """Return a picture uint8 ``[H, W, 3]`` of ``count`` tasks side by side, each at the start of an episode."""
    tasks = picture_tasks(family, count, seed)
    frames = start_frames(family, tasks, seed)
    return side_by_side([captioned(frame, _lines(tasks[row])) for row, frame in enumerate(frames)])


def picture_tasks(family: TaskFamily, count: int, seed: int) -> TensorDict:
    """Return the tasks ``[count]`` of a picture."""
    return family.sample_tasks(count, generator(seed, "picture"))


def start_frames(family: TaskFamily, tasks: TensorDict, seed: int) -> Sequence[np.ndarray]:
    """Return a frame uint8 ``[H, W, 3]`` of each task, at the start of an episode."""
    count = len(tasks)
    envs = TaskVectorEnv(family, count, autoreset_mode=AutoresetMode.DISABLED, render_mode="rgb_array")
    envs.set_tasks(tasks)
    envs.reset(seed=seed)
    frames = envs.render()
    envs.close()
    assert frames is not None
    return frames


def _lines(task: TensorDict) -> list[str]:
    lines = []
    for key in task.keys():
        value = task[key].numpy()
        shown = f"[{value.size} numbers]" if value.size > LONGEST_VALUE else np.array2string(value, precision=2)
        lines.append(f"{key} {shown}")
    return lines


def _entry(family: TaskFamily) -> str:
    lines = [f"{family.name}  ({family.env_id})", f"  {_documentation(type(family)).splitlines()[0]}"]
    for label, space in (
        ("task", family.task_space),
        ("observes", family.observation_space),
        ("acts in", family.action_space),
    ):
        lines.append(f"  {label:<9}{' '.join(str(space).split())}")
    lines.append(f"  {'horizon':<9}{family.horizon}")
    lines.append(f"  {'presets':<9}{_presets(type(family))}")
    return "\n".join(lines)


def _presets(family: Any) -> str:
    texts = []
    for preset in family.presets:
        made = make_family(family.name, preset)
        settings = ", ".join(f"{key} {value}" for key, value in made.settings().items())
        texts.append(f"{preset} ({settings})")
    return f"\n{'':<11}".join(texts)


def _documentation(family: type) -> str:
    first, _, rest = (family.__doc__ or "").strip().partition("\n")
    return f"{first}\n{dedent(rest)}".strip()
