"""``metarl evaluate``: adapt a trained learner to held-out tasks, and measure it."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from metarl.config import TrackMode
from metarl.errors import RunError
from metarl.evaluation import AdaptationCurve, evaluate_learner, load_run
from metarl.experiments.commands.evaluation_table import adaptation_table, describe_training
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_files import evaluation_files, list_files, save_evaluation
from metarl.family import Source
from metarl.files import make_folder
from metarl.run_directory import CheckpointChoice, RunDirectory
from metarl.runtime import keep_freed_memory
from metarl.tracking.tracking import track_evaluation, tracking_mode

TASKS_OF: dict[str, str] = {
    "train": "training tasks",
    "validation": "validation tasks",
    "test": "test tasks",
    "ood": "tasks outside the distribution",
}


@dataclass(frozen=True)
class EvaluateOptions:
    """Adapt to held-out tasks, and write evaluation.json and adaptation_curve.png into the run.

    For tasks other than the test tasks the files are evaluation-PART.json and adaptation_curve-PART.png.
    """

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    tasks: int | Source = 40
    """Number of test tasks, of which a finite family may have fewer; or 40 of another part: train, validation, or
    ood, outside the distribution."""
    steps: int | None = None
    """Adaptation steps; by default 3, or the rest of the trial for a learner with a memory."""
    episodes: int | None = None
    """Episodes of each task before each step and after the last; by default those of the training run."""
    deterministic: bool = False
    """Measure the policy's mode, in additional episodes, instead of sampled actions."""
    seed: int = 0
    """Seed of environments and actions; the tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, or the best on validation tasks."""
    out: str | None = None
    """Folder for the files, made if it is missing; by default the run's."""
    track: TrackMode = "disabled"
    """Report as a run of type evaluate, to W&B (auto, online, offline) or to tensorboard."""

    @property
    def tasks_and_part(self) -> tuple[int, Source]:
        """How many tasks, and of which part."""
        return (self.tasks, "test") if isinstance(self.tasks, int) else (40, self.tasks)


def run(words: Sequence[str]) -> None:
    """Evaluate, write and track the results, and print them.

    Raises:
        InputError: for a directory that is no run, and options that make no sense; nothing is written then.
        RunError: when sampling fails, or, after the table is printed, when its files cannot be written.
    """
    options = parse(EvaluateOptions, "metarl evaluate", words)
    directory = RunDirectory(options.run)
    out = RunDirectory(options.out or options.run)
    if options.out is not None:
        make_folder(out.path, "the evaluation")
    tracking_mode(options.track)  # refuses a mode that this machine lacks before anything is measured
    config, learner, iteration = load_run(options.run, options.device, options.checkpoint)
    count, part = options.tasks_and_part
    keep_freed_memory()
    curve = evaluate_learner(
        config, learner, count, options.steps, options.episodes, options.seed, part, options.deterministic
    )
    print(describe_training(directory, config, iteration))
    print(f"{_protocol(curve, count)}\n")
    print(adaptation_table(curve, None if part == "ood" else config.find_reference()))
    try:
        save_evaluation(directory, config, curve, iteration, options.seed, out)
    except OSError as error:
        raise RunError(
            f"the evaluation was not written: {error.filename}: {error.strerror}; --out FOLDER writes it elsewhere"
        ) from None
    settings = {"iteration": iteration, "seed": options.seed}
    tracker = track_evaluation(config, directory, options.track, options.checkpoint, curve, settings)
    tracker.log_curve(curve, evaluation_files(out, curve)[0])
    for video in directory.videos():
        tracker.log_video(video)
    tracker.finish()
    print(f"\n{list_files(out, curve)}")


def _protocol(curve: AdaptationCurve, asked: int) -> str:
    """Return in one line how many tasks of which part were measured, and how."""
    few = "" if len(curve.returns) == asked else ", all that there are"
    actions = "the policy's mode" if curve.deterministic else "actions sampled"
    return f"{len(curve.returns)} {TASKS_OF[curve.part]}{few}; {curve.episodes} episodes per step, {actions}"
