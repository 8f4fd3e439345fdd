"""What each algorithm of Stable-Baselines3 does as a learner, and whole runs of them."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, SAC
from torch import Tensor

from metarl.agents.baselines.sb3 import gradient_steps
from metarl.agents.baselines.sb3.models import knowledge
from metarl.evaluation.evaluate import evaluate, load_run
from metarl.experiments.commands.main import main
from metarl.learning.learner import LEARNERS, OpenState
from metarl.numerics.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.training.train import resume, train
from tests.agents.baselines.sb3.test_learner import HOME, LITTLE_WORK, collect, every_learner, every_variant, make
from tests.agents.baselines.sb3.test_models import numbers
from tests.runs import numbers as rows

SEEN = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0))


def trained(name: str, family: str | None = None, **settings: Any) -> Any:
    learner, sampler = make(name, family=family, **settings)
    learner.update([collect(learner, sampler, learner.begin(2))])
    return learner


def act(learner: Any, observations: Tensor = SEEN, deterministic: bool = False) -> Any:
    return learner.act(OpenState(learner.begin(2)), observations, torch.Generator().manual_seed(1), deterministic)


@pytest.mark.parametrize("name", ["dqn", "ppo", "a2c", "sac"])
def test_deterministic_actions_are_sb3s(name: str) -> None:
    learner = trained(name, "navigation-2d" if name == "ppo" else HOME[name])
    actions, _ = act(learner, deterministic=True)
    expected, _ = learner.model.predict(SEEN.flatten(0, 1).numpy(), deterministic=True)
    # SB3 clips to the bounds; metarl's sampler does.
    clipped = actions.flatten(0, 1) if name == "dqn" else actions.flatten(0, 1).clamp(-1, 1)
    np.testing.assert_allclose(clipped.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "family"), [("ppo", "navigation-2d"), ("ppo", "gridnavi"), ("a2c", "navigation-2d")])
def test_log_probabilities_of_ppo_and_a2c_are_sb3s(name: str, family: str) -> None:
    learner = trained(name, family)
    actions, distribution = act(learner)
    assert isinstance(distribution, Categorical if family == "gridnavi" else DiagonalGaussian)
    flat = SEEN.flatten(0, 1), actions.flatten(0, 1)
    expected = learner.model.policy.evaluate_actions(*flat)[1]
    torch.testing.assert_close(distribution.log_prob(actions).flatten(), expected)


def test_log_probabilities_of_sac_are_sb3s() -> None:
    learner = trained("sac")
    actions, distribution = act(learner)
    assert isinstance(distribution, SquashedGaussian)
    actor = cast(SAC, learner.model).actor
    expected = actor.action_dist.proba_distribution(*actor.get_action_dist_params(SEEN.flatten(0, 1))[:2])
    torch.testing.assert_close(
        distribution.log_prob(actions).flatten(), expected.log_prob(actions.flatten(0, 1)), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_dqn_takes_a_share_of_random_actions(share: float) -> None:
    learner = trained("dqn", exploration_final_eps=share)
    observations = SEEN[:, :1].expand(-1, 4000, -1)
    actions, distribution = act(learner, observations)
    greedy = act(learner, observations, deterministic=True)[0]
    chances = distribution.logits.softmax(-1)
    torch.testing.assert_close(chances.gather(-1, greedy[..., None]).min().item(), 1 - share * 4 / 5)
    assert (actions != greedy).double().mean().item() == pytest.approx(share * 4 / 5, abs=0.02)
    assert distribution.log_prob(actions).isfinite().all()


def test_each_task_acts_by_its_own_model() -> None:
    learner, _ = make("ppo", "scratch", "navigation-2d")
    state = learner.begin(2)
    together, distribution = learner.act(OpenState(state), SEEN, torch.Generator(), deterministic=True)
    assert distribution.log_std.shape == (2, 40, 2)
    for task, model in enumerate(state.models):
        alone, _ = model.predict(SEEN[task].numpy(), deterministic=True)
        np.testing.assert_allclose(together[task].clamp(-1, 1).numpy(), alone, atol=1e-6)


@pytest.mark.parametrize("worlds", [1, 2, 4])
@pytest.mark.parametrize(("per_gradient", "updates"), [(1, 40), (2, 20), (4, 10)])
def test_gradient_steps_do_not_depend_on_the_number_of_worlds(worlds: int, per_gradient: int, updates: int) -> None:
    learner, sampler = make("dqn", "scratch", worlds=worlds, steps_per_gradient=per_gradient)
    state = learner.begin(2)
    state = learner.adapt(state, collect(learner, sampler, state, episodes=8))
    assert [(model.num_timesteps, model._n_updates) for model in state.models] == [(40, updates)] * 2


@pytest.mark.parametrize("worlds", [1, 4, 5])
def test_gradient_steps_are_held_where_worlds_do_not_divide_them(worlds: int) -> None:
    learner, sampler = make("dqn", "scratch", worlds=worlds, steps_per_gradient=6)
    state, updates = learner.begin(1), []
    for _ in range(3):
        state = learner.adapt(state, collect(learner, sampler, state, episodes=4 if worlds == 4 else 5, tasks=1))
        updates.append((state.models[0].num_timesteps, state.models[0]._n_updates))
    # Rollouts of 20 steps, or of 25.
    expected = [(20, 3), (40, 6), (60, 10)] if worlds == 4 else [(25, 4), (50, 8), (75, 12)]
    assert updates == expected


def test_gradient_steps_are_held_in_more_worlds_than_steps_for_each() -> None:
    learner, sampler = make("dqn", worlds=4, steps_per_gradient=6)
    for iteration in range(3):  # 8 worlds: 40 steps each time
        learner.update([collect(learner, sampler, learner.begin(2), episodes=4)])
        steps = 40 * (iteration + 1)
        assert (learner.model.num_timesteps, learner.model._n_updates) == (steps, steps // 6)


def test_no_gradient_steps_come_before_learning_starts() -> None:
    learner, sampler = make("dqn", "scratch", worlds=4, steps_per_gradient=6, learning_starts=20)
    state = learner.adapt(learner.begin(1), collect(learner, sampler, learner.begin(1), episodes=8, tasks=1))
    # 40 steps: after 24, 32 (30 is passed) and 36.
    assert (state.models[0].num_timesteps, state.models[0]._n_updates) == (40, 3)


@pytest.mark.parametrize("worlds", [1, 3, 4])
def test_the_target_network_counts_gradient_steps(worlds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[int] = []
    learner, sampler = make("dqn", worlds=worlds, steps_per_gradient=1, target_update_interval=15)

    models: list[Any] = []

    def count(online: Any, target: Any, tau: float) -> None:
        followed.append(models[-1]._n_updates)

    monkeypatch.setattr(gradient_steps, "polyak_update", count)
    monkeypatch.setattr(learner, "prepare", lambda model, steps, shared: models.append(model))
    for _ in range(2):  # 10, 30 or 40 steps in 2, 6 or 8 worlds, and one gradient step for each
        learner.update([collect(learner, sampler, learner.begin(2), episodes=worlds)])
    assert followed == [15 * number for number in range(1, int(learner.model._n_updates) // 15 + 1)]
    assert followed


def test_random_actions_become_rarer_over_all_of_a_tasks_steps() -> None:
    learner, sampler = make("dqn", "scratch", exploration_steps=100, exploration_final_eps=0.1)
    state, shares = learner.begin(1), []
    for _ in range(3):
        state = learner.adapt(state, collect(learner, sampler, state, tasks=1))
        shares.append(state.models[0].exploration_rate)
    assert shares == pytest.approx([1 - 0.9 * 0.4, 1 - 0.9 * 0.8, 0.1])


def test_a_copy_explores_its_task_from_scratch() -> None:
    learner, sampler = make("dqn", exploration_steps=100, shared_exploration_steps=40, exploration_final_eps=0.1)
    rollout = collect(learner, sampler, learner.begin(2))
    learner.update([rollout])
    assert learner.model.exploration_rate == pytest.approx(0.1)
    copies = learner.adapt(learner.begin(2), rollout).models
    assert [model.exploration_rate for model in copies] == pytest.approx([1 - 0.9 * 0.4] * 2)


def test_the_target_network_waits_for_its_gradient_steps() -> None:
    learner, sampler = make("dqn", "scratch", steps_per_gradient=2, target_update_interval=15, worlds=1)
    state = learner.begin(1)
    start = cast(DQN, state.models[0]).q_net_target.state_dict()
    moved = []
    for _ in range(3):  # 20 steps, 10 gradient steps
        state = learner.adapt(state, collect(learner, sampler, state, episodes=4, tasks=1))
        target = cast(DQN, state.models[0]).q_net_target.state_dict()
        moved.append(any(not torch.equal(target[key], start[key]) for key in start))
    assert moved == [False, True, True]


@pytest.mark.parametrize(
    ("episodes", "round_steps", "length", "rounds"),
    [(8, 32, 10, 1), (8, 5, 5, 2), (8, 4, 5, 2), (8, 3, 3, 3), (1, 3, 5, 1)],
)
def test_rounds_are_stretched_to_fill_the_steps(episodes: int, round_steps: int, length: int, rounds: int) -> None:
    # 8 episodes of 5 steps in 4 worlds are 10 steps of each.
    learner, sampler = make("a2c", "scratch", "gridnavi", round_steps=round_steps)
    state = learner.begin(2)
    state = learner.adapt(state, collect(learner, sampler, state, episodes))
    assert [(model.n_steps, model._n_updates) for model in state.models] == [(length, rounds)] * 2


def config(name: str, out: Path, iterations: int, variant: str = "pretrained") -> TrainConfig:
    family = HOME[name]
    run = RunConfig(iterations=iterations, horizon=1 if family == "bandit" else 5, tasks_per_batch=2,
                    episodes_per_task=5, track="disabled", out=str(out))  # fmt: skip
    settings = LEARNERS[name].config_class(variant=variant, hidden_sizes=(8,), **LITTLE_WORK[name])
    return TrainConfig(name, family, run, settings)


@every_learner
@every_variant
def test_a_run_is_trained_and_evaluated(name: str, variant: str, tmp_path: Path) -> None:
    train(config(name, tmp_path / "run", 2, variant))
    curve = evaluate(tmp_path / "run", tasks=2, steps=2)
    assert np.isfinite(curve.returns).all()
    assert curve.returns.shape == (2, 3)
    assert [float(row["learned_env_steps"]) > 0 for row in rows(tmp_path / "run")] == [variant != "scratch"] * 2


@every_learner
def test_a_resumed_run_comes_to_the_same_numbers(name: str, tmp_path: Path) -> None:
    train(config(name, tmp_path / "straight", 3))
    train(config(name, tmp_path / "resumed", 1))
    resume(tmp_path / "resumed", iterations=3)
    assert rows(tmp_path / "resumed") == rows(tmp_path / "straight")
    states = [RunDirectory(tmp_path / run).load_checkpoint()["learner"] for run in ("resumed", "straight")]
    assert numbers(states[0]) == numbers(states[1])
    assert (evaluate(tmp_path / "resumed", 2, 2).returns == evaluate(tmp_path / "straight", 2, 2).returns).all()


def test_sb3_loads_the_archive_of_a_runs_model(tmp_path: Path) -> None:
    train(config("dqn", tmp_path / "run", 1))
    _, learner, _ = load_run(tmp_path / "run")
    cast(Any, learner).model.save(tmp_path / "model.zip")
    loaded = DQN.load(tmp_path / "model.zip", device="cpu")
    assert numbers(knowledge(loaded)["parameters"]) == numbers(learner.state_dict()["model"]["parameters"])


@pytest.mark.parametrize("variant", ["scratch", "pretrained", "oracle"])
def test_the_command_line_trains_evaluates_and_resumes_it(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--iterations 1 --horizon 5 --tasks-per-batch 2 --episodes-per-task 3 --hidden-sizes 8 --track disabled"
    assert main(["train", "dqn", "gridnavi", "--variant", variant, *words.split(), "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--iterations", "2"]) == 0
    assert main(["evaluate", "run", "--tasks", "2", "--steps", "1"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "after step 1" in said.out
    assert RunDirectory("run").read_config()["settings"]["variant"] == variant


def test_the_command_line_says_what_a_bad_pairing_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "dqn", "navigation-2d"]) == 2
    assert capsys.readouterr().err == (
        "metarl: dqn needs Discrete actions, but those of navigation-2d are Box(-0.1, 0.1, (2,), float32); "
        "use ppo, a2c, sac or rl2\n"
    )
    assert list(tmp_path.iterdir()) == []
