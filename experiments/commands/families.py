"""``metarl families``: list the task families, or describe and render one of them."""

from collections.abc import Sequence

from metarl.experiments.commands.parsing import parse, refuse_words
from metarl.listing import listed_families


def run(words: Sequence[str]) -> None:
    """Print all families, or describe one of them (``show``)."""
    if words and words[0] == "show":
        from metarl.experiments.commands.show_family import ShowOptions, show_family

        print(show_family(parse(ShowOptions, "metarl families show", words[1:])))
        return
    refuse_words(words, "families", "; metarl families show FAMILY describes one")
    print(list_families())


def list_families() -> str:
    """Return a line for each family: its name and what it is."""
    families = listed_families()
    width = max(map(len, families))
    lines = [f"{name:<{width}}  {family.summary}" for name, family in families.items()]
    return "\n".join([*lines, "", "metarl families show NAME: tasks, spaces, horizon and presets of a family"])
