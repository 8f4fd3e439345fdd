"""Draws the pictures of the README from the committed learning results: ``python experiments/manual/front_page.py``."""

import sys
from pathlib import Path

from metarl.experiments.commands.parsing import guarded
from metarl.experiments.learning.comparisons import find_comparison_reference
from metarl.experiments.learning.figure import make_adaptation_figure, save
from metarl.experiments.learning.records import read_record

ROOT = Path(__file__).resolve().parents[2]
RESULTS, FOLDER = ROOT / "experiments" / "results", ROOT / "docs" / "pictures"
SIZE = (6.0, 4.6)
# The variants of each comparison, and what they are called.
SHOWN = {
    "gridnavi": {
        "rl2": "RL²",
        "varibad": "VariBAD",
        "recurrent-sac": "recurrent SAC",
        "maml-trpo": "MAML-TRPO",
        "reptile": "Reptile",
        "dqn-scratch": "DQN from scratch",
    },
    "navigation-2d": {
        "rl2": "RL²",
        "varibad": "VariBAD",
        "pearl-prototypical": "PEARL",
        "maml-trpo-500": "MAML-TRPO",
        "maml-ppo": "MAML-PPO",
        "reptile": "Reptile",
    },
    "half-cheetah-vel-0-3": {
        "rl2-published": "RL²",
        "varibad": "VariBAD",
        "recurrent-sac": "recurrent SAC",
        "sac-scratch": "SAC from scratch",
        "ppo-scratch": "PPO from scratch",
    },
}


def main(folder: Path = FOLDER) -> None:
    """Draw one picture for each comparison."""
    for name, variants in SHOWN.items():
        records = {label: read_record(RESULTS / name / f"{variant}.json") for variant, label in variants.items()}
        figure = make_adaptation_figure(records, find_comparison_reference(name), SIZE)
        save(figure, folder / f"adaptation-{name}.png")


if __name__ == "__main__":
    sys.exit(guarded(main))
