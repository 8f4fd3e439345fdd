"""Acting in several sessions at once gives each what it would get alone, bit for bit."""

from pathlib import Path

import pytest
import torch

from metarl.devices.graphs import tensors_of
from metarl.learning.learner import Learner
from metarl.sampling.joint_acting import WIDTH, act_again, act_together, rows_agree
from metarl.sampling.session import Session
from tests.runs import tiny

CAPTURABLE = ("maml-trpo", "reptile", "rl2", "hyper-rl2", "varibad", "pearl", "recurrent-sac", "amago", "dpt", "random")
CAPTURABLE += ("optimal", "bandit-rule")
SESSIONS = WIDTH + 3


def make(name: str, path: Path) -> tuple[Learner, list[Session]]:
    """Return an untrained learner, and sessions of one task each."""
    config = tiny(name, path)
    learner, family = config.make_learner(), config.make_family()
    return learner, [Session(learner, family, 1, 1, seed=number) for number in range(SESSIONS)]


def seen(learner: str, step: int, session: int) -> torch.Tensor:
    """Return an observation ``[1, 1, ...]`` of 2D navigation, or of the advice that the optimal policy observes."""
    if learner == "optimal":
        return torch.tensor([[session % 5]])
    return torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(100 * step + session))


@pytest.mark.parametrize("name", CAPTURABLE)
def test_acting_together_is_acting_alone(name: str, tmp_path: Path) -> None:
    learner, sessions = make(name, tmp_path)
    assert learner.capturable
    # On some processors a row's bits depend on its place in a small matrix product; then a server acts one by one.
    width = WIDTH if rows_agree(learner, torch.stack([seen(name, 0, row)[0, 0] for row in range(WIDTH)])) else 1
    together, alone, again = (
        [session.open(number, number % 2 == 0) for number, session in enumerate(sessions)] for _ in range(3)
    )
    goes_on = torch.zeros(1, 1, dtype=torch.bool)
    for step in range(3):
        # The first sessions have acted for longer than the last ones.
        acting = range(SESSIONS - step)
        observations = [seen(name, step, number) for number in acting]
        choices = act_together(learner, [together[number] for number in acting], observations, width)
        for number, (choice, observation) in enumerate(zip(choices, observations, strict=True)):
            (single,) = act_together(learner, [alone[number]], [observation], width)
            assert torch.equal(single.env_actions, choice.env_actions)
            act_again(learner, again[number], observation, choice.actions, choice.distribution, width)
            for running in (together[number], alone[number], again[number]):
                running.record(observation, torch.tensor([[0.5]]), goes_on, goes_on)
            states = [tensors_of(running.working) for running in (together[number], alone[number], again[number])]
            for one, two, three in zip(*states, strict=True):
                assert torch.equal(one, two)
                assert torch.equal(one, three)
            assert torch.equal(alone[number].noise.get_state(), again[number].noise.get_state())


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "pearl"])
def test_a_rows_place_does_not_matter(name: str, tmp_path: Path) -> None:
    learner, _ = make(name, tmp_path)
    assert rows_agree(learner, torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(1)))


def test_rows_that_depend_on_their_place_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = make("maml-trpo", tmp_path)
    act = learner.action_distribution

    def uneven(working: object, observations: torch.Tensor) -> object:
        rows = torch.arange(len(observations)).view(-1, 1, 1)
        return act(working, observations).map(lambda value: value + 1e-6 * (rows == 3) * torch.ones_like(value))

    monkeypatch.setattr(learner, "action_distribution", uneven)
    assert not rows_agree(learner, torch.randn(WIDTH, 2))


def test_a_learner_that_cannot_be_joined_acts_in_one_session_after_the_other(tmp_path: Path) -> None:
    config = tiny("dqn", tmp_path)
    learner, family = config.make_learner(), config.make_family()
    assert not rows_agree(learner, torch.zeros(WIDTH, *family.observation_space.shape))
    running = [Session(learner, family, 1, 1, seed=number).open() for number in range(2)]
    observations = [torch.zeros(1, 1, *family.observation_space.shape)] * 2
    assert [choice.actions.shape for choice in act_together(learner, running, observations)] == [(1, 1)] * 2
