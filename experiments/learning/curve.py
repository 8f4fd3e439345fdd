"""Learning curves on held-out tasks: trains and evaluates the learners of a comparison.

    python experiments/learning/curve.py navigation-2d
    python experiments/learning/curve.py gridnavi --variants maml-trpo dqn-scratch --seeds 1

Each variant is trained with every seed, stopped at regular intervals, evaluated on the same test tasks, and resumed.
All evaluations are reported; none of them influences training. OUT/NAME/LABEL.json holds the results of each variant,
OUT/NAME.png shows all of them. Nothing is done twice: seeds in the file are skipped, finished runs in
RUNS/LABEL-seedSEED are only evaluated, unfinished ones are resumed. ``--at-once 2`` trains two runs
side by side; if one fails, the others continue.
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tyro

from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.commands.seeds import Job as SideJob
from metarl.experiments.commands.seeds import run_jobs
from metarl.experiments.learning.comparisons import COMPARISONS, find_comparison_reference
from metarl.experiments.learning.figure import draw
from metarl.experiments.learning.matching import describe_recording, matches, matches_recording, plain_settings
from metarl.experiments.learning.points import final_success, point_after
from metarl.experiments.learning.records import (
    Point,
    Record,
    SeedRun,
    read_comparison,
    read_record,
    read_run,
    rounded,
    write,
)
from metarl.experiments.learning.side_by_side import aside
from metarl.experiments.learning.variant import Variant
from metarl.registry import find_by_name
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.recorded import MANIFEST
from metarl.training.train import resume, train
from metarl.validation import require_counts

LISTED = "experiments/learning/comparisons.py"
NOTES = "learning_curve.json"
LONGEST_PARAMETER = 16


@dataclass(frozen=True)
class Options:
    """Measure adaptation on held-out tasks over the course of training."""

    name: tyro.conf.Positional[str]
    """One of the comparisons in experiments/learning/comparisons.py."""
    variants: tuple[str, ...] = ()
    """Variants to run; by default all."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the training runs of each variant."""
    tasks: int = 40
    """Number of test tasks; a finite family may have fewer."""
    out: str = "experiments/results"
    """Folder of the results."""
    runs: str | None = None
    """Folder of the run directories; by default runs/NAME."""
    at_once: int = 1
    """Runs side by side, each in a process of its own with its share of the cores."""
    runs_only: bool = False
    """Train and evaluate the runs without adding them to the results, as processes side by side do."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("a learning curve needs at least one seed")
        require_counts(self, "tasks", "at_once")


@dataclass(frozen=True)
class Job:
    """A variant of a comparison, with the paths of its runs and results."""

    label: str
    variant: Variant
    asked_tasks: int
    runs: Path
    results: Path

    @cached_property
    def tasks(self) -> list[dict[str, Any]]:
        """Parameters of the held-out tasks, except long ones."""
        found = self.variant.config.split().held_out_tasks("test", self.asked_tasks)
        return [
            {key: rounded(value.tolist()) for key, value in task.items() if value.numel() <= LONGEST_PARAMETER}
            for task in found
        ]

    def check(self, seeds: tuple[int, ...]) -> None:
        """Check that existing results and runs have the same settings.

        Raises:
            InputError: naming the file or run with other settings.
        """
        if self.results.exists():
            found = read_record(self.results)
            same = (found.steps, found.tasks) == (self.variant.steps, self.tasks)
            same = same and all(run.episodes == self.variant.episodes for run in found.runs)
            same = same and matches_recording(found.recording, self.variant.recording)
            if not same or not matches(found.config, self.variant.config, "seed"):
                raise InputError(f"{self.results} has other settings or tasks; remove it, or choose another --out")
        for config in map(self._config, self.missing(seeds)):
            directory = RunDirectory(str(config.run.out))
            if not directory.path.exists():
                continue
            content = directory.read_config()
            if not matches(content, config, "iterations") or content["run"]["iterations"] > config.run.iterations:
                raise InputError(f"{directory.path} is a run with other settings; remove it, or choose another --runs")

    def measure(self, seed: int) -> None:
        """Train and evaluate with a seed, unless already done, and add the evaluations to the results."""
        runs = {run.seed: run for run in self._measured()}
        if seed in runs:
            print(f"{self.label}, seed {seed}: already in {self.results}", flush=True)
            return
        print(f"{self.label}, seed {seed}", flush=True)
        new = self.measure_only(seed)
        runs = {run.seed: run for run in self._measured()} | {seed: new}  # another process may have written since
        write(self.results, self._record([runs[number] for number in sorted(runs)]))

    def measure_only(self, seed: int) -> SeedRun:
        """Train and evaluate with a seed, skipping what is done."""
        config = self._config(seed)
        self._record_episodes(seed, Path(f"{config.run.out}-data"))
        return measure_run(config, self.variant, len(self.tasks))

    def aside(self, seed: int) -> SideJob:
        """Return the job that measures a seed in a process of its own."""
        words = [self.results.parent.name, "--variants", self.label, "--tasks", str(self.asked_tasks)]
        words += ["--out", str(self.results.parent.parent), "--runs", str(self.runs)]
        return aside(self.label, self._config(seed), words)

    def missing(self, seeds: Sequence[int]) -> list[int]:
        """Return the seeds that are not in the results."""
        measured = {run.seed for run in self._measured()}
        return [seed for seed in seeds if seed not in measured]

    def _config(self, seed: int) -> TrainConfig:
        config = self._placed(self.variant.config, seed, "")
        if self.variant.recording is None:
            return config
        return dataclasses.replace(config, run=dataclasses.replace(config.run, data=f"{config.run.out}-data"))

    def _placed(self, config: TrainConfig, seed: int, suffix: str) -> TrainConfig:
        """Return a run's configuration with its seed and its directory."""
        out = str(self.runs / f"{self.label}-seed{seed}{suffix}")
        return dataclasses.replace(config, run=dataclasses.replace(config.run, seed=seed, out=out, track="disabled"))

    def _record_episodes(self, seed: int, data: Path) -> None:
        """Train the run that acts, and record its episodes, unless already done."""
        recording = self.variant.recording
        if recording is None or (data / MANIFEST).exists():
            return
        config = self._placed(recording.config, seed, "-recorded")
        directory = RunDirectory(str(config.run.out))
        _train_to(directory, config, _iterations(directory), config.run.iterations)
        if data.exists():  # it was stopped while it recorded
            shutil.rmtree(data)
        given = recording.tasks, recording.episodes, recording.steps, recording.best_actions
        options = CollectOptions(str(directory.path), str(data), *given, seed=seed)
        print(collect(options), flush=True)

    def _measured(self) -> list[SeedRun]:
        return read_record(self.results).runs if self.results.exists() else []

    def _record(self, runs: list[SeedRun]) -> Record:
        seeds = " ".join(str(run.seed) for run in runs)
        return Record(
            command=f"python experiments/learning/curve.py {self.results.parent.name} --variants {self.label} "
            f"--seeds {seeds} --tasks {self.asked_tasks}",
            config=plain_settings(self.variant.config),
            steps=self.variant.steps,
            inner_steps=self.variant.inner_steps,
            columns=self.variant.columns,
            tasks=self.tasks,
            runs=runs,
            recording=describe_recording(self.variant.recording),
        )


