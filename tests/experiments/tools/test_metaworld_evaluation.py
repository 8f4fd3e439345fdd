"""Meta-World's own protocol: what an agent does in it, and that a run is evaluated by the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import metarl
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.errors import InputError
from metarl.experiments.tools import metaworld_evaluation
from metarl.experiments.tools.metaworld_evaluation import LearnerAgent, ObservedEnvs, Options, evaluate, run
from metarl.families.family import make_family
from metarl.learning.learner import LEARNERS, Learner

FAMILY = make_family("navigation-2d")
TINY = MamlTrpoConfig(hidden_sizes=(8,))
CPU = torch.device("cpu")


def trained(out: Path, family: str, name: str = "maml-trpo", **run: Any) -> str:
    settings = {"maml-trpo": TINY, "pearl": LEARNERS["pearl"].config_class(updates_per_iteration=2)}.get(name)
    config = metarl.RunConfig(
        iterations=1, tasks_per_batch=2, episodes_per_task=2, out=str(out / "run"), track="disabled", **run
    )
    return str(metarl.train(metarl.TrainConfig(name, family, config, settings)).path)


def maml() -> MamlTrpo:
    return MamlTrpo(FAMILY, TINY, 0, CPU)


def rl2() -> Rl2:
    return Rl2(FAMILY, Rl2Config(hidden_size=8), 0, CPU)


def observed(step: int, tasks: int = 2) -> np.ndarray:
    return np.array([[task, step / 10] for task in range(tasks)])


def agent_of(learner: Learner) -> LearnerAgent:
    agent = LearnerAgent(learner, FAMILY, num_tasks=2)
    agent.init()
    return agent


def lived(agent: LearnerAgent, ends: Sequence[tuple[bool, bool]]) -> np.ndarray:
    """Let an agent explore two tasks, whose rewards count the steps; return its actions ``[S, N, A]``."""
    actions = []
    for step, (first, second) in enumerate(ends):
        actions.append(agent.adapt_action(observed(step))[0])
        truncated, terminated = np.array([first, False]), np.array([False, second])
        agent.observe(observed(step + 1), np.array([step, 10.0 + step]), terminated, truncated)
    return np.stack(actions)


def test_episodes_are_what_the_learner_adapts_to() -> None:
    # The first task has episodes of 2, 3 and 1 steps; the second of 1, 3 and 2.
    learner = maml()
    agent = agent_of(learner)
    ends = [(False, True), (True, False), (False, False), (False, True), (True, False), (True, True)]
    lived(agent, ends)
    assert [session.recorded for session in agent.sessions] == [3, 3]
    rounds = [session.close() for session in agent.sessions]
    assert [rollout.rewards[0, 0].tolist() for rollout in rounds] == [[5], [14, 15]]
    assert rounds[1].final_observations[0, 0].tolist() == [1, pytest.approx(0.6)]
    assert [bool(rollout.terminated.any()) for rollout in rounds] == [False, True]
    agent.adapt()
    assert [session.recorded for session in agent.sessions] == [0, 0]
    assert all(session.state.steps == 1 for session in agent.sessions)


def test_actions_are_in_the_environments_units() -> None:
    agent = agent_of(maml())
    actions = lived(agent, [(False, False)] * 20 + [(True, True)])
    policys = np.concatenate([session.close().actions[0].numpy() for session in agent.sessions])
    assert np.abs(policys).max() > 1
    assert np.array_equal(actions.swapaxes(0, 1), np.clip(policys, -1, 1) * np.float32(0.1))


def test_it_acts_by_what_it_has_learned_until_it_forgets() -> None:
    agent, everywhere = agent_of(maml()), np.array([True, True])

    def first_actions() -> np.ndarray:
        agent.reset(everywhere)
        return agent.eval_action(observed(0))

    before = first_actions()
    assert np.array_equal(first_actions(), before)
    agent.init()
    lived(agent, [(False, False), (True, True)])
    agent.adapt()
    assert not np.array_equal(first_actions(), before)
    agent.init()
    assert np.array_equal(first_actions(), before)


def test_a_memory_persists_through_the_adaptation_episodes() -> None:
    # After two episodes, the state of reading both in a row.
    learner = rl2()
    agent = agent_of(learner)
    states: list[Any] = [learner.begin(1)]
    for _ in range(2):
        lived(agent, [(False, False), (True, True)])
        states.append(learner.adapt(states[-1], agent.sessions[0].close()))
    agent.adapt()
    found = agent.sessions[0].state
    torch.testing.assert_close(found.memory["hidden"], states[2].memory["hidden"], rtol=1e-4, atol=1e-5)
    assert found.memory["hidden"].ne(states[1].memory["hidden"]).all()


def test_a_memory_remembers_within_an_evaluation_episode_and_not_beyond_it() -> None:
    agent, everywhere = agent_of(rl2()), np.array([True, True])
    lived(agent, [(False, False), (True, True)])
    agent.adapt()

    def act_twice(reward: float) -> tuple[np.ndarray, np.ndarray]:
        first = agent.eval_action(observed(0))
        agent.observe(observed(0), np.full(2, reward), ~everywhere, ~everywhere)
        return first, agent.eval_action(observed(0))

    agent.reset(everywhere)
    one, after_one = act_twice(1.0)
    assert not np.array_equal(one, after_one)  # the same observation, one step later
    agent.reset(everywhere)
    again, after_five = act_twice(5.0)
    assert np.array_equal(one, again)  # every evaluation episode starts from the same knowledge
    assert not np.array_equal(after_one, after_five)  # and it knows its last reward


def test_pearl_keeps_to_one_guess_in_an_episode() -> None:
    learner = LEARNERS["pearl"](FAMILY, LEARNERS["pearl"].config_class(), 0, CPU)
    agent, nowhere = agent_of(learner), np.array([False, False])
    working = []
    for step in range(3):
        agent.adapt_action(observed(step))
        agent.observe(observed(step + 1), np.zeros(2), nowhere, nowhere)
        running = agent.sessions[0]._running
        assert running is not None
        working.append(running.working.latent)
    assert working[0] is working[1] is working[2]


class Ending(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Two environments, of which the second ends with every step and starts anew at 7."""

    num_envs = 2
    label = "ending"

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        ended = np.array([False, True])
        last = np.array([None, np.array([3.0, 3.0])], dtype=object)
        return np.full((2, 2), 7.0), np.ones(2), ended, ~ended & False, {"final_obs": last}


