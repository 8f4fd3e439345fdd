"""``metarl reproduce``: list the published experiments, what each costs, and the runs of them that are here."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.errors import InputError
from metarl.experiments.commands.parsing import parse
from metarl.experiments.learning.matching import matches
from metarl.experiments.published import COSTS, Published, list_published
from metarl.run.config import TrainConfig
from metarl.run.directory import RunDirectory


@dataclass(frozen=True)
class ReproduceOptions:
    """List the published experiments: env steps and CPU time of a seed, and how far their runs in a folder are.

    metarl train --published NAME --seed N trains one of them. Env steps and CPU times are
    extrapolated from the first iterations, in which episodes may be shorter than later.
    """

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder with runs, searched with its subfolders."""


def run(words: Sequence[str]) -> None:
    """Print a line for each experiment, and one for each of its runs in the folder.

    Raises:
        InputError: if a folder is named that does not exist.
    """
    folder = Path(parse(ReproduceOptions, "metarl reproduce", words).folder).expanduser()
    if words and not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the one that holds your runs: metarl reproduce FOLDER")
    costs = json.loads(COSTS.read_text())
    configs = sorted(folder.rglob("config.json"))
    for each in list_published():
        steps, minutes = costs[each.name]
        print(f"{each.name:<28}{steps / 1e6:>8,.1f}M env steps{minutes:>8,.0f} CPU min a seed")
        for line in _runs(each, configs):
            print(f"  {line}")


def _runs(published: Published, configs: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each run with the experiment's settings, whatever its seed and number of iterations."""
    for path in configs:
        directory = RunDirectory(path.parent)
        try:
            content, rows = directory.read_config(), directory.read_metrics()
        except InputError:
            continue
        if _is_of(published.config, content):
            total = content["run"]["iterations"]
            yield f"{path.parent}: seed {content['run']['seed']}, {len(rows)} of {total} iterations"


def _is_of(config: TrainConfig, content: dict[str, object]) -> bool:
    try:
        return matches(content, config, "seed", "iterations", "device", "checkpoint_minutes", "redraw")
    except (KeyError, TypeError):  # of another version
        return False
