"""DPT and algorithm distillation: what they imitate, in which order, and that they learn."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.algorithm_distillation import AlgorithmDistillationConfig
from metarl.agents.in_context.dpt import ArrangedTrials, DptConfig
from metarl.agents.in_context.imitation import ImitationLearner
from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.experiments.commands.main import main
from metarl.numerics.distributions import Distribution
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import LabelledTrials
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.recorded import load_recorded
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.by_hand import cut
from tests.agents.language.models import memory_settings
from tests.agents.test_all_learners import numbers as everything
from tests.runs import numbers, tiny

HORIZON = 6
both = pytest.mark.parametrize("name", ["dpt", "algorithm-distillation"])
both_kinds = pytest.mark.parametrize("family", ["navigation-2d", "gridnavi"])


def learner_and_rollouts(name: str, family: str = "gridnavi", **settings: Any) -> tuple[Any, list[Rollout]]:
    """Return an untrained learner and the two episodes of some trials, every second one cut short."""
    kind = DptConfig if name == "dpt" else AlgorithmDistillationConfig
    config = TrainConfig(name, family, RunConfig(horizon=HORIZON), kind(**{"hidden_size": 8, **settings}))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert isinstance(learner, ImitationLearner)
    tasks, rollouts = config.split().train_tasks(2, 0), []
    state: Any = learner.begin(2)
    for episode in range(2):
        rollouts.append(cut(sampler.collect(learner, state, tasks, 2, episode), 4))
        state = learner.adapt(state, rollouts[-1])
    return learner, rollouts


@pytest.mark.parametrize("memory", list(MEMORIES))
@both_kinds
@both
def test_reading_a_trial_at_once_is_acting_through_it(name: str, family: str, memory: str) -> None:
    learner, rollouts = learner_and_rollouts(
        name, family, **memory_settings(memory), **({"shuffle": False} if name == "dpt" else {})
    )
    trials = learner.examples(rollouts[:1])
    arranged = learner.arranged(trials, torch.rand(trials.valid.shape))
    policy, _ = learner.predicted(arranged)
    acted: Distribution = rollouts[0].known_distribution()
    for whole, stepwise in zip(policy.tensors(), acted.tensors(), strict=True):
        torch.testing.assert_close(whole[trials.valid], stepwise.flatten(0, 1)[trials.valid])


@both_kinds
@both
def test_the_loss_is_the_mean_negative_log_likelihood_of_the_actions_to_imitate(name: str, family: str) -> None:
    learner, rollouts = learner_and_rollouts(name, family)
    trials = learner.examples(rollouts)
    arranged = learner.arranged(trials, torch.rand(trials.valid.shape))
    policy, targets = learner.predicted(arranged)
    loss, entropy = learner.loss(arranged)
    torch.testing.assert_close(loss, -policy.log_prob(targets)[trials.valid].mean())
    torch.testing.assert_close(entropy, policy.entropy()[trials.valid].mean())
    wanted = trials.best_actions if name == "dpt" else trials.actions
    assert sorted(map(str, targets[trials.valid].tolist())) == sorted(map(str, wanted[trials.valid].tolist()))


def test_a_shuffled_context_has_whole_transitions_with_the_best_action_after_each() -> None:
    learner, rollouts = learner_and_rollouts("dpt")
    trials = learner.examples(rollouts)
    assert isinstance(trials, LabelledTrials)
    arranged = learner.arranged(trials, torch.rand(trials.valid.shape, generator=torch.Generator().manual_seed(1)))
    assert isinstance(arranged, ArrangedTrials)
    seen: list[torch.Tensor] = []
    learner.network.memory.memory.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    _, targets = learner.predicted(arranged)
    ordered = learner.trial_inputs(trials)
    for row, steps in enumerate(trials.lengths.tolist()):
        order = arranged.order[row].tolist()
        assert sorted(order[:steps]) == list(range(steps))
        assert order[:steps] != list(range(steps))
        assert order[steps:] == list(range(steps, len(order)))
        for place, step in enumerate(order[:steps]):
            before = ordered[row, step - 1] if step else torch.zeros_like(ordered[row, 0])
            torch.testing.assert_close(seen[0][row, place], torch.cat([ordered[row, step], before]))
            assert targets[row, place] == trials.best_actions[row, step]


def test_the_labels_are_the_best_actions_of_the_task() -> None:
    config = TrainConfig("dpt", "gridnavi", RunConfig(horizon=9))
    rollout = Sampler(config.make_family()).collect(
        config.make_learner(), config.make_learner().begin(3), config.split().train_tasks(3, 0), 4, 1
    )
    # On the goal it stays; otherwise it moves nearer, also where there is no time left to reach it.
    moves = torch.tensor([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])
    goals, labels = rollout.tasks["goal"][:, None, None], rollout.best_actions
    assert labels is not None
    away = (goals - rollout.observations.long()).abs().sum(-1)
    after = (goals - rollout.observations.long() - moves[labels]).abs().sum(-1)
    assert (after == (away - 1).clamp(min=0)).all()


def test_a_family_without_known_solution_and_episodes_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"^dpt predicts the best actions in families whose best actions are known"):
        TrainConfig("dpt", "half-cheetah-vel")
    learner, rollouts = learner_and_rollouts("dpt")
    with pytest.raises(InputError, match="do not contain; record them with metarl collect --best-actions"):
        learner.update([replace(each, best_actions=None) for each in rollouts])


def test_dpt_reads_whole_transitions_only() -> None:
    with pytest.raises(InputError, match="previous_step must be auto or yes, not no"):
        DptConfig(previous_step="no")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        ({"hidden_size": 6}, "the memory transformer.s size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AlgorithmDistillationConfig(**settings)


@both
def test_it_learns_what_it_is_shown(name: str) -> None:
    learner, rollouts = learner_and_rollouts(name, learning_rate=1e-2, minibatches=1, epochs=5)
    losses = [learner.update(rollouts)["imitation_loss"] for _ in range(8)]
    assert losses[0] > losses[-1] + 0.5


@both
def test_an_update_that_is_not_finite_leaves_the_learner(name: str) -> None:
    learner, rollouts = learner_and_rollouts(name)
    learner.update(rollouts)
    before = everything(learner.state_dict()).clone()
    broken = replace(rollouts[1], rewards=torch.full_like(rollouts[1].rewards, math.nan))
    with pytest.raises(RunError, match="the update is not finite"):
        learner.update([rollouts[0], broken])
    assert torch.equal(everything(learner.state_dict()), before)


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 2 learning histories of 4 rounds of each of 3 tasks, by DQN from scratch, with the best actions."""
    folder = tmp_path_factory.mktemp("histories")
    config = tiny("dqn", folder / "run", iterations=1)
    train(replace(config, settings=replace(config.settings, variant="scratch")))
    words = ["--tasks", "3", "--episodes", "2", "--steps", "3", "--best-actions"]
    assert main(["collect", str(folder / "run"), "--out", str(folder / "data"), *words]) == 0
    return folder / "data"


