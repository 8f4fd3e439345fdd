"""Meta-World's meta-learning benchmarks (Yu et al. 2020).

The tasks are the package's. The worlds are batched, or the package's own. The package is imported when a benchmark is
first used, not when the families are registered.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict

from metarl.envs.manipulation.benchmark_tasks import PLACEMENT_SIZE, TASKS_PER_ENVIRONMENT, benchmark_tasks
from metarl.envs.manipulation.package import Version, environments, indices, load_package
from metarl.envs.wrapped.gymnasium_worlds import EnvironmentFamily, Vectorization
from metarl.envs.wrapped.world import Environment, Task
from metarl.errors import InputError
from metarl.families.family import Dynamics, Part, register_family
from metarl.validation import require_choice

ENVIRONMENTS = 50
LONGEST_EPISODE = 500
# Of each training environment's tasks, this many are for training, the others for validation.
TRAINING = 40

Engine = Literal["batched", "package"]
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "batched": {},
    "v1": {"reward": "v1"},
    "horizon-200": {"horizon": 200},
    "horizon-150": {"horizon": 150},
    "sync": {"engine": "package"},
    "async": {"engine": "package", "vectorization": "async"},
}


@dataclass(frozen=True)
class MetaWorldFamily(EnvironmentFamily):
    """A benchmark: its environments, each with 50 training or test tasks that the package draws.

    The goal is hidden, and the observation ``[39]`` does not identify the environment. Info has ``success``, 1 in steps
    that reach the goal: the package's evaluation counts an episode as a success that has one such step. Episodes never
    terminate.

    The last 10 of each training environment's 50 tasks are for validation, which leaves 40 for training.

    Attributes:
        horizon: steps of an episode, at most 500.
        engine: ``batched`` steps many worlds of an environment at once, ``package`` the package's own environments.
        vectorization: for the package's environments: ``sync`` steps all in this process, ``async`` gives each its own
            process.
        reward: ``v2``, in [0, 10], or ``v1``, the package's first version, unbounded.
        benchmark_seed: seed with which the tasks are drawn.
    """

    horizon: int = LONGEST_EPISODE
    engine: Engine = "batched"
    vectorization: Vectorization = "sync"
    reward: Version = "v2"
    benchmark_seed: int = 0

    benchmark: ClassVar[str]
    partially_observable: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def __post_init__(self) -> None:
        if self.horizon > LONGEST_EPISODE:
            raise InputError(f"Meta-World's episodes have at most {LONGEST_EPISODE} steps, not {self.horizon}")
        require_choice(self, "engine", Engine)
        require_choice(self, "reward", Version)
        require_choice(self, "vectorization", Vectorization)
        if self.engine == "batched" and self.vectorization != "sync":
            raise InputError(f"{self.name}: vectorization is for the package's environments; also set engine=package")

    @property
    def benchmark_arguments(self) -> tuple[str | tuple[str, ...], ...]:
        """Arguments of the package's class ``benchmark`` besides the seed: names of environments."""
        return ()

    @property
    def observation_space(self) -> spaces.Box:
        """Hand, gripper, and up to two objects, now and one step before; three zeros instead of the goal: ``[39]``."""
        return spaces.Box(-np.inf, np.inf, (39,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """Movement of the hand along three axes, in cm, and the gripper's effort."""
        return spaces.Box(-1.0, 1.0, (4,), np.float32)

    @property
    def task_space(self) -> spaces.Dict:
        """``environment``, an index into the package's list, and ``placement``, the positions of its objects and goal.

        Placements are the package's random vectors, of 3 or 6 numbers, padded with zeros.
        """
        placement = spaces.Box(-1.0, 1.0, (PLACEMENT_SIZE,), np.float64)
        return spaces.Dict({"environment": spaces.Discrete(ENVIRONMENTS), "placement": placement})

    @property
    def constructor_parameters(self) -> tuple[str, ...]:
        """``environment``."""
        return ("environment",)

    def own_split(self) -> Mapping[Part, TensorDict]:
        """Return the benchmark's training tasks, without those for validation, its validation tasks and its test tasks.

        The environments are interleaved, so the first tasks of a part are spread evenly over them.
        """
        training, test = benchmark_tasks(self.benchmark, self.benchmark_arguments, self.benchmark_seed)
        kept = len(training) * TRAINING // TASKS_PER_ENVIRONMENT
        return {"train": training[:kept], "validation": training[kept:], "test": test}

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        """Draw from the training tasks."""
        tasks = self.own_split()["train"]
        drawn: TensorDict = tasks[torch.randint(len(tasks), (count,), generator=generator)]
        return drawn

    def make_task(self, parameters: Mapping[str, Any]) -> TensorDict:
        """Turn named values into a task ``[1]``.

        Raises:
            InputError: also if the environment is not one of the benchmark's, or cannot have this placement.
        """
        task = super().make_task(parameters)
        index = int(task["environment"])
        known = {int(number) for part in self.own_split().values() for number in part["environment"]}
        if index not in known:
            names = ", ".join(name for name, number in indices().items() if number in known)
            raise InputError(f"{self.name} has no tasks of {environments()[index][0]}, only of {names}")
        from metarl.envs.manipulation.engines import check_placement

        check_placement(index, task["placement"][0].numpy())
        return task

    def make(self, arguments: Task, render_mode: str | None = None) -> Environment:
        """Make one of the 50 environments, which cannot be rendered."""
        made: Environment = environments()[arguments["environment"]][1](reward_function_version=self.reward)
        made.observation_space = self.observation_space  # Its own bounds the hidden goal to [0, 0].
        return made

    def apply(self, env: Environment, task: Task) -> None:
        """Place objects and goal as the package's own tasks do."""
        sawyer: Any = env.unwrapped
        name, kind = environments()[task["environment"]]
        vector = task["placement"][: sawyer._random_reset_space.low.size]
        data = {"rand_vec": vector, "env_cls": kind, "partially_observable": self.partially_observable}
        sawyer.set_task(load_package().Task(env_name=name, data=pickle.dumps(data)))

    def check_device(self, device: torch.device) -> None:
        """Check that the package is installed, and the engine of batched worlds on ``device``."""
        load_package()
        if self.engine == "batched":
            from metarl.envs.simulation.batched import check_engine

            check_engine(device)

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        """Make ``num_envs`` worlds, batched on ``device``, or the package's own on the CPU."""
        if self.engine == "package":
            return super().dynamics(num_envs, device)
        from metarl.envs.manipulation.engines import make_worlds

        return make_worlds(num_envs, device, self.partially_observable, self.reward)


@register_family
@dataclass(frozen=True)
class MetaWorldML1(MetaWorldFamily):
    """One Meta-World environment with a hidden goal: 50 placements for training, 50 others for testing.

    Attributes:
        env_name: one of the package's 50 environments.
    """

    env_name: str = "reach-v3"

    name: ClassVar[str] = "metaworld-ml1"
    env_id: ClassVar[str] = "metarl/MetaWorldML1-v0"
    benchmark: ClassVar[str] = "ML1"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reach": {"env_name": "reach-v3"},
        "push": {"env_name": "push-v3"},
        "pick-place": {"env_name": "pick-place-v3"},
    }

    @property
    def benchmark_arguments(self) -> tuple[str]:
        """``env_name``."""
        return (self.env_name,)


@register_family
@dataclass(frozen=True)
class MetaWorldML10(MetaWorldFamily):
    """Ten Meta-World environments for training and five others for testing, with hidden goals."""

    name: ClassVar[str] = "metaworld-ml10"
    env_id: ClassVar[str] = "metarl/MetaWorldML10-v0"
    benchmark: ClassVar[str] = "ML10"


@register_family
@dataclass(frozen=True)
class MetaWorldML25(MetaWorldFamily):
    """25 Meta-World environments for training and five for testing, basketball among both, with hidden goals."""

    name: ClassVar[str] = "metaworld-ml25"
    env_id: ClassVar[str] = "metarl/MetaWorldML25-v0"
    benchmark: ClassVar[str] = "ML25"


@register_family
@dataclass(frozen=True)
class MetaWorldML45(MetaWorldFamily):
    """45 Meta-World environments for training and five others for testing, with hidden goals."""

    name: ClassVar[str] = "metaworld-ml45"
    env_id: ClassVar[str] = "metarl/MetaWorldML45-v0"
    benchmark: ClassVar[str] = "ML45"


@register_family
@dataclass(frozen=True)
class MetaWorldCustom(MetaWorldFamily):
    """Meta-World environments of your choice, some for training and others for testing, with hidden goals.

    Attributes:
        train_envs: names of the training environments.
        test_envs: names of the test environments.
    """

    train_envs: tuple[str, ...] = ("push-v3", "push-wall-v3", "sweep-v3")
    test_envs: tuple[str, ...] = ("push-back-v3",)

    name: ClassVar[str] = "metaworld-custom"
    env_id: ClassVar[str] = "metarl/MetaWorldCustom-v0"
    benchmark: ClassVar[str] = "CustomML"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"pushing": {}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.train_envs and self.test_envs):
            raise InputError(f"{self.name} needs at least one environment in train_envs and one in test_envs")
        if both := set(self.train_envs) & set(self.test_envs):
            raise InputError(f"{self.name}: {', '.join(sorted(both))} cannot be in both train_envs and test_envs")

    @property
    def benchmark_arguments(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """``train_envs`` and ``test_envs``."""
        return tuple(self.train_envs), tuple(self.test_envs)
