"""``metarl evaluate``: adapt a trained learner to held-out tasks, and measure its returns."""

from collections.abc import Sequence
from dataclasses import dataclass

from metarl.devices.processes import Processes
from metarl.devices.runtime import keep_freed_memory
from metarl.errors import RunError
from metarl.evaluation.evaluate import evaluate_learner, load_run
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.evaluation_table import adaptation_table, describe_training
from metarl.experiments.commands.launch import run_on_devices
from metarl.experiments.commands.parsing import parse
from metarl.experiments.commands.run_files import evaluation_files, list_files, save_evaluation
from metarl.families.family import Source
from metarl.run.adaptation_curve import AdaptationCurve
from metarl.run.config import TrackMode, TrainConfig
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.storage.files import make_folder
from metarl.tracking.tracking import track_evaluation, tracking_mode
from metarl.training.loop_tools import StopRequest

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

    run: RunName
    """Directory of the run."""
    tasks: int | Source = 40
    """Number of test tasks (a finite family may have fewer), or 40 tasks of another part: train, validation, or ood
    (outside the distribution)."""
    steps: int | None = None
    """Adaptation steps; by default 3, or the remaining episodes of a trial for an in-context learner."""
    episodes: int | None = None
    """Episodes per task before each step and after the last one; by default as in the training run."""
    deterministic: bool = False
    """Evaluate the policy's mode, in additional episodes, instead of sampled actions."""
    seed: int = 0
    """Seed of environments and actions; the tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default the one the run was trained on. --devices, for example cpu*2, shares the
    tasks among processes."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, the best on validation tasks, or the number of an iteration whose one is kept."""
    out: str | None = None
    """Folder for the files, created if missing; by default the run directory."""
    track: TrackMode = "disabled"
    """Log as a run of job type evaluate, to W&B (auto, online, offline) or tensorboard."""

    @property
    def tasks_and_part(self) -> tuple[int, Source]:
        """Number of tasks, and their part."""
        return (self.tasks, "test") if isinstance(self.tasks, int) else (40, self.tasks)


def run(words: Sequence[str]) -> None:
    """Evaluate, on the devices that the words name; write and track the results, and print them.

    Raises:
        InputError: if the directory is not a run, or options are invalid; nothing is then written.
        RunError: if sampling fails, or, after the table is printed, if files cannot be written.
    """
    run_on_devices("evaluate", words, run_on)


def run_on(words: Sequence[str], processes: Processes, stop: StopRequest) -> None:
    """Evaluate as one of several processes, which share the tasks; the first writes, tracks and prints.

    Raises:
        InputError: as ``run``.
        RunError: as ``run``.
    """
    options = parse(EvaluateOptions, "metarl evaluate", words)
    out = RunDirectory(options.out or options.run)
    if options.out is not None:
        processes.from_first(lambda: make_folder(out.path, "the evaluation"))
    tracking_mode(options.track)  # refuses a mode that this machine lacks before anything is measured
    config, learner, iteration = load_run(options.run, options.device, options.checkpoint, processes)
    count, part = options.tasks_and_part
    keep_freed_memory()
    curve = evaluate_learner(
        config, learner, count, options.steps, options.episodes, options.seed, part, options.deterministic
    )
    processes.from_first(lambda: _report(options, config, curve, iteration, out))


def _report(
    options: EvaluateOptions, config: TrainConfig, curve: AdaptationCurve, iteration: int, out: RunDirectory
) -> None:
    directory, (count, part) = RunDirectory(options.run), options.tasks_and_part
    print(describe_training(directory, config, iteration))
    print(f"{_protocol(curve, count)}\n")
    print(adaptation_table(curve, None if part == "ood" else config.find_reference()))
    if curve.notes:
        print("\n" + ", ".join(f"{name} {value:,.6g}" for name, value in curve.notes.items()))
    try:
        save_evaluation(directory, config, curve, iteration, options.seed, out)
    except OSError as error:
        raise RunError(
            f"the evaluation was not written: {error.filename}: {error.strerror}; choose another folder with --out"
        ) from None
    settings = {"iteration": iteration, "seed": options.seed}
    tracker = track_evaluation(config, directory, options.track, options.checkpoint, curve, settings)
    tracker.log_curve(curve, evaluation_files(out, curve)[0])
    for video in directory.videos():
        tracker.log_video(video)
    tracker.finish()
    print(f"\n{list_files(out, curve)}")


def _protocol(curve: AdaptationCurve, asked: int) -> str:
    """Return one line on the number and part of the tasks, and the protocol."""
    few = "" if len(curve.returns) == asked else ", all that there are"
    actions = "the policy's mode" if curve.deterministic else "actions sampled"
    return f"{len(curve.returns)} {TASKS_OF[curve.part]}{few}; {curve.episodes} episodes per step, {actions}"
