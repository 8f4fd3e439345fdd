"""``metarl learners``: list the learners."""

from collections.abc import Sequence

from metarl.experiments.commands.parsing import refuse_words
from metarl.listing import listed_learners


def run(words: Sequence[str]) -> None:
    """Print every learner with a one-line description, and the command that shows its settings."""
    refuse_words(words, "learners")
    for name, learner in listed_learners().items():
        print(f"{name}\n  {learner.summary}\n  settings: metarl train {name} FAMILY --help")
