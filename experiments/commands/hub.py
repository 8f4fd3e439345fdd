"""``metarl hub``: list the trained runs that come with metarl."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metarl.experiments.commands.parsing import refuse_words
from metarl.storage.hub import PREFIX, shipped_runs


def run(words: Sequence[str]) -> None:
    """Print every run with what it was trained on and its returns on held-out tasks."""
    refuse_words(words, "hub")
    for name, folder in shipped_runs().items():
        print(f"{PREFIX}{name}\n  {_describe(folder)}")


def _describe(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    before, *_, after = np.array(evaluation["returns"]).mean(0)
    what = f"{config['learner']} on {config['family']} ({config['preset']}), seed {config['run']['seed']}"
    return f"{what}, {evaluation['iteration']} iterations: return {before:z.2f} before adaptation, {after:z.2f} after"
