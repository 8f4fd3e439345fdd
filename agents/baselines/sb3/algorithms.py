"""DQN, PPO, A2C and SAC of Stable-Baselines3, as baselines for meta-learning (their base class is in ``learner``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.baselines.sb3.config import Sb3Config
from metarl.agents.baselines.sb3.learner import Sb3Learner
from metarl.agents.baselines.sb3.models import Plan
from metarl.agents.baselines.sb3.observations import readable
from metarl.errors import InputError
from metarl.learning.learner import register_learner
from metarl.learning.policies import distribution_of_logits
from metarl.numerics.distributions import Categorical, DiagonalGaussian, Distribution, SquashedGaussian
from metarl.validation import require_counts, require_not_negative, require_positive, require_unit

if TYPE_CHECKING:
    from stable_baselines3 import DQN, SAC
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.policies import ActorCriticPolicy


@dataclass(frozen=True)
class OnPolicyConfig(Sb3Config):
    """Settings of PPO and A2C."""

    round_steps: int = 32
    """Minimum number of steps per environment between updates (SB3's n_steps); stretched so that whole rounds use up
    the available steps."""
    gae_lambda: float = 0.95
    """Lambda of the generalised advantage estimate."""
    entropy_weight: float = 0.01
    """Entropy coefficient of the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "round_steps")
        require_unit(self, "gae_lambda")
        require_not_negative(self, "entropy_weight")
        if self.continual == "replay":
            raise InputError(
                "continual replay needs transitions, which ppo and a2c do not keep; use --continual ewc, or dqn or sac"
            )


@dataclass(frozen=True)
class PpoConfig(OnPolicyConfig):
    """Settings of PPO."""

    learning_rate: float = 1e-3
    """Step size of Adam."""
    epochs: int = 10
    """Epochs over the steps of a round."""
    batch_size: int = 64
    """Steps per minibatch."""
    clip_range: float = 0.2
    """Likelihood ratios are clipped at 1 plus or minus this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "epochs")
        require_positive(self, "clip_range")
        if self.batch_size < 2:
            raise InputError(f"batch_size must be at least 2, not {self.batch_size}")


@dataclass(frozen=True)
class A2cConfig(OnPolicyConfig):
    """Settings of A2C."""

    learning_rate: float = 3e-3
    """Step size of RMSprop."""
    round_steps: int = 5
    """Minimum number of steps per environment before each gradient step (SB3's n_steps); stretched so that whole rounds
    use up the available steps."""
    gae_lambda: float = 1.0
    """Lambda of the generalised advantage estimate."""


@dataclass(frozen=True)
class OffPolicyConfig(Sb3Config):
    """Settings of DQN and SAC."""

    buffer_size: int = 100_000
    """Capacity of the replay buffer, in transitions."""
    batch_size: int = 64
    """Transitions per gradient step."""
    steps_per_gradient: int = 1
    """Environment steps per gradient step."""
    learning_starts: int = 0
    """Environment steps with uniformly random actions before the first gradient step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "buffer_size", "batch_size", "steps_per_gradient")
        require_not_negative(self, "learning_starts")


@dataclass(frozen=True)
class DqnConfig(OffPolicyConfig):
    """Settings of DQN."""

    learning_rate: float = 1e-3
    """Step size of Adam."""
    exploration_steps: int = 1000
    """Environment steps in a new task over which the exploration rate is annealed from 1."""
    shared_exploration_steps: int = 50_000
    """The same for the model trained on all training tasks."""
    exploration_final_eps: float = 0.05
    """Exploration rate after that, and in all measured episodes."""
    target_update_interval: int = 200
    """Gradient steps between updates of the target network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "exploration_steps", "shared_exploration_steps", "target_update_interval")
        require_unit(self, "exploration_final_eps")


@dataclass(frozen=True)
class SacConfig(OffPolicyConfig):
    """Settings of SAC."""

    batch_size: int = 256
    """Transitions per gradient step."""
    tau: float = 0.005
    """Step size of the target critics' Polyak averaging (SB3's tau)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit(self, "tau")


