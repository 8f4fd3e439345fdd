"""``metarl render``: a video of the effect of adaptation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tensordict import TensorDict

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.evaluation.recording import record_run, task_text
from metarl.evaluation.video import check_video_path, write_video
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import parse
from metarl.families.family import TaskFamily
from metarl.run.directory import CheckpointChoice, RunDirectory


@dataclass(frozen=True)
class RenderOptions:
    """Adapt to one task, and record an episode before adaptation and after each adaptation step, side by side."""

    run: RunName
    """Directory of the run."""
    task: tuple[str, ...] = ()
    """All parameters of the task: velocity=1.7, or goal=0.3,-0.2; by default the first held-out test task."""
    out: str | None = None
    """Video file, .mp4, .gif or .webp; by default adaptation.mp4 in the run directory."""
    steps: int = 1
    """Adaptation steps."""
    episodes: int | None = None
    """Episodes per adaptation step; by default as in the training run, or one for an in-context learner."""
    deterministic: bool = False
    """Show the policy's mode instead of sampled actions."""
    seed: int = 0
    """Seed of environments and actions."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, the best on validation tasks, or the number of an iteration whose one is kept."""


def run(words: Sequence[str]) -> None:
    """Record the video, and print a summary of it."""
    print(render(parse(RenderOptions, "metarl render", words)))


def render(options: RenderOptions) -> str:
    """Write the video, and return a summary of it.

    Raises:
        InputError: if the directory is not a run, the task is not in the family, the file name has another extension,
            counts are invalid, or this machine cannot render.
    """
    out = RunDirectory(options.run).path / "adaptation.mp4" if options.out is None else Path(options.out)
    config, learner, iteration = load_run(options.run, options.device, options.checkpoint)
    check_video_path(out)
    family, split = config.make_family(), config.split()
    task = parse_task(family, options.task) if options.task else split.held_out_tasks("test", 1)
    settings = (options.steps, options.episodes, options.seed, options.deterministic)
    recording = record_run(config, learner, task, *settings)
    frames = recording.frames()
    write_video(frames, out, recording.fps)
    lines = [f"{config.learner} on {config.family} ({config.preset}), trained for {iteration} iterations"]
    lines += [f"task {task_text(task[0])}; actions {'deterministic' if options.deterministic else 'sampled'}", ""]
    lines += [f"{take.label:<24}return {take.returns[-1]:z.2f} at step {take.steps}" for take in recording.takes]
    return "\n".join([*lines, "", f"video     {out} ({len(frames)} frames, {recording.fps:.4g} per second)"])


def parse_task(family: TaskFamily, words: Sequence[str]) -> TensorDict:
    """Parse words KEY=VALUE, or KEY=VALUE,VALUE ... for a vector parameter, into a task ``[1]``.

    Raises:
        InputError: naming the parameters and their ranges, if the words do not describe a task of the family.
    """
    pairs = [word.partition("=") for word in words]
    given = {key: value.split(",") for key, equals, value in pairs if equals}
    if len(given) < len(pairs) or set(given) != set(family.task_space):
        ranges = ", ".join(f"{key} in {' '.join(str(space).split())}" for key, space in family.task_space.items())
        raise InputError(f"--task of {family.name} takes KEY=VALUE for {ranges}, each once; not {' '.join(words)}")
    return family.make_task({key: values if len(values) > 1 else values[0] for key, values in given.items()})
