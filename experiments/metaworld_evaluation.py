"""Meta-World's own evaluation of a run: success rates by the code that published ones come from.

    python experiments/metaworld_evaluation.py runs/maml-trpo-metaworld-ml10-seed1

The package draws test tasks, lets the learner adapt to them, and counts the episodes that then reach the goal. Its
evaluation is 10 draws of tasks, with 10 episodes of each to adapt on and 3 to be evaluated on.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import tyro
from tensordict import TensorDict
from torch import Tensor

from metarl.distributions import Distribution
from metarl.envs.manipulation.package import load_package
from metarl.envs.meta_world import DRAWS, MetaWorldFamily
from metarl.errors import InputError
from metarl.evaluation import load_run
from metarl.experiments.cli import guarded, parse
from metarl.family import TaskFamily, unit_scale
from metarl.learner import Learner
from metarl.rollout import Rollout
from metarl.seeding import generator


class LearnerAgent:
    """A learner as the ``MetaLearningAgent`` of ``metaworld.evaluation``, whose environments are N tasks.

    It adapts by sampled actions and is evaluated by the mode of the policy, as the package's own baselines are. The
    package does not tell the observation after an episode's last step; the one before it stands in its place.

    Args:
        learner: trained or not; it is not changed.
        family: whose spaces the learner acts in.
        seed: of the actions.
        device: that the learner lives on.
    """

    def __init__(self, learner: Learner, family: TaskFamily, seed: int = 0, device: str = "cpu") -> None:
        self._learner, self._device = learner, torch.device(device)
        self._to_env = unit_scale(family.action_space, self._device)
        self._noise = generator(seed, "actions", device=self._device)
        self._state: Any = None
        self._steps: list[Any] = []
        self._distribution: type[Distribution] | None = None

    def init(self) -> None:
        """Forget the tasks."""
        self._state, self._steps = None, []

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Sample actions ``[N, A]``; return them with what the learner will want to know of them."""
        actions, distribution = self._act(observations, deterministic=False)
        self._distribution = type(distribution)
        shape = actions.shape[:2]
        known = [tensor.expand(*shape, *tensor.shape[2:]) for tensor in (actions, *distribution.tensors())]
        return self._for_env(actions), {str(index): tensor[:, 0].cpu().numpy() for index, tensor in enumerate(known)}

    def step(self, timestep: Any) -> None:
        """Remember a step of every task."""
        self._steps.append(timestep)

    def adapt(self) -> None:
        """Learn from the whole episodes since the last adaptation."""
        self._state, self._steps = self._learner.adapt(self._state, self._rollout()), []

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Return the most probable actions ``[N, A]``."""
        return self._for_env(self._act(observations, deterministic=True)[0])

    def reset(self, env_mask: np.ndarray) -> None:
        """Do nothing: what a learner knows of a task outlives its episodes."""

    @torch.no_grad()
    def _act(self, observations: np.ndarray, deterministic: bool) -> tuple[Tensor, Distribution]:
        seen = torch.as_tensor(observations, dtype=torch.float32, device=self._device)[:, None]
        if self._state is None:
            self._state = self._learner.begin(len(seen))
        return self._learner.act(self._state, seen, self._noise, deterministic)

    def _for_env(self, actions: Tensor) -> np.ndarray:
        ready: np.ndarray = self._to_env(actions)[:, 0].cpu().numpy()
        return ready

    def _rollout(self) -> Rollout:
        """Lay the steps out as episodes ``[N, E, T]``; episodes that not all tasks have had, or finished, are left."""
        *columns, aux = zip(*self._steps, strict=True)
        observations, _, rewards, terminated, truncated = (np.stack(column, 1) for column in columns)
        episodes = _Episodes(terminated | truncated, self._device)
        known = [np.stack([entry[str(index)] for entry in aux], 1) for index in range(len(aux[0]))]
        actions, *parameters = map(episodes.lay_out, known)
        assert self._distribution is not None, "steps come after actions"
        distribution = self._distribution(*parameters)
        seen = episodes.lay_out(observations.astype(np.float32))
        return Rollout(
            tasks=TensorDict({}, [len(observations)]),
            observations=seen,
            actions=actions,
            rewards=episodes.lay_out(rewards.astype(np.float32)),
            terminated=episodes.lay_out(terminated),
            truncated=episodes.lay_out(truncated),
            valid=episodes.lay_out(np.ones_like(terminated)),
            final_observations=episodes.last(seen),
            log_probs=distribution.log_prob(actions),
            distribution=distribution,
        )


class _Episodes:
    """Where the episodes of N tasks begin and end within S steps, of which ``ended`` ``[N, S]`` tells the last ones."""

    def __init__(self, ended: np.ndarray, device: torch.device) -> None:
        bounds = [np.flatnonzero([True, *row]) for row in ended]
        self._count = min(map(len, bounds)) - 1
        self._bounds = [row[: self._count + 1] for row in bounds]
        self._lengths = np.stack([np.diff(row) for row in self._bounds])
        self._device = device

    def lay_out(self, values: np.ndarray) -> Tensor:
        """Return values ``[N, S, ...]`` as ``[N, E, T, ...]``, with zeros behind each episode."""
        laid = np.zeros((*self._lengths.shape, self._lengths.max(), *values.shape[2:]), values.dtype)
        for task, bounds in enumerate(self._bounds):
            for episode, (start, end) in enumerate(pairwise(bounds)):
                laid[task, episode, : end - start] = values[task, start:end]
        return torch.as_tensor(laid, device=self._device)

    def last(self, laid: Tensor) -> Tensor:
        """Return what stands at the last step of each episode, ``[N, E, ...]``, of values ``[N, E, T, ...]``."""
        tasks, episodes = np.indices(self._lengths.shape)
        return laid[tasks, episodes, self._lengths - 1]


@dataclass(frozen=True)
class Options:
    """Evaluate a run on a Meta-World benchmark by the package's own code."""

    run: tyro.conf.Positional[str]
    """Directory of the run."""
    evaluations: int = 10
    """Draws of the test tasks."""
    steps: int = 1
    """Adaptation steps."""
    episodes: int = 10
    """Episodes of each task before each adaptation step."""
    evaluation_episodes: int = 3
    """Episodes of each task after the last one."""
    tasks: int = 20
    """Test tasks of each draw; a multiple of the number of the benchmark's test environments."""
    seed: int = 0
    """Of the actions; the tasks are those of the run's benchmark."""

    def __post_init__(self) -> None:
        for name in ("evaluations", "steps", "episodes", "evaluation_episodes", "tasks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")


