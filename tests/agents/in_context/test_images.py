"""Learners with an encoder: it is trained with them, kept with them, and images stay uint8 until it reads them."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents.in_context.hyper_rl2 import HyperRl2, HyperRl2Config
from metarl.agents.in_context.pearl import Pearl
from metarl.agents.in_context.pearl_config import PearlConfig
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.agents.in_context.trial_ppo import TrialPpoLearner
from metarl.agents.in_context.varibad import VariBad
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.envs.basic.navigation import Navigation2D
from metarl.envs.grid.gridnavi_image import GridNaviImage
from metarl.errors import InputError
from metarl.families.splits import TaskSplit
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler

CPU = torch.device("cpu")
IMAGES = GridNaviImage(horizon=4)
MAKERS: dict[str, Any] = {
    "rl2": lambda **more: Rl2(IMAGES, Rl2Config(**more), 1, CPU),
    "hyper-rl2": lambda **more: HyperRl2(IMAGES, HyperRl2Config(**more), 1, CPU),
    "varibad": lambda **more: VariBad(IMAGES, VariBadConfig(transition_weight=0.5, **more), 1, CPU),
}


@dataclass(frozen=True)
class Photographed(Navigation2D):
    """2D navigation seen as a bright spot on an image."""

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0, 255, (7, 7, 1), np.uint8)

    def observation(self, state: dict[str, Tensor]) -> Tensor:
        places = torch.linspace(-0.5, 0.5, 7)
        columns, rows = (super(Photographed, self).observation(state)[:, axis, None] - places for axis in (0, 1))
        spot = torch.exp(-20 * (rows[:, :, None] ** 2 + columns[:, None, :] ** 2))
        return (255 * spot).to(torch.uint8).unsqueeze(-1)


PHOTOGRAPHED = Photographed(horizon=4)


def pearl(**more: Any) -> Pearl:
    little = {"updates_per_iteration": 2, "tasks_per_update": 2, "batch_size": 8, "context_size": 6}
    return Pearl(PHOTOGRAPHED, PearlConfig(**{**little, **more}), 1, CPU)


def trial(learner: Learner, family: Any) -> list[Rollout]:
    sampler, tasks = Sampler(family), TaskSplit(family).train_tasks(2, 0)
    state, rollouts = learner.begin(2), []
    for step in range(learner.inner_steps + 1):
        if step > 0:
            state = learner.adapt(state, rollouts[-1])
        rollouts.append(sampler.collect(learner, state, tasks, 3, step))
    return rollouts


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items() if "observation_encoder" in name}


@pytest.mark.parametrize("name", MAKERS)
def test_the_encoder_is_trained_with_the_network_and_is_in_its_state(name: str) -> None:
    learner: TrialPpoLearner = MAKERS[name]()
    before = weights(learner.network)
    learner.update(trial(learner, IMAGES))
    after = weights(learner.network)
    assert before.keys() == after.keys()
    assert len(before) == 6
    assert all(not torch.equal(before[each], after[each]) for each in before)
    other: TrialPpoLearner = MAKERS[name]()
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert all(torch.equal(value, after[each]) for each, value in weights(other.network).items())


@pytest.mark.parametrize("name", MAKERS)
def test_reading_a_trial_of_images_at_once_is_stepping_through_it(name: str) -> None:
    learner: TrialPpoLearner = MAKERS[name]()
    (_, metrics) = learner.loss(_trials(trial(learner, IMAGES)))
    # The policy has not moved: every likelihood ratio is 1, so that the surrogate is the mean normalised advantage, 0.
    assert abs(metrics["policy_objective"]) < 1e-4
    assert metrics["clip_fraction"] == 0


def _trials(rollouts: list[Rollout]) -> Any:
    from metarl.rollouts.trials import Trials

    return Trials.of(rollouts)


def test_images_stay_uint8_in_rollouts_trials_and_past_trials() -> None:
    learner = MAKERS["varibad"]()
    rollouts = trial(learner, IMAGES)
    assert rollouts[0].observations.dtype == torch.uint8
    assert _trials(rollouts).next_observations.dtype == torch.uint8
    learner.update(rollouts)
    assert learner.past.newest.trials.observations.dtype == torch.uint8


def test_varibads_model_does_not_train_the_policys_encoder() -> None:
    learner = MAKERS["varibad"]()
    trials = _trials(trial(learner, IMAGES))
    learner.network.zero_grad()
    bound, _ = learner.elbo(trials, torch.Generator().manual_seed(0))
    bound.backward()
    assert all(value.grad is None for value in learner.inputs.encoder.parameters())


@pytest.mark.parametrize("encoder", ["auto", "flat"])
def test_an_image_learner_resumes_to_the_same_numbers(encoder: str) -> None:
    def after(learner: Rl2) -> Tensor:
        learner.update(trial(learner, IMAGES))
        return torch.cat([value.flatten() for value in learner.network.state_dict().values()])

    one, other = MAKERS["rl2"](encoder=encoder), MAKERS["rl2"](encoder=encoder)
    one.update(trial(one, IMAGES))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert torch.equal(after(one), after(other))


def test_observations_under_a_learned_encoder_are_not_normalised() -> None:
    with pytest.raises(InputError, match="the encoder auto is learned; omit it, or use --encoder flat"):
        MAKERS["rl2"](normalize_observations=True)
    MAKERS["rl2"](normalize_observations=True, encoder="flat")


def test_pearls_replay_holds_a_byte_for_each_pixel() -> None:
    learner = pearl()
    learner.update(trial(learner, PHOTOGRAPHED))
    rows = learner.replay.read(0, learner.replay.added)["rows"]
    # Two images of 49 pixels in 13 numbers each, two numbers of an action, reward and end.
    assert rows.shape[-1] == 2 * 13 + 2 + 2


def test_pearls_encoder_learns_from_the_critics_and_not_from_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = pearl()
    before = weights(learner.networks)
    learner.update(trial(learner, PHOTOGRAPHED))
    assert all(not torch.equal(before[name], value) for name, value in weights(learner.networks).items())
    learner = pearl(updates_per_iteration=1)
    monkeypatch.setattr(learner._optimizers[0], "step", lambda: None)  # of the critics and the encoders
    before = weights(learner.networks)
    learner.update(trial(learner, PHOTOGRAPHED))
    assert all(torch.equal(before[name], value) for name, value in weights(learner.networks).items())


def test_pearl_restores_the_images_that_it_stored() -> None:
    learner = pearl()
    rollouts = trial(learner, PHOTOGRAPHED)
    steps = learner._encoded(learner.transitions(rollouts))
    trials = _trials(rollouts)
    with torch.no_grad():
        expected = learner.networks.get_submodule("observation_encoder")(trials.observations)
    torch.testing.assert_close(steps.observations.flatten(0, 1), expected)
