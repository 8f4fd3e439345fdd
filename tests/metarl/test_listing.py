"""What is read from the source is what importing the source registers."""

import gymnasium

from metarl.families.family import FAMILIES
from metarl.learning.learner import LEARNERS
from metarl.listing import listed_families, listed_learners


def test_families_are_listed_as_they_are_registered() -> None:
    assert {name: entry.env_id for name, entry in listed_families().items()} == {
        name: family.env_id for name, family in FAMILIES.items()
    }


def test_learners_are_listed_as_they_are_registered() -> None:
    assert set(listed_learners()) == set(LEARNERS)


def test_summaries_are_the_first_lines_of_docstrings() -> None:
    for listed, registered in ((listed_families(), FAMILIES), (listed_learners(), LEARNERS)):
        assert all(entry.summary == (registered[name].__doc__ or "").split("\n")[0] for name, entry in listed.items())


def test_every_listed_id_is_in_gymnasiums_registry() -> None:
    assert all(entry.env_id in gymnasium.registry for entry in listed_families().values())
