"""What only a CUDA device can show; skipped elsewhere."""

from pathlib import Path

import pytest
import torch

import metarl
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.family import FAMILIES
from metarl.seeding import generator
from metarl.vector_env import TaskVectorEnv

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]
TENSOR_FAMILIES = sorted(set(FAMILIES) - {"half-cheetah-vel"})


@pytest.mark.parametrize("name", ["gridnavi", "navigation-2d"])
def test_worlds_move_as_on_the_cpu(name: str) -> None:
    family = metarl.make_family(name)
    tasks = family.sample_tasks(8, generator(0, "tasks"))
    found = {}
    for device in ("cpu", "cuda"):
        env = TaskVectorEnv(family, 8, device)
        env.set_tasks(tasks)
        env.reset(seed=0)
        stream, steps = generator(0, "actions"), []
        for _ in range(5):
            draws = torch.rand(8, 2, generator=stream) * 0.2 - 0.1
            actions = draws if name == "navigation-2d" else (draws[:, 0] > 0).long() + 1
            observations, rewards, *_ = env.step(actions.to(device))
            steps += [observations.cpu().flatten(), rewards.cpu()]
        found[device] = torch.cat(steps)
    torch.testing.assert_close(found["cuda"], found["cpu"])


@pytest.mark.parametrize("name", TENSOR_FAMILIES)
def test_a_run_trains_and_evaluates_on_the_device(name: str, tmp_path: Path) -> None:
    settings = metarl.RunConfig(
        iterations=2, device="cuda", tasks_per_batch=3, episodes_per_task=4, out=f"{tmp_path}/run", track="disabled"
    )
    run = metarl.train(metarl.TrainConfig("maml-trpo", name, settings, MamlTrpoConfig(hidden_sizes=(8,))))
    assert len(run.read_metrics()) == 2
    assert metarl.evaluate(run.path, tasks=3, steps=1).returns.shape == (3, 2)


def test_adaptation_is_that_of_the_cpu() -> None:
    adapted = {}
    for device in ("cpu", "cuda"):
        config = metarl.TrainConfig("maml-trpo", "navigation-2d", metarl.RunConfig(device=device, horizon=10))
        learner = config.make_learner()
        tasks = config.split().train_tasks(3, 0)
        if device == "cpu":
            rollout = metarl.Sampler(config.make_family()).collect(learner, learner.begin(3), tasks, 5, seed=1)
        adapted[device] = learner.adapt(learner.begin(3), rollout.to(device)).params
    for key, value in adapted["cpu"].items():
        torch.testing.assert_close(adapted["cuda"][key].cpu(), value, rtol=1e-3, atol=1e-4)
