"""Settings of PEARL."""

from dataclasses import dataclass
from typing import Literal

from metarl.agents.in_context.trial_learner import TrialConfig
from metarl.errors import InputError
from metarl.networks.activations import ActivationConfig
from metarl.networks.optimizers import OptimizerConfig
from metarl.validation import (
    require_choice,
    require_counts,
    require_layers,
    require_not_negative,
    require_positive,
    require_unit,
)

TaskEncoderName = Literal["critic", "contrastive", "siamese", "prototypical", "matching", "relation", "focal"]


@dataclass(frozen=True)
class PearlConfig(OptimizerConfig, ActivationConfig, TrialConfig):
    """Settings of PEARL."""

    task_encoder: TaskEncoderName = "critic"
    """What trains the encoder of the task: the critics' loss, or a metric that distinguishes tasks."""
    latent_size: int = 5
    """Number of latent variables."""
    kl_weight: float = 0.1
    """Weight of the KL divergence of the belief from the prior."""
    context_size: int = 100
    """Maximum number of transitions in a training context."""
    encode_dynamics: bool = False
    """Also give the encoder the next observation, for tasks that differ in dynamics."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of every network."""
    learning_rate: float = 3e-4
    """Step size of the optimiser, for every network."""
    anneal_iterations: int = 0
    """Iterations over which learning_rate decays linearly to 0; 0 keeps it constant."""
    discount: float = 0.99
    """Discount of rewards, per step of the episode."""
    reward_scale: float = 5.0
    """Factor on rewards, which sets their weight relative to the policy's entropy."""
    tau: float = 0.005
    """Step size of the target critics' Polyak averaging."""
    updates_per_iteration: int = 50
    """SAC updates per iteration."""
    tasks_per_update: int = 16
    """Tasks per SAC update."""
    batch_size: int = 64
    """Transitions per task in an SAC update."""
    replay_size: int = 500_000
    """Capacity of the replay buffer, in transitions."""
    deterministic_latent: bool = True
    """With deterministic actions, act on the belief's mean; otherwise on a sample of it, as with sampled actions."""
    initial_steps: int = 0
    """Environment steps to collect in each training task before the first update, acting on the prior; they need a
    fixed set of tasks, --train-tasks."""
    random_iterations: int = 0
    """Initial iterations in which every episode repeats one random action, with noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes_per_trial < 2:
            raise InputError(f"pearl needs 2 or more episodes_per_trial, not {self.episodes_per_trial}")
        require_counts(self, "latent_size", "context_size", "updates_per_iteration", "tasks_per_update", "batch_size")
        require_counts(self, "replay_size")
        require_positive(self, "learning_rate", "reward_scale")
        require_unit(self, "discount", "tau")
        require_not_negative(self, "kl_weight", "random_iterations", "initial_steps", "anneal_iterations")
        require_layers(self, "hidden_sizes")
        require_choice(self, "task_encoder", TaskEncoderName)
        if self.initial_steps and self.task_encoder != "critic":
            raise InputError(f"initial_steps need the task encoder critic, not {self.task_encoder}; omit one of them")
