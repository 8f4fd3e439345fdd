"""Meta-World's own evaluation of a run: success rates from the code behind published results.

    python experiments/tools/metaworld_evaluation.py runs/maml-trpo-metaworld-ml10-seed1

The package draws test tasks, lets the learner adapt to them, and counts the episodes that then reach the goal. It
evaluates 10 draws of tasks, with 10 episodes of each for adaptation and 3 for evaluation.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from metarl.envs.manipulation.benchmark_tasks import TASKS_PER_ENVIRONMENT
from metarl.envs.manipulation.package import load_package
from metarl.envs.wrapped.meta_world import MetaWorldFamily
from metarl.errors import InputError
from metarl.evaluation.evaluate import load_run
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import guarded, parse
from metarl.families.family import TaskFamily
from metarl.learning.learner import Learner
from metarl.sampling.session import Session
from metarl.seeding import derive_seed
from metarl.validation import require_counts


class LearnerAgent:
    """A learner as the ``MetaLearningAgent`` of ``metaworld.evaluation``, in vector environments of N tasks.

    It adapts with sampled actions and is evaluated with the mode of the policy, like the package's own baselines. Every
    task has its own session, because evaluation episodes end at different steps. A learner that does not pool episodes
    continues its trial from one adaptation episode to the next; every evaluation episode starts from the state after
    them.

    Args:
        learner: trained or not; it is not changed.
        family: the family with the learner's spaces.
        num_tasks: number of tasks N.
        seed: seed of the actions.
        device: device of the learner.
    """

    def __init__(
        self, learner: Learner, family: TaskFamily, num_tasks: int, seed: int = 0, device: str = "cpu"
    ) -> None:
        self._pools_episodes = learner.pools_episodes
        self.sessions = [
            Session(learner, family, seed=derive_seed(seed, "Meta-World", task), device=device)
            for task in range(num_tasks)
        ]

    def init(self) -> None:
        """Start on new tasks."""
        for session in self.sessions:
            session.begin()

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Sample actions ``[N, A]``; a new episode starts where the last one has ended."""
        for session in self.sessions:
            if session.ended:
                if not self._pools_episodes and session.recorded:
                    session.adapt()
                session.open()
        return self._act(observations), {}

    def step(self, timestep: Any) -> None:
        """Do nothing: ``observe`` receives more data, also in the evaluation."""

    def observe(
        self, observations: np.ndarray, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> None:
        """Process a step of every task; at an episode's end, observations are the final ones."""
        outcomes = zip(self.sessions, observations, rewards, terminated, truncated, strict=True)
        for session, *outcome in outcomes:
            session.observe(*outcome)

    def adapt(self) -> None:
        """Learn from the episodes since the last adaptation, or from the last one of a trial."""
        for session in self.sessions:
            session.adapt()

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Return the modes of the policy ``[N, A]``."""
        return self._act(observations)

    def reset(self, env_mask: np.ndarray) -> None:
        """Start an evaluation episode of the tasks under the mask, bool ``[N]``."""
        for task in np.flatnonzero(env_mask):
            self.sessions[task].open(deterministic=True)

    def _act(self, observations: np.ndarray) -> np.ndarray:
        return np.stack([session.act(seen) for session, seen in zip(self.sessions, observations, strict=True)])


class ObservedEnvs(VectorWrapper):
    """The package's environments, wrapped to show an agent the outcome of every step.

    The package itself gives the agent neither rewards in the evaluation nor the final observation of an episode; a
    memory needs both.

    Args:
        envs: environments with autoreset in the same step.
        agent: the agent that acts in them.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], agent: LearnerAgent) -> None:
        super().__init__(envs)
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that not every vector environment has, such as ``call``."""
        return getattr(self.env, name)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all environments."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        after = np.array(observations)
        for task in np.flatnonzero(terminated | truncated):
            after[task] = infos["final_obs"][task]
        self._agent.observe(after, rewards, terminated, truncated)
        return observations, rewards, terminated, truncated, infos


@dataclass(frozen=True)
class Options:
    """Evaluate a run on a Meta-World benchmark with the package's own code."""

    run: RunName
    """Directory of the run."""
    evaluations: int = 10
    """Number of draws of test tasks."""
    steps: int = 1
    """Number of adaptation steps."""
    episodes: int = 10
    """Episodes per task before each adaptation step."""
    evaluation_episodes: int = 3
    """Episodes per task after the last adaptation step."""
    tasks: int | None = None
    """Number of test tasks per draw, a multiple of the number of test environments; by default one for each."""
    seed: int = 0
    """Seed of the actions; the tasks are those of the run's benchmark."""

    def __post_init__(self) -> None:
        counts = ("evaluations", "steps", "episodes", "evaluation_episodes")
        require_counts(self, *counts, *(["tasks"] if self.tasks is not None else []))


def evaluate(options: Options) -> tuple[float, float, dict[str, float]]:
    """Return the success rate over all test tasks, the mean return, and the success rate by environment.

    Raises:
        InputError: if the directory is not a run, its family is not one of Meta-World's, or the tasks cannot be divided
            among its environments.
    """
    config, learner, _ = load_run(options.run)
    family = config.make_family()
    if not isinstance(family, MetaWorldFamily):
        raise InputError(f"{options.run} was trained on {config.family}, which is not a family of Meta-World")
    if family.benchmark == "CustomML":
        raise InputError("the package evaluates ML1, ML10, ML25 and ML45; use metarl evaluate for metaworld-custom")
    package = load_package()
    environments = len(family.own_split()["test"]["environment"].unique())
    tasks = environments if options.tasks is None else options.tasks
    if tasks % environments or tasks > environments * TASKS_PER_ENVIRONMENT:
        most = f"at most {TASKS_PER_ENVIRONMENT} for each of its {environments} test environments"
        raise InputError(f"tasks must be a multiple of {environments}, {most}, not {tasks}")
    worlds = tasks // environments
    from metaworld.evaluation import metalearning_evaluation

    envs = package.make_ml_envs_test(
        *(family.benchmark_arguments or (family.benchmark,)),
        reward_function_version=family.reward,
        seed=family.benchmark_seed,
        meta_batch_size=tasks,
        # The package requires the same number of tasks for each world.
        total_tasks_per_cls=TASKS_PER_ENVIRONMENT - TASKS_PER_ENVIRONMENT % worlds,
        vector_strategy=family.vectorization,
        max_episode_steps=family.horizon,
    )
    agent = LearnerAgent(learner, family, tasks, options.seed, config.run.device)
    observed: Any = ObservedEnvs(envs, agent)  # the package uses more than VectorEnv's interface, which is forwarded
    counts = (options.evaluations, options.steps, options.episodes, options.evaluation_episodes)
    try:
        return metalearning_evaluation(agent, observed, *counts)
    finally:
        envs.close()


def success_rates(run: Path) -> dict[str, float]:
    """Return the success rates that ``evaluate`` finds by default: of all test tasks, and by environment."""
    success, _, by_environment = evaluate(Options(str(run)))
    return {"all": success, **dict(sorted(by_environment.items()))}


def run(options: Options) -> None:
    """Evaluate, and print the results."""
    success, mean_return, by_environment = evaluate(options)
    for name, rate in sorted(by_environment.items()):
        print(f"{name:<28}{rate:6.1%}")
    print(f"{'success rate':<28}{success:6.1%}\nmean return{mean_return:23.1f}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/tools/metaworld_evaluation.py", sys.argv[1:]))))