def evaluate(options: Options) -> tuple[float, float, dict[str, float]]:
    """Return the success rate over all test tasks, the mean return, and the success rate by environment.

    Raises:
        InputError: when the run is none, its family is none of Meta-World's, or the tasks cannot be shared out among
            its environments.
    """
    config, learner, _ = load_run(options.run)
    family = config.make_family()
    if not isinstance(family, MetaWorldFamily):
        raise InputError(f"{options.run} was trained on {config.family}, which is not a family of Meta-World")
    package = load_package()
    environments = len(family.own_split()["test"]["environment"].unique())
    if options.tasks % environments or options.tasks > environments * DRAWS:
        most = f"at most {DRAWS} for each of its {environments} test environments"
        raise InputError(f"tasks must be a multiple of {environments}, {most}, not {options.tasks}")
    worlds = options.tasks // environments
    from metaworld.evaluation import metalearning_evaluation

    envs = package.make_ml_envs_test(
        *(family.benchmark_arguments or (family.benchmark,)),
        seed=family.benchmark_seed,
        meta_batch_size=options.tasks,
        total_tasks_per_cls=DRAWS - DRAWS % worlds,  # the package wants as many for each world
        vector_strategy=family.vectorization,
        max_episode_steps=family.horizon,
    )
    agent = LearnerAgent(learner, family, options.seed, config.run.device)
    counts = (options.evaluations, options.steps, options.episodes, options.evaluation_episodes)
    try:
        return metalearning_evaluation(agent, envs, *counts)
    finally:
        envs.close()


def run(options: Options) -> None:
    """Evaluate, and print what came of it."""
    success, mean_return, by_environment = evaluate(options)
    for name, rate in sorted(by_environment.items()):
        print(f"{name:<28}{rate:6.1%}")
    print(f"{'success rate':<28}{success:6.1%}\nmean return{mean_return:23.1f}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "metaworld_evaluation.py", sys.argv[1:]))))
