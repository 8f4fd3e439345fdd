"""Pack a run into the package, from which ``hub:NAME`` copies it.

    python experiments/tools/ship.py runs/half-cheetah-vel/maml-trpo-seed1 maml-trpo-half-cheetah-vel

Only metarl's own maintainers need this; everybody else publishes with ``metarl push``.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.commands.push import pack
from metarl.run.directory import CheckpointChoice, RunDirectory
from metarl.storage.hub import PREFIX, SHIPPED


@dataclass(frozen=True)
class ShipOptions:
    """Pack a run into the package; a run of that name is replaced."""

    run: RunName
    """Directory of the run, which has been evaluated."""
    name: tyro.conf.Positional[str]
    """Name after hub:."""
    checkpoint: CheckpointChoice = "latest"
    """Which checkpoint: the latest, the best on validation tasks, or the number of an iteration whose one is kept."""


def ship(words: Sequence[str]) -> None:
    """Pack the run that the words name."""
    options = parse(ShipOptions, "python experiments/tools/ship.py", words)
    making = SHIPPED / f".{options.name}.part"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    pack(RunDirectory(options.run), making, options.checkpoint, f"{PREFIX}{options.name}")
    shutil.rmtree(SHIPPED / options.name, ignore_errors=True)
    making.rename(SHIPPED / options.name)


if __name__ == "__main__":
    sys.exit(guarded(lambda: ship(sys.argv[1:])))