class OnPolicy(Sb3Learner):
    """PPO or A2C: a policy trained on its own steps."""

    continual: ClassVar[Sequence[str]] = ("fine-tuning", "ewc")

    def plan(self, steps: int, num_envs: int, remembered: int) -> Plan:
        """Return rounds of equal length."""
        together = steps // num_envs
        rounds = max(1, together // max(self.config.round_steps, 2 // num_envs))
        length = together // rounds
        if length * num_envs < 2:  # PPO normalises advantages over a round
            rounds = 0
        arguments = {
            "n_steps": length if rounds else 2,
            "gae_lambda": self.config.gae_lambda,
            "ent_coef": self.config.entropy_weight,
            **self.arguments(),
        }
        return Plan(rounds * length * num_envs, arguments)

    def distribution(self, model: "BaseAlgorithm", observations: Tensor) -> Distribution:
        """Return the policy's Gaussian, or the distribution of its logits."""
        policy = cast("ActorCriticPolicy", model.policy)
        features = cast(Tensor, policy.extract_features(observations))
        outputs = policy.action_net(policy.mlp_extractor.forward_actor(features))
        if isinstance(model.action_space, spaces.Box):
            return DiagonalGaussian(outputs, policy.log_std.expand_as(outputs))
        return distribution_of_logits(model.action_space, outputs)


@register_learner
class Ppo(OnPolicy):
    """Stable-Baselines3's PPO: from scratch on each task, pretrained on all, or observing the task (an oracle)."""

    name: ClassVar[str] = "ppo"
    config_class: ClassVar[type] = PpoConfig
    algorithm: ClassVar[str] = "PPO"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of PPO's epochs."""
        config = self.config
        return {"n_epochs": config.epochs, "batch_size": config.batch_size, "clip_range": config.clip_range}


@register_learner
class A2c(OnPolicy):
    """Stable-Baselines3's A2C: from scratch on each task, pretrained on all, or observing the task (an oracle)."""

    name: ClassVar[str] = "a2c"
    config_class: ClassVar[type] = A2cConfig
    algorithm: ClassVar[str] = "A2C"


class OffPolicy(Sb3Learner):
    """DQN or SAC: values learned from a replay buffer."""

    continual: ClassVar[Sequence[str]] = ("fine-tuning", "replay", "ewc")

    def plan(self, steps: int, num_envs: int, remembered: int) -> Plan:
        """Return as many steps of all environments as fit; ``callback`` sets the gradient steps."""
        config = self.config
        taken = steps // num_envs * num_envs
        arguments = {
            "train_freq": 1,
            # No more capacity than needed, because every task has its own buffer.
            "buffer_size": min(config.buffer_size, remembered + taken + num_envs),
            "batch_size": config.batch_size,
            "learning_starts": config.learning_starts,
            **self.arguments(),
        }
        return Plan(taken, arguments)

    def callback(self) -> "BaseCallback":
        """Return the callback that enforces ``steps_per_gradient`` for any number of environments."""
        from metarl.agents.baselines.sb3.gradient_steps import GradientSteps

        return GradientSteps(self.config.steps_per_gradient)


@register_learner
class Dqn(OffPolicy):
    """Stable-Baselines3's DQN: from scratch on each task, pretrained on all, or observing the task (an oracle)."""

    name: ClassVar[str] = "dqn"
    config_class: ClassVar[type] = DqnConfig
    algorithm: ClassVar[str] = "DQN"
    acts_in: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Discrete,)
    loss: ClassVar[str] = "train/loss"

    def arguments(self) -> dict[str, Any]:
        """Return the argument of the target network."""
        return {"target_update_interval": self.config.target_update_interval}

    def algorithm_class(self) -> "type[BaseAlgorithm]":
        """Return DQN with a target network that counts gradient steps."""
        from metarl.agents.baselines.sb3.gradient_steps import ExactDQN

        return ExactDQN

    def prepare(self, model: "BaseAlgorithm", steps: int, shared: bool) -> None:
        """Anneal exploration over all steps so far, where SB3 restarts with each call of ``learn``."""
        from stable_baselines3.common.utils import LinearSchedule

        dqn = cast("DQN", model)
        config, total = self.config, dqn.num_timesteps + steps
        over = config.shared_exploration_steps if shared else config.exploration_steps
        dqn.exploration_schedule = LinearSchedule(1.0, config.exploration_final_eps, over / total)
        dqn.exploration_rate = dqn.exploration_schedule(1 - dqn.num_timesteps / total)

    def distribution(self, model: "BaseAlgorithm", observations: Tensor) -> Categorical:
        """Return the epsilon-greedy distribution."""
        values = cast("DQN", model).q_net(observations)
        share = self.config.exploration_final_eps
        greedy = torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1])
        chances = share / values.shape[-1] + (1 - share) * greedy
        return Categorical(chances.clamp(min=torch.finfo(values.dtype).tiny).log())

    def likelihood(self, model: "BaseAlgorithm", observations: Tensor) -> DiagonalGaussian:
        """Return a Gaussian of variance 1 about the values of all actions, which the squared error fits."""
        values = cast(Tensor, cast("DQN", model).q_net(readable(self._observation_space, observations)))
        return DiagonalGaussian(values, torch.zeros_like(values))


@register_learner
class Sac(OffPolicy):
    """Stable-Baselines3's SAC: from scratch on each task, pretrained on all, or observing the task (an oracle)."""

    name: ClassVar[str] = "sac"
    config_class: ClassVar[type] = SacConfig
    algorithm: ClassVar[str] = "SAC"
    acts_in: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)
    loss: ClassVar[str] = "train/critic_loss"

    def arguments(self) -> dict[str, Any]:
        """Return the argument of the target critics."""
        return {"tau": self.config.tau}

    def distribution(self, model: "BaseAlgorithm", observations: Tensor) -> SquashedGaussian:
        """Return the actor's squashed Gaussian."""
        mean, log_std, _ = cast("SAC", model).actor.get_action_dist_params(observations)
        return SquashedGaussian(mean, log_std)