def recorded(name: str, histories: Path, out: Path, **run: Any) -> TrainConfig:
    config = replace(tiny(name, out, data=str(histories), **run), family="gridnavi")
    return replace(config, settings=replace(config.settings, episodes_per_trial=3))


@both
def test_it_trains_on_recorded_histories_without_an_environment_step_and_resumes_exactly(
    name: str, histories: Path, tmp_path: Path
) -> None:
    run = {"iterations": 3, "checkpoint_every": 1}
    train(recorded(name, histories, tmp_path / "whole", **run))
    train(recorded(name, histories, tmp_path / "parts", **{**run, "iterations": 2}))
    resume(tmp_path / "parts", 3)
    rows = numbers(tmp_path / "whole")
    assert numbers(tmp_path / "parts") == rows
    assert {row["env_steps"] for row in rows} == {0}
    assert evaluate(str(tmp_path / "whole"), tasks=2, steps=4).returns.shape == (2, 5)


def test_a_trial_of_distillation_is_a_part_of_one_history(histories: Path) -> None:
    data = load_recorded(histories)
    assert data.description.rounds == 4
    rounds, met = data.rollout.rewards.unflatten(1, (4, 2)), set()  # of each round, two histories
    for iteration in range(20):
        drawn = data.draw(3, 2, 3, seed=0, iteration=iteration, stride=1)
        for task, goal in enumerate(drawn[0].tasks["goal"]):
            own = rounds[(data.rollout.tasks["goal"] == goal).all(-1)][0]
            parts = torch.stack([rollout.rewards[task] for rollout in drawn])  # [rounds, trials, T]
            for part in parts.unbind(1):
                found = {(start, each) for start in range(2) for each in range(2) if same_part(own, part, start, each)}
                assert found
                met |= found
    assert met == {(start, each) for start in range(2) for each in range(2)}
    with pytest.raises(InputError, match="histories of 4 rounds, but 3 episodes with a stride of 2 need 5"):
        data.draw(3, 2, 3, seed=0, iteration=0, stride=2)


def same_part(own: torch.Tensor, part: torch.Tensor, start: int, history: int) -> bool:
    """Tell whether rewards ``[rounds, T]`` are those of a history ``[all rounds, histories, T]`` from a round on."""
    return torch.equal(own[start : start + len(part), history], part)


def test_the_command_asks_for_what_distillation_learns_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "algorithm-distillation", "gridnavi"]) == 2
    assert "learns from the recorded episodes of another learner: record them with" in capsys.readouterr().err


def test_unsolved_families_cannot_be_recorded_with_best_actions(tmp_path: Path) -> None:
    train(replace(tiny("rl2", tmp_path / "run", iterations=1), family="key-and-door"))
    with pytest.raises(InputError, match="--best-actions works in families whose best actions are known"):
        collect(CollectOptions(str(tmp_path / "run"), str(tmp_path / "data"), best_actions=True))
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_dpt_learns_to_find_the_best_arm(tmp_path: Path) -> None:
    settings = DptConfig(episodes_per_trial=20)
    run = RunConfig(
        iterations=60, tasks_per_batch=128, episodes_per_task=1, track="disabled", out=str(tmp_path / "run")
    )
    train(TrainConfig("dpt", "bandit", run, settings))
    means = evaluate(str(tmp_path / "run"), tasks=200).returns.mean(0)
    assert means[-5:].mean() > means[:2].mean() + 0.12
