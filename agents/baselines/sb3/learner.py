"""The base class of Stable-Baselines3 algorithms as learners: three variants, and the counting of environment steps.

SB3 steps environments itself: an ``Sb3VecEnv`` of a rollout's tasks, for as many environment steps as the rollout took.
The rollouts of metarl's sampler only measure the policy; SB3 does not learn from them. So the steps counted as spent
equal the steps learned from. Steps that do not fill a whole round of the algorithm are carried over.
"""

import sys
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.baselines.sb3.models import (
    Models,
    Plan,
    count_transitions,
    finite,
    for_new_task,
    global_streams,
    knowledge,
    teach,
)
from metarl.agents.baselines.sb3.observations import readable
from metarl.agents.baselines.sb3.task_stream import TaskStream
from metarl.devices.runtime import single_torch_thread
from metarl.errors import InputError, RunError
from metarl.families.family import TaskFamily
from metarl.families.spaces import SINGLE, is_bounded_box, observed_space, one_line, require_actions
from metarl.families.views import InformedFamily
from metarl.learning.learner import LEARNERS, Learner, OpenState
from metarl.numerics.distributions import Distribution
from metarl.rollouts.rollout import Rollout
from metarl.seeding import derive_seed
from metarl.worlds.vector_env import TaskVectorEnv

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback

    from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv


class Sb3Learner(Learner):
    """An algorithm of Stable-Baselines3 as a learner.

    Attributes:
        algorithm: name of SB3's class.
        acts_in: supported action spaces.
        loss: name of the value loss in SB3's logger.
        model: the model trained on all tasks; untrained in the variant scratch.
    """

    algorithm: ClassVar[str]
    acts_in: ClassVar[tuple[type[spaces.Space[Any]], ...]] = SINGLE
    loss: ClassVar[str] = "train/value_loss"
    inner_steps = 0
    baseline: ClassVar[bool] = True
    shards: ClassVar[bool] = False
    parameters_at: ClassVar[Sequence[str]] = ("model", "parameters", "policy")
    label_settings: ClassVar[Sequence[str]] = ("variant",)
    metrics: ClassVar[Mapping[str, str]] = {
        "learned_env_steps": "environment steps that the shared model has learned from so far; since the task has "
        "changed last, if `continual` is set",
        "sb3_updates": "updates of the shared model so far, as Stable-Baselines3 counts them",
        "value_loss": "value loss of the shared model in its last update",
    }

    def __init__(self, family: TaskFamily, config: Any, seed: int, device: torch.device) -> None:
        self._require_actions(family)
        if config.variant == "oracle" and not isinstance(family, InformedFamily):
            raise InputError(f"an oracle needs the family that {type(self).__name__}.view returns")
        self.config: Any = config
        self._family, self._seed, self._device = family, seed, device
        self._observation_space = observed_space(family.observation_space)
        self._envs: dict[int, Sb3VecEnv] = {}
        self._updates, self._waiting = 0, 0
        self._stream = None if config.continual == "none" else TaskStream(config.continual, config.ewc_weight, device)
        self.model = self._fresh("shared")

    @classmethod
    def view(cls, family: TaskFamily, config: Any) -> TaskFamily:
        """Return the family; for an oracle, with the task in the observations."""
        return InformedFamily(family) if config.variant == "oracle" else family

    @classmethod
    def from_scratch(cls, config: Any) -> bool:
        """Return whether the variant is scratch."""
        return bool(config.variant == "scratch")

    def begin(self, num_tasks: int) -> Models:
        """Return new models in the variant scratch, else the trained model for all tasks."""
        if self.config.variant == "scratch":
            return Models([self._fresh(index) for index in range(num_tasks)])
        return Models([self.model])

    @torch.no_grad()
    def action_distribution(self, working: OpenState[Models], observations: Tensor) -> Distribution:
        """Return the distribution of each task's model."""
        models, read = working.state.models, readable(self._observation_space, observations)
        if len(models) == 1:
            flat = self.distribution(models[0], read.flatten(0, 1))
            return flat.map(lambda tensor: tensor.view(*observations.shape[:2], *tensor.shape[1:]))
        each = [self.distribution(model, seen) for model, seen in zip(models, read, strict=True)]
        tensors = zip(*(one.tensors() for one in each), strict=True)
        return type(each[0])(*(torch.stack(column) for column in tensors))

    def adapt(self, state: Models, rollout: Rollout) -> Models:
        """Train a copy of each task's model on its task, for as many environment steps as the rollout took in it.

        Raises:
            InputError: if the rollout lacks the tasks' parameters.
            RunError: if a parameter becomes NaN or infinite.
        """
        if self.config.variant == "oracle":
            return state
        if missing := set(self._family.task_space) - set(rollout.tasks.keys()):
            raise InputError(
                f"{self.name} adapts by stepping the task's own environment and needs its parameters: the rollout has "
                f"no {', '.join(sorted(missing))}; pass the tasks to session.begin, or use rl2"
            )
        granted = rollout.valid.sum((1, 2)).tolist()
        learned = [self._adapted(state, rollout, task, steps) for task, steps in enumerate(granted)]
        models, waiting = zip(*learned, strict=True)
        return Models(models, waiting, state.adaptations + 1)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Train the model on the rollouts' tasks, for as many environment steps as they took; do nothing in scratch.

        Raises:
            RunError: if a parameter becomes NaN or infinite; the learner is then unchanged.
        """
        if self.config.variant != "scratch":
            worlds = min(self.config.worlds, rollouts[0].rewards.shape[1])
            env = self._env(rollouts[0].num_tasks * worlds)
            env.set_tasks(rollouts[0].tasks.repeat_interleave(worlds, dim=0))
            steps = self._waiting + sum(rollout.env_steps for rollout in rollouts)
            seed = derive_seed(self._seed, "sb3 update", self._updates)
            known = (
                knowledge(self.model)
                if self._stream is None
                else self._stream.known(self.model, rollouts, self.likelihood, seed)
            )
            self.model, self._waiting = self._trained(known, env, steps, seed, shared=True)
        self._updates += 1
        return {
            "learned_env_steps": float(self.model.num_timesteps),
            "sb3_updates": float(self.model._n_updates),
            "value_loss": float(self.model.logger.name_to_value.get(self.loss, 0.0)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the model's state, as from SB3's ``get_parameters``, the seed and the counters."""
        accounts = {"seed": self._seed, "updates": self._updates, "waiting": self._waiting}
        stream = {} if self._stream is None else {"stream": self._stream.state_dict()}
        return {"model": knowledge(self.model), **accounts, **stream}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        known = state["model"]
        model = self._make(self._env(1), 0, self.plan(0, 1, count_transitions(known)))
        teach(model, known)
        self.model, self._seed = model, int(state["seed"])
        self._updates, self._waiting = int(state["updates"]), int(state["waiting"])
        if self._stream is not None:
            self._stream.load_state_dict(state["stream"])

    @abstractmethod
    def plan(self, steps: int, num_envs: int, remembered: int) -> Plan:
        """Return how to spend up to ``steps`` environment steps in ``num_envs`` environments.

        Args:
            steps: number of available environment steps.
            num_envs: number of parallel environments.
            remembered: transitions already in the model's replay buffer.
        """

    @abstractmethod
    def distribution(self, model: "BaseAlgorithm", observations: Tensor) -> Distribution:
        """Return a model's action distributions ``[B, A]`` at observations ``[B, *observation]``."""

    def likelihood(self, model: "BaseAlgorithm", observations: Tensor) -> Distribution:
        """Return what a model's outputs at a family's observations ``[B, *observation]`` describe: its actions."""
        return self.distribution(model, readable(self._observation_space, observations))

    def arguments(self) -> dict[str, Any]:
        """Return the algorithm's specific constructor arguments."""
        return {}

    def algorithm_class(self) -> "type[BaseAlgorithm]":
        """Return the SB3 class of the models."""
        import stable_baselines3

        found: type[BaseAlgorithm] = getattr(stable_baselines3, self.algorithm)
        return found

    def callback(self) -> "BaseCallback | None":
        """Return the callback for SB3's training, if any."""
        return None

    def prepare(self, model: "BaseAlgorithm", steps: int, shared: bool) -> None:
        """Prepare a model, a task's own or the shared one, for training over ``steps`` environment steps."""

    def _adapted(self, state: Models, rollout: Rollout, task: int, granted: int) -> "tuple[BaseAlgorithm, int]":
        worlds = min(self.config.worlds, rollout.rewards.shape[1])
        env = self._env(worlds)
        env.set_tasks(rollout.tasks[task : task + 1].expand(worlds))
        model = state.models[task % len(state.models)]
        known = knowledge(model) if state.adaptations else for_new_task(model)
        steps = granted + (0 if state.waiting is None else state.waiting[task])
        return self._trained(known, env, steps, derive_seed(self._seed, "sb3 adaptation", state.adaptations, task))

    def _trained(
        self, known: Mapping[str, Any], env: "Sb3VecEnv", steps: int, seed: int, shared: bool = False
    ) -> "tuple[BaseAlgorithm, int]":
        """Return a new model trained from a given state, and the number of steps left."""
        plan = self.plan(steps, env.num_envs, count_transitions(known))
        model = self._make(env, seed, plan)
        teach(model, known)
        if plan.steps:
            with single_torch_thread(), global_streams(seed, self._device):
                env.seed(seed)
                model.action_space.seed(seed % 2**31)
                self.prepare(model, plan.steps, shared)
                if shared and self._stream is not None:
                    self._stream.hold(model)
                self._learn(model, plan.steps)
        if not finite(model):
            raise RunError(f"the update is not finite (NaN or infinity in the parameters of SB3's {self.name})")
        return model, steps - plan.steps

    def _learn(self, model: "BaseAlgorithm", steps: int) -> None:
        try:
            model.learn(steps, callback=self.callback(), log_interval=sys.maxsize, reset_num_timesteps=False)
        except ValueError:
            if finite(model):  # otherwise torch rejected a distribution with NaN
                raise

    def _fresh(self, key: int | str) -> "BaseAlgorithm":
        return self._make(self._env(1), derive_seed(self._seed, "sb3 model", key), self.plan(0, 1, 0))

    def _make(self, env: "Sb3VecEnv", seed: int, plan: Plan) -> "BaseAlgorithm":
        from stable_baselines3.common.logger import Logger

        with warnings.catch_warnings(), global_streams(seed, self._device):
            # SB3 warns about minibatches that do not divide a round, and about small networks on a GPU.
            warnings.simplefilter("ignore")
            model = self.algorithm_class()(
                policy="MlpPolicy",
                env=env,
                learning_rate=self.config.learning_rate,
                policy_kwargs={"net_arch": list(self.config.hidden_sizes)},
                device=self._device,
                **{"gamma": self.config.discount, **plan.arguments},
            )
        model.set_logger(Logger(None, []))  # SB3's default would make a folder for each
        return model

    def _env(self, num_envs: int) -> "Sb3VecEnv":
        from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv

        if num_envs not in self._envs:
            self._envs[num_envs] = Sb3VecEnv(TaskVectorEnv(self._family, num_envs, self._device))
        return self._envs[num_envs]

    @classmethod
    def acts(cls, space: spaces.Space[Any]) -> bool:
        """Return whether the algorithm supports an action space."""
        return isinstance(space, cls.acts_in) and (is_bounded_box(space) or not isinstance(space, spaces.Box))

    def _require_actions(self, family: TaskFamily) -> None:
        space = family.action_space
        require_actions(space)
        if self.acts(space):
            return
        kinds = ", ".join("bounded Box" if kind is spaces.Box else kind.__name__ for kind in self.acts_in)
        others = [name for name, each in LEARNERS.items() if issubclass(each, Sb3Learner) and each.acts(space)]
        raise InputError(
            f"{self.name} needs {kinds} actions, but those of {family.name} are {one_line(space)}; "
            f"use {' or '.join(filter(None, [', '.join(others), 'rl2']))}"
        )
