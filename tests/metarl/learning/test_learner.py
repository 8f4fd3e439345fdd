from typing import Any

import torch

from metarl.agents.gradient.maml_trpo import MamlTrpo
from metarl.learning.learner import LEARNERS, Learner, OpenState, register_learner
from metarl.learning.protocols import RewardModel
from metarl.numerics.distributions import Categorical
from metarl.run.config import TrainConfig


def test_learners_are_found_by_their_name() -> None:
    assert LEARNERS["maml-trpo"] is MamlTrpo


def test_every_learner_is_under_its_name() -> None:
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


class Counter(Learner):
    """Its state is how often it adapted; it acts by that number, and keeps to every default."""

    name = "counter"
    __init__ = update = state_dict = load_state_dict = None  # type: ignore[assignment]

    def begin(self, num_tasks: int) -> int:
        return 0

    def action_distribution(self, working: OpenState[int], observations: torch.Tensor) -> Categorical:
        logits = torch.zeros(*observations.shape[:2], 5)
        logits[..., working.state] = 1.0
        return Categorical(logits)

    def adapt(self, state: int, rollout: Any) -> int:
        return state + 1


def test_by_default_an_open_state_holds_the_state_and_closing_adapts() -> None:
    learner, stream = Counter.__new__(Counter), torch.Generator()
    working = learner.open(3, 2, stream)
    assert working == OpenState(3)
    actions, distribution = learner.act(working, torch.zeros(1, 2, 4), stream, deterministic=True)
    assert actions.tolist() == [[3, 3]]
    assert distribution.tensors()[0].shape == (1, 2, 5)
    learner.observe(working, actions, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert working == OpenState(3)
    assert learner.close(working, None) == 4  # type: ignore[arg-type]


def test_actions_are_drawn_from_the_generator_that_is_given() -> None:
    learner = Counter.__new__(Counter)
    working, seen = learner.open(0, 50, torch.Generator()), torch.zeros(1, 50, 4)
    one, same, other = (learner.act(working, seen, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