def measure_run(config: TrainConfig, variant: Variant, tasks: int) -> SeedRun:
    """Train a run to its end, stopping for each missing evaluation; return all evaluations.

    Stages that the run has already passed can no longer be evaluated, and are left out.
    """
    directory = RunDirectory(str(config.run.out))
    run = read_run(directory.path / NOTES)
    wanted = tasks, len(variant.columns), variant.episodes
    if run and (len(run.final_returns), len(run.final_returns[0]), run.episodes) != wanted:
        run = None  # it was made with other options
    for stop in variant.stops:
        evaluated = run is not None and run.points[-1].iteration >= stop
        if not evaluated and _iterations(directory) <= stop:
            run = _measure_stage(config, directory, run.points if run else [], stop, tasks, variant)
    assert run is not None, "no run has passed its last stage"
    if variant.protocol and run.protocol is None:
        run = dataclasses.replace(run, protocol=rounded(variant.protocol(directory.path)))
        write(directory.path / NOTES, run)
    return run


def _measure_stage(
    config: TrainConfig, directory: RunDirectory, points: list[Point], stop: int, tasks: int, variant: Variant
) -> SeedRun:
    """Train to iteration ``stop``, evaluate, and write the run's evaluations so far."""
    done = _iterations(directory)
    before = next((point.training_cpu_seconds for point in points if point.iteration == done), None if done else 0.0)
    seconds = _train_to(directory, config, done, stop)
    given = tasks, variant.steps, variant.episodes
    curve = evaluate(directory.path, *given)
    trained_on = (
        evaluate(directory.path, *given, part="train") if variant.protocol or variant.on_training_tasks else None
    )
    point = point_after(directory, stop, curve, None if before is None else before + seconds, trained_on)
    versions = directory.read_config()["versions"]
    returns = rounded(curve.returns[:, variant.columns].tolist())
    totals = rounded(curve.returns.sum(1).tolist()) if curve.of_trials else None
    run = SeedRun(
        config.run.seed,
        versions,
        [*points, point],
        returns,
        totals,
        final_success(curve, variant),
        episodes=variant.episodes,
    )
    write(directory.path / NOTES, run)
    print(f"  iteration {stop}: {', '.join(f'{point.returns[step]:.2f}' for step in variant.columns)}", flush=True)
    return run