def test_the_agent_sees_the_last_observation_of_an_episode_not_the_first_of_the_next() -> None:
    agent = agent_of(maml())
    envs = ObservedEnvs(Ending(), agent)
    actions, _ = agent.adapt_action(observed(0))
    assert envs.step(actions)[0].tolist() == [[7, 7], [7, 7]]
    assert agent.sessions[1].close().final_observations.tolist() == [[[3, 3]]]
    assert not agent.sessions[0].ended
    assert envs.label == "ending"  # as the package asks of its environments


@pytest.mark.parametrize("name", ["rl2", "varibad", "pearl"])
def test_learners_that_remember_are_evaluated_by_the_package(name: str, tmp_path: Path) -> None:
    path = trained(tmp_path, "metaworld-ml1", name, preset="reach", horizon=4)
    success, mean_return, _ = evaluate(Options(path, evaluations=1, episodes=2, evaluation_episodes=1, tasks=2))
    assert 0 <= success <= 1
    assert mean_return > 0


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


def test_the_package_adapts_on_the_rewards_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = metarl.RunConfig(1, tasks_per_batch=2, episodes_per_task=2, out=str(tmp_path), track="disabled", horizon=4)
    path = str(metarl.train(metarl.TrainConfig("maml-trpo", "metaworld-ml1", run, TINY, {"reward": "v1"})).path)
    monkeypatch.setattr(
        "metaworld.evaluation.metalearning_evaluation",
        lambda agent, envs, *counts: envs.get_attr("reward_function_version"),
    )
    assert set(evaluate(Options(path, tasks=1))) == {"v1"}


def test_runs_that_the_package_cannot_evaluate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was trained on gridnavi, which is not a family of Meta-World"):
        evaluate(Options(trained(tmp_path / "grid", "gridnavi")))
    with pytest.raises(InputError, match="use metarl evaluate for metaworld-custom"):
        evaluate(Options(trained(tmp_path / "custom", "metaworld-custom", preset="pushing", horizon=4)))


@pytest.mark.parametrize("name", ["evaluations", "steps", "episodes", "evaluation_episodes", "tasks"])
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, not 0"):
        Options("run", **{name: 0})


@pytest.mark.parametrize(("preset", "tasks"), [("reach", 51), ("reach", 1000)])
def test_tasks_that_cannot_be_dealt_out_are_refused(preset: str, tasks: int, tmp_path: Path) -> None:
    path = trained(tmp_path, "metaworld-ml1", preset=preset, horizon=8)
    with pytest.raises(InputError, match=f"tasks must be a multiple of 1, at most 50 for .*, not {tasks}"):
        evaluate(Options(path, tasks=tasks))
