from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.config import TrainConfig
from metarl.learner import LEARNERS, Learner, RewardModel, register_learner


def test_learners_are_found_by_their_name() -> None:
    assert LEARNERS["maml-trpo"] is MamlTrpo


def test_every_learner_stands_under_the_name_it_has() -> None:
    assert {name: learner.name for name, learner in LEARNERS.items()} == {name: name for name in LEARNERS}


def test_learners_train_across_tasks_and_show_their_name_alone_unless_they_say_otherwise() -> None:
    config = TrainConfig("maml-trpo", "bandit")
    assert not MamlTrpo.from_scratch(config.settings)
    assert list(MamlTrpo.label_settings) == []


def test_a_model_of_rewards_is_known_by_its_method() -> None:
    assert isinstance(TrainConfig("varibad", "bandit").make_learner(), RewardModel)
    assert not isinstance(TrainConfig("maml-trpo", "bandit").make_learner(), RewardModel)


def test_registering_hands_the_class_back() -> None:
    class Nothing(Learner):
        name = "nothing"

    try:
        assert register_learner(Nothing) is Nothing
        assert LEARNERS["nothing"] is Nothing
    finally:
        LEARNERS.pop("nothing", None)
