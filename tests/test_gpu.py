"""What only a CUDA device can show; skipped elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import metarl
from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.envs.wrapped.gymnasium_worlds import EnvironmentFamily
from metarl.families.family import FAMILIES, TaskFamily
from metarl.learning.learner import LEARNERS, Actor
from metarl.learning.policies import make_policy
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import per_task
from metarl.seeding import generator
from metarl.worlds.vector_env import TaskVectorEnv
from tests.agents.language.models import memory_settings
from tests.fakes import PolicyActor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]
CUDA = torch.device("cuda")
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(autouse=True)
def watch_synchronisation() -> Any:
    """Leave the debug mode as it was, whatever the test did."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def on_device(name: str, horizon: int = 5) -> TaskFamily:
    """Make a family, or skip the test where its steps leave the device."""
    family = metarl.make_family(name)
    if family.horizon > 1:
        family = metarl.make_family(name, horizon=horizon)
    if isinstance(family, EnvironmentFamily):
        pytest.skip("its worlds live on the CPU")
    return family


def policy_and_state(family: TaskFamily) -> tuple[PolicyActor, Any]:
    policy = make_policy(family.observation_space, family.action_space, (8,))
    return PolicyActor(policy), per_task(policy.init_params(generator(0, "policy")), 3).to(CUDA)


class Watched(Actor):
    """Acts by a policy; between its second action and its last, waiting for the device is an error."""

    def __init__(self, policy: PolicyActor, horizon: int) -> None:
        self._policy, self._horizon, self._steps = policy, horizon, 0

    def open(self, state: Any, episodes: int, generator: torch.Generator, deterministic: bool = False) -> Any:
        return self._policy.open(state, episodes, generator, deterministic)

    def act(
        self, working: Any, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        self._steps += 1
        if self._steps == 2:
            torch.cuda.set_sync_debug_mode("error")
        if self._steps == self._horizon:
            torch.cuda.set_sync_debug_mode("default")
        return self._policy.act(working, observations, generator, deterministic)


@every_family
def test_the_step_loop_does_not_wait_for_the_device(name: str) -> None:
    family = on_device(name)
    policy, state = policy_and_state(family)
    tasks = family.sample_tasks(3, generator(0, "tasks"))
    actor = Watched(policy, family.horizon)
    metarl.Sampler(family, CUDA, captured=False).collect(actor, state, tasks, episodes=2, seed=0)


@every_family
def test_captured_and_eager_collections_are_equal(name: str) -> None:
    family = on_device(name)
    # MuJoCo Warp sums contacts in any order.
    tolerance = 1e-3 if isinstance(family, LocomotionFamily) else 0.0
    policy, state = policy_and_state(family)
    tasks = family.sample_tasks(3, generator(0, "tasks"))
    found = []
    for captured in (False, True):
        sampler = metarl.Sampler(family, CUDA, captured)
        # The second time with other parameters, from the graph of the first.
        found.append(
            [sampler.collect(policy, params, tasks, 2, seed) for seed, params in enumerate((state, 2 * state))]
        )
    for eager, replayed in zip(*found, strict=True):
        for quantity in ("observations", "actions", "rewards", "valid", "final_observations"):
            pair = getattr(replayed, quantity), getattr(eager, quantity)
            torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("memory", [*MEMORIES, "hyper-rl2", "varibad", "pearl"])
def test_captured_and_eager_trials_are_equal(memory: str) -> None:
    name = memory if memory in LEARNERS else "rl2"
    kind = {} if memory in LEARNERS else memory_settings(memory)
    settings = LEARNERS[name].config_class(episodes_per_trial=2, **kind)
    family = "navigation-2d" if name == "pearl" else "gridnavi"
    config = metarl.TrainConfig(name, family, metarl.RunConfig(device=str(CUDA), horizon=5), settings)
    learner, tasks = config.make_learner(), config.split().train_tasks(3, 0)
    found = []
    for captured in (False, True):
        sampler = metarl.Sampler(config.make_family(), CUDA, captured)
        session = sampler.session(learner, tasks, episodes=2)
        first = sampler.run(session, seed=0)
        session.adapt()
        found.append((first, sampler.run(session, seed=1)))
    for eager, replayed in zip(*found, strict=True):
        for quantity in ("observations", "actions", "rewards", "log_probs"):
            torch.testing.assert_close(getattr(replayed, quantity), getattr(eager, quantity))


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


@every_family
def test_a_run_trains_and_evaluates_on_the_device(name: str, tmp_path: Path) -> None:
    horizon = on_device(name).horizon
    settings = metarl.RunConfig(
        iterations=2,
        device="cuda",
        horizon=horizon,
        tasks_per_batch=3,
        episodes_per_task=4,
        out=f"{tmp_path}/run",
        track="disabled",
    )
    run = metarl.train(metarl.TrainConfig("maml-trpo", name, settings, MamlTrpoConfig(hidden_sizes=(8,))))
    assert len(run.read_metrics()) == 2
    assert metarl.evaluate(run.path, tasks=2, steps=1).returns.shape == (2, 2)


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
