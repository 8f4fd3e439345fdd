"""Several processes, which are real ones over gloo, give one process's numbers, for every learner.

What is left between them is the order of summation: numbers must be within 1e-3 of each other after three iterations,
parameters to 1e-4, in float32. Between processes parameters are equal bit for bit, which ``train`` itself checks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.devices.processes import Processes
from metarl.errors import InputError, RunError
from metarl.evaluation.evaluate import evaluate, load_run
from metarl.experiments.commands.collect import CollectOptions, collect
from metarl.learning.learner import LEARNERS
from metarl.learning.trust_region import TrustRegionConfig
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.run.metrics import VALIDATION_TASKS
from metarl.run.replay_files import ReplayFiles
from metarl.training.train import resume, train
from tests.agents.test_sharded_updates import leaves
from tests.ranks import Ranks
from tests.runs import numbers

SMALL_SAC = {"updates_per_iteration": 3, "batch_size": 8, "context_size": 5, "hidden_sizes": (8,), "latent_size": 2}
SMALL_BELIEF = {"encoder_size": 8, "model_updates": 2, "model_trials": 4, "buffer_trials": 9, "minibatches": 2}
SMALL_RECURRENT = {"hidden_size": 8, "embedding_size": 8, "hidden_sizes": (8,), "buffer_trials": 9}
SMALL_RECURRENT |= {"updates_per_iteration": 2, "trials_per_update": 4}
# Few products, well damped: on so little data conjugate gradient turns rounding into per cents within ten.
FEW = TrustRegionConfig(cg_iterations=3, cg_damping=1.0)
# What each learner trains on, in which settings: all kinds of draws in reset, step, policy and update are met.
# Of the robots it is the ant: contacts of the half-cheetah enlarge differences in rounding a hundredfold an iteration.
LEARNERS_ON: dict[str, tuple[str, dict[str, Any]]] = {
    "maml-trpo": ("ant-vel", {"hidden_sizes": (8,), "trust_region": FEW}),
    "maml-ppo": ("tabular-mdp", {"hidden_sizes": (8,), "epochs": 2}),
    "maml-vpg": ("navigation-2d", {"hidden_sizes": (8,)}),
    "reptile": ("gridnavi", {"hidden_sizes": (8,)}),
    "rl2": ("gridnavi", {"hidden_size": 8, "minibatches": 2, "epochs": 2, "normalize_observations": True}),
    "hyper-rl2": ("navigation-2d", {"hidden_size": 8, "policy_sizes": (4,), "minibatches": 2, "bptt_steps": 7}),
    "varibad": ("sparse-point", SMALL_BELIEF),
    "metric": ("navigation-2d", {"encoder_size": 8, "hidden_sizes": (8,), "metric_updates": 2, "minibatches": 2}),
    "dpt": ("gridnavi", {"hidden_size": 8}),
    "pearl": ("navigation-2d", SMALL_SAC),
    "recurrent-sac": ("navigation-2d", SMALL_RECURRENT),
    "amago": ("gridnavi", {**SMALL_RECURRENT, "layers": 1, "discounts": (0.5, 0.9)}),
    "random": ("navigation-2d", {}),
    "optimal": ("navigation-2d", {}),
}
# Learners that only train on recorded episodes. Adam would turn rounding in the small gradients of FOCAL's metric into
# whole steps.
ON_RECORDED: dict[str, dict[str, Any]] = {
    "focal": {**SMALL_SAC, "optimizer": "sgd"},
    "algorithm-distillation": {"hidden_size": 8},
}
SHARED = {"horizon": 6, "episodes_per_task": 2, "checkpoint_every": 2, "track": "disabled"}


def config(name: str, out: Path, family: str | None = None, **run: Any) -> TrainConfig:
    known, settings = LEARNERS_ON[name]
    settings = LEARNERS[name].config_class(**settings)
    wanted = {"iterations": 3, "tasks_per_batch": 3, **SHARED, **run}
    return TrainConfig(name, family or known, RunConfig(out=str(out), **wanted), settings)


@pytest.fixture(autouse=True)
def _validation_tasks_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.training.loop.VALIDATION_TASKS", VALIDATION_TASKS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    started = Ranks(4, tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()


def trained(processes: Processes, run: TrainConfig) -> None:
    train(run, processes=processes)


def resumed(processes: Processes, path: str, iterations: int) -> None:
    resume(path, iterations, processes=processes)


def measured(processes: Processes, path: str, tasks: int, deterministic: bool) -> dict[str, Any]:
    return evaluate(path, tasks, deterministic=deterministic, processes=processes).to_json()


def state(path: Path) -> list[Tensor]:
    """Return all that a run has learned, with its replay, as numbers."""
    directory = RunDirectory(path)
    content, (_, learner, _) = directory.load_checkpoint(), load_run(path)
    ReplayFiles(directory.replay, learner.replays()).load(content["replay"])
    kept = [replay.read(replay.added - replay.kept, replay.added) for replay in learner.replays().values()]
    return list(leaves([content["learner"], content["task_source"], kept]))


def hold(path: Path, other: Path) -> None:
    """Hold a run to another one: the same numbers up to the order of summation."""
    rows, others = numbers(path), numbers(other)
    assert len(rows) == len(others) > 0
    for row, expected in zip(rows, others, strict=True):
        assert {name for name, value in row.items() if value is None} == {
            name for name, value in expected.items() if value is None
        }
        # A gain is the difference of two returns, which are compared: its own error may be large beside it.
        known = {name: value for name, value in expected.items() if value is not None and "gain" not in name}
        assert {name: row[name] for name in known} == pytest.approx(known, rel=1e-3, abs=1e-5)
    for found, wanted in zip(state(path), state(other), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", list(LEARNERS_ON))
def test_two_processes_train_to_one_processs_numbers(name: str, ranks: Ranks, tmp_path: Path) -> None:
    train(config(name, tmp_path / "one"))
    ranks.do(2, trained, config(name, tmp_path / "two"))
    hold(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("name", list(ON_RECORDED))
def test_two_processes_learn_the_same_from_recorded_episodes(name: str, ranks: Ranks, tmp_path: Path) -> None:
    train(config("random", tmp_path / "random", iterations=1))
    collect(CollectOptions(str(tmp_path / "random"), str(tmp_path / "data"), tasks=5, episodes=4, steps=3))
    settings = LEARNERS[name].config_class(episodes_per_trial=2, **ON_RECORDED[name])
    run = {"iterations": 3, "tasks_per_batch": 3, "data": str(tmp_path / "data"), **SHARED}
    paths = tmp_path / "one", tmp_path / "two"
    one, two = (TrainConfig(name, "navigation-2d", RunConfig(out=str(path), **run), settings) for path in paths)
    train(one)
    ranks.do(2, trained, two)
    hold(paths[1], paths[0])


def test_four_processes_train_with_wrapped_environments_and_recorded_returns(ranks: Ranks, tmp_path: Path) -> None:
    # Prioritised replay must score the tasks of all processes; a wrapped world gets its seed from the batch's.
    run = {"tasks_per_batch": 5, "task_source": "plr"}
    train(config("maml-vpg", tmp_path / "one", "cartpole-params", **run))
    ranks.do(4, trained, config("maml-vpg", tmp_path / "four", "cartpole-params", **run))
    hold(tmp_path / "four", tmp_path / "one")


@pytest.mark.parametrize("name", ["pearl", "varibad"])
def test_a_run_resumes_on_another_number_of_processes(name: str, ranks: Ranks, tmp_path: Path) -> None:
    train(config(name, tmp_path / "one"))
    path = tmp_path / "several"
    ranks.do(2, trained, config(name, path, iterations=1))
    resume(path, 2)
    ranks.do(3, resumed, str(path), 3)
    hold(path, tmp_path / "one")


def test_evaluation_is_shared_and_the_same(ranks: Ranks, tmp_path: Path) -> None:
    train(config("maml-vpg", tmp_path / "run", iterations=1))
    # Three tasks for two processes, and one task for two, which each of them measures.
    for tasks, deterministic in ((3, True), (1, False)):
        expected = evaluate(tmp_path / "run", tasks, deterministic=deterministic).to_json()
        for found in ranks.do(2, measured, str(tmp_path / "run"), tasks, deterministic):
            assert found["tasks"] == expected["tasks"]
            for name in ("returns", "env_steps"):
                torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(expected[name]))


def test_what_several_processes_cannot_do_is_refused_by_all(ranks: Ranks, tmp_path: Path) -> None:
    few = config("maml-vpg", tmp_path / "few", tasks_per_batch=1)
    with pytest.raises(InputError, match="2 processes need at least one task each, but an iteration has 1"):
        ranks.do(2, trained, few)
    single = TrainConfig("dqn", "gridnavi", RunConfig(out=str(tmp_path / "dqn"), **SHARED))
    with pytest.raises(InputError, match="dqn runs in a single process, not in 2"):
        ranks.do(2, trained, single)
    assert not list(tmp_path.iterdir())


def drifting(processes: Processes, run: TrainConfig) -> None:
    class Drifting(type(run.make_learner())):  # type: ignore[misc]
        def update(self, rollouts: Any) -> dict[str, float]:
            metrics: dict[str, float] = super().update(rollouts)
            self.params["weight_0"] = self.params["weight_0"] + 1e-7 * processes.rank
            return metrics

    LEARNERS[run.learner] = Drifting
    try:
        train(run, processes=processes)
    finally:
        LEARNERS[run.learner] = Drifting.__base__


def test_a_drift_between_processes_ends_the_run(ranks: Ranks, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="parameters of process 1 differ from those of process 0"):
        ranks.do(2, drifting, config("maml-vpg", tmp_path / "run"))
    assert [path.name for path in RunDirectory(tmp_path / "run").checkpoint_files()] == ["iteration-0"]


def test_a_failure_of_one_process_ends_all_with_its_line(ranks: Ranks, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"iteration 1: .*actions became NaN or infinite in .*task 2 .*checkpoint"):
        ranks.do(2, poisoned, config("maml-vpg", tmp_path / "run"))
    assert len(RunDirectory(tmp_path / "run").read_metrics()) == 1


def poisoned(processes: Processes, run: TrainConfig) -> None:
    from metarl.sampling.sampler import Sampler

    collect = Sampler._step

    def spoil(self: Any, running: Any, tasks: Any, *given: Any) -> Any:
        env = collect(self, running, tasks, *given)
        spoil.calls += 1  # type: ignore[attr-defined]
        if processes.rank == 1 and spoil.calls == 4:  # type: ignore[attr-defined]
            running._tensors["actions"][:, -1] = torch.nan
        return env

    spoil.calls = 0  # type: ignore[attr-defined]
    Sampler._step = spoil  # type: ignore[method-assign]
    try:
        train(run, processes=processes)
    finally:
        Sampler._step = collect  # type: ignore[method-assign]
