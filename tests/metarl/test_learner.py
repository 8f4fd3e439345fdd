from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.learner import LEARNERS, Learner, register_learner


def test_learners_are_found_by_their_name() -> None:
    assert LEARNERS["maml-trpo"] is MamlTrpo


def test_every_learner_stands_under_the_name_it_has() -> None:
    assert {name: learner.name for name, learner in LEARNERS.items()} == {name: name for name in LEARNERS}


def test_registering_hands_the_class_back() -> None:
    class Nothing(Learner):
        name = "nothing"

    try:
        assert register_learner(Nothing) is Nothing
        assert LEARNERS["nothing"] is Nothing
    finally:
        LEARNERS.pop("nothing", None)