def _iterations(directory: RunDirectory) -> int:
    return int(directory.load_checkpoint()["iteration"]) if directory.checkpoint.exists() else 0


def _train_to(directory: RunDirectory, config: TrainConfig, done: int, stop: int) -> float:
    """Train from iteration ``done`` to ``stop``; return the CPU seconds it took."""
    began = time.process_time()
    if 0 < done < stop:
        resume(directory.path, stop)
    elif done < stop:
        if directory.path.exists():  # it was stopped before its first checkpoint
            shutil.rmtree(directory.path)
        train(dataclasses.replace(config, run=dataclasses.replace(config.run, iterations=stop)))
    if (done := _iterations(directory)) < stop:
        raise RunError(f"{directory.path} was stopped after {done} iterations; run the same command again to continue")
    return time.process_time() - began


def run(options: Options) -> None:
    """Measure the variants with every seed, and plot all results of the comparison."""
    known = find_by_name(COMPARISONS, options.name, "comparison", LISTED)
    labels = options.variants or tuple(known)
    variants = {label: find_by_name(known, label, f"variant of {options.name}", LISTED) for label in labels}
    out, runs = Path(options.out), Path(options.runs or f"runs/{options.name}")
    folder = out / options.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    jobs = [Job(label, variant, options.tasks, runs, folder / f"{label}.json") for label, variant in variants.items()]
    for job in jobs:
        job.check(options.seeds)
    if options.runs_only:
        for job in jobs:
            for seed in job.missing(options.seeds):
                job.measure_only(seed)
        return
    if options.at_once > 1:  # then what is measured below is there already
        aside = [job.aside(seed) for job in jobs for seed in job.missing(options.seeds)]
        run_jobs(aside, ["cpu"] * options.at_once, "again")
    for job in jobs:
        for seed in options.seeds:
            job.measure(seed)
    picture = out / f"{options.name}.png"
    draw(options.name, read_comparison(folder, known), find_comparison_reference(options.name), picture)
    print(f"{folder}\n{picture}\nnext: python experiments/learning/tables.py")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/learning/curve.py", sys.argv[1:]))))
