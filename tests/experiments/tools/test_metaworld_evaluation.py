from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metaworld.evaluation import Timestep

import metarl
from metarl.agents.gradient.adaptation import Adapted
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.errors import InputError
from metarl.experiments.tools import metaworld_evaluation
from metarl.experiments.tools.metaworld_evaluation import LearnerAgent, Options, evaluate, run
from metarl.family import make_family
from metarl.rollout import Rollout

FAMILY = make_family("navigation-2d")
TINY = MamlTrpoConfig(hidden_sizes=(8,))


class Recorder(MamlTrpo):
    """Keeps what it adapts on."""

    def __init__(self) -> None:
        super().__init__(FAMILY, TINY, 0, torch.device("cpu"))
        self.rollouts: list[Rollout] = []

    def adapt(self, state: Adapted, rollout: Rollout) -> Adapted:
        self.rollouts.append(rollout)
        return super().adapt(state, rollout)


def trained(out: Path, family: str, **settings: Any) -> str:
    config = metarl.RunConfig(
        iterations=1, tasks_per_batch=2, episodes_per_task=2, out=str(out / "run"), track="disabled", **settings
    )
    return str(metarl.train(metarl.TrainConfig("maml-trpo", family, config, TINY)).path)


def observed(step: int, tasks: int = 2) -> np.ndarray:
    return np.array([[task, step / 10] for task in range(tasks)])


def lived(agent: LearnerAgent, ends: Sequence[tuple[bool, bool]]) -> list[np.ndarray]:
    """Let an agent live through steps of two tasks, whose rewards count them; return the actions."""
    actions = []
    for step, (first, second) in enumerate(ends):
        action, aux = agent.adapt_action(observed(step))
        truncated, terminated = np.array([first, False]), np.array([False, second])
        agent.step(Timestep(observed(step), action, np.array([step, 10.0 + step]), terminated, truncated, aux))
        actions.append(action)
    return actions


def test_episodes_are_laid_out_as_the_learner_wants_them() -> None:
    learner = Recorder()
    agent = LearnerAgent(learner, FAMILY)
    agent.init()
    lived(agent, [(False, True), (True, False), (False, False), (False, True), (True, False), (True, True)])
    agent.adapt()
    rollout = learner.rollouts[0]
    # The first task had episodes of 2, 3 and 1 steps; the second 1, 3 and 2.
    assert rollout.valid.sum(-1).tolist() == [[2, 3, 1], [1, 3, 2]]
    assert rollout.rewards.tolist() == [[[0, 1, 0], [2, 3, 4], [5, 0, 0]], [[10, 0, 0], [11, 12, 13], [14, 15, 0]]]
    assert rollout.truncated.nonzero().tolist() == [[0, 0, 1], [0, 1, 2], [0, 2, 0]]
    assert rollout.terminated.nonzero().tolist() == [[1, 0, 0], [1, 1, 2], [1, 2, 1]]
    assert torch.equal(rollout.observations[0, 1], torch.tensor([[0, 0.2], [0, 0.3], [0, 0.4]]))
    assert torch.equal(rollout.final_observations[1], torch.tensor([[1, 0.0], [1, 0.3], [1, 0.5]]))


def test_the_policys_probabilities_come_with_the_steps() -> None:
    learner = Recorder()
    agent = LearnerAgent(learner, FAMILY)
    agent.init()
    actions = lived(agent, [(False, False), (True, True)])
    agent.adapt()
    rollout = learner.rollouts[0]
    expected = learner.policy.distribution(learner.begin(2).params, rollout.observations).log_prob(rollout.actions)
    torch.testing.assert_close(rollout.log_probs, expected)
    # Actions are in the policy's units for the learner, and in the environment's for the environment.
    assert torch.equal(torch.from_numpy(np.stack(actions, 1)), rollout.actions[:, 0].clamp(-1, 1) * 0.1)


def test_episodes_that_are_not_over_are_left_out() -> None:
    learner = Recorder()
    agent = LearnerAgent(learner, FAMILY)
    agent.init()
    lived(agent, [(True, True), (True, False), (True, False)])
    agent.adapt()
    assert learner.rollouts[0].valid.shape == (2, 1, 1)


def test_it_acts_by_what_it_has_learned_until_it_forgets() -> None:
    agent = LearnerAgent(Recorder(), FAMILY)
    agent.init()
    lived(agent, [(False, False), (True, True)])
    before = agent.eval_action(observed(0))
    assert np.array_equal(agent.eval_action(observed(0)), before)
    agent.adapt()
    agent.reset(np.array([True, True]))
    adapted = agent.eval_action(observed(0))
    assert not np.array_equal(adapted, before)
    agent.init()
    assert np.array_equal(agent.eval_action(observed(0)), before)


def test_the_package_evaluates_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(tmp_path, "metaworld-ml1", preset="reach", horizon=8)
    options = Options(path, evaluations=2, steps=2, episodes=2, evaluation_episodes=1, tasks=2)
    success, mean_return, by_environment = found = evaluate(options)
    assert by_environment == {"reach-v3": success} == {"reach-v3": 0.0}
    assert 0 < mean_return < 8 * 10
    monkeypatch.setattr(metaworld_evaluation, "evaluate", lambda options: found)
    run(options)
    assert capsys.readouterr().out.splitlines() == [
        "reach-v3                      0.0%",
        "success rate                  0.0%",
        f"mean return{mean_return:23.1f}",
    ]


def test_a_run_on_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was trained on gridnavi, which is not a family of Meta-World"):
        evaluate(Options(trained(tmp_path, "gridnavi")))


@pytest.mark.parametrize("name", ["evaluations", "steps", "episodes", "evaluation_episodes", "tasks"])
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, not 0"):
        Options("run", **{name: 0})


@pytest.mark.parametrize(("preset", "tasks"), [("reach", 51), ("reach", 1000)])
def test_tasks_that_cannot_be_dealt_out_are_refused(preset: str, tasks: int, tmp_path: Path) -> None:
    path = trained(tmp_path, "metaworld-ml1", preset=preset, horizon=8)
    with pytest.raises(InputError, match=f"tasks must be a multiple of 1, at most 50 for .*, not {tasks}"):
        evaluate(Options(path, tasks=tasks))
