"""States follow from the stored episodes, bit for bit: after a restart, out of memory, and after a kill."""

from pathlib import Path

import pytest

from benchmarks.serve_kills import survive
from metarl.evaluation.evaluate import load_run
from metarl.worlds.numpy_env import TaskEnv
from tests.serving.serving import lived, same, served, trained

LEARNERS = ("maml-trpo", "reptile", "rl2", "hyper-rl2", "varibad", "pearl", "recurrent-sac", "random")


def make_env(run: str, number: int = 0) -> TaskEnv:
    """Return the environment of a held-out task of a run."""
    config, _, _ = load_run(run)
    return TaskEnv(config.make_family(), config.split().held_out_tasks("test", 1 + number)[number:])


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_task_that_is_rebuilt_for_every_request_goes_on_as_one_in_memory(
    learner: str, runs: Path, folder: Path
) -> None:
    run = trained(runs, learner)
    env, traces = make_env(run), []
    for open_tasks in (1, 0):
        with served(run, f"sqlite:///{folder / str(open_tasks)}", open_tasks=open_tasks) as server:
            task = server.client.task(seed=7)
            traces.append([lived(task, env, seed) for seed in range(3)])
            assert task.state()["adaptation_steps"] > 0
    assert all(same(one, two) for one, two in zip(*traces, strict=True))
    assert not same(traces[0][0], traces[0][1])


def test_nothing_that_was_answered_is_lost_by_a_kill(maml: str, folder: Path) -> None:
    assert survive(maml, folder, kills=1, clients=2) >= 2 * 3 * 6
