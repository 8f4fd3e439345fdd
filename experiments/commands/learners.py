"""``metarl learners``: list the learners."""

from collections.abc import Sequence

from metarl.experiments.commands.parsing import refuse_words
from metarl.learner import LEARNERS


def run(words: Sequence[str]) -> None:
    """Print every learner with a one-line description, and the command that shows its settings."""
    refuse_words(words, "learners")
    for name, learner in LEARNERS.items():
        summary = (learner.__doc__ or "").strip().splitlines()[0]
        print(f"{name}\n  {summary}\n  settings: metarl train {name} FAMILY --help")
