"""VariBAD's beliefs on GridNavi while it explores: the reward that it expects in every cell, step by step.

    python experiments/tools/belief_pictures.py runs/varibad-gridnavi-seed1 --out belief.png --tasks 3

A row of the figure is the beginning of a trial on one test task. Its evenly spaced panels show the reward of every
cell, decoded from samples of the belief at that step, and the path of the episode so far.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.compare.beliefs import has_beliefs, make_figure, observe_beliefs
from metarl.storage.files import make_folder, write_whole
from metarl.validation import require_counts


@dataclass(frozen=True)
class Options:
    """Plot the reward that VariBAD expects in every cell of GridNavi, at some steps of a trial."""

    run: RunName
    """Directory of a run of varibad on gridnavi."""
    out: str = "belief.png"
    """PNG file to write."""
    tasks: int = 3
    """Number of test tasks, one row each; the family may have fewer."""
    episodes: int = 2
    """Number of first episodes of the trial to plot."""
    panels: int = 9
    """Number of steps to plot per task."""
    seed: int = 0
    """Seed of actions and belief samples."""

    def __post_init__(self) -> None:
        require_counts(self, "tasks", "episodes", "panels")
        if Path(self.out).suffix.lower() != ".png":
            raise InputError(f"--out writes a PNG file: give a name that ends in .png, not {self.out}")


def run(options: Options) -> None:
    """Plot the figure, and print its path.

    Raises:
        InputError: if the run is not one of VariBAD on GridNavi, or the figure cannot be written.
    """
    make_folder(Path(options.out).parent, "a picture")
    config, learner, _ = load_run(options.run)
    if not has_beliefs(config.make_family(), learner):
        raise InputError(
            f"{options.run} is {config.learner} on {config.family}, not varibad on gridnavi; choose another run"
        )
    tasks = config.split().held_out_tasks("test", options.tasks)
    figure = make_figure(observe_beliefs(config, learner, tasks, options.episodes, options.seed), options.panels)
    write_whole(Path(options.out), lambda part: figure.savefig(part, format="png", dpi=150))
    print(f"picture   {options.out} ({len(tasks)} test tasks, actions sampled)")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/tools/belief_pictures.py", sys.argv[1:]))))
