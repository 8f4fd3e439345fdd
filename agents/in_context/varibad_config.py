"""Settings of VariBAD."""

from dataclasses import dataclass
from typing import Literal

from metarl.agents.in_context.memories.memory import MemoryConfig
from metarl.agents.in_context.trial_ppo import TrialPpoConfig
from metarl.errors import InputError
from metarl.validation import require_choice, require_counts, require_not_negative, require_positive

RewardInputs = Literal["transition", "next-observation"]


@dataclass(frozen=True)
class VariBadConfig(MemoryConfig, TrialPpoConfig):
    """Settings of VariBAD."""

    discount: float = 0.95
    """Discount of rewards, per step of the trial."""
    hidden_sizes: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of policy and critic."""
    generated_policy: bool = False
    """Generate the policy's weights from the belief; otherwise the belief is an input of the policy."""
    generated_critic: bool = False
    """The same for the critic."""
    policy_observation_size: int = 0
    """Units of a layer that embeds the observation for policy and critic; 0 for none."""
    policy_belief_size: int = 0
    """Units of a layer that embeds the belief for policy and critic; 0 for none."""
    normalize_beliefs: bool = False
    """Normalise what policy and critic read of beliefs to mean 0 and standard deviation 1 over the training so far."""
    encoder_size: int = 64
    """Units of the encoder's memory, and of the layer that embeds a step's inputs."""
    latent_size: int = 5
    """Number of latent variables that describe a task."""
    decoder_sizes: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of each decoder."""
    reward_inputs: RewardInputs = "transition"
    """Inputs of the reward decoder: transition (observation, action, next observation) or next-observation."""
    transition_weight: float = 0.0
    """Weight of the likelihood of next observations; 0 disables their decoder."""
    kl_weight: float = 1.0
    """Weight of the KL divergence between consecutive beliefs."""
    model_learning_rate: float = 2e-3
    """Step size of the optimiser for encoder and decoders."""
    model_updates: int = 4
    """Steps of the optimiser on encoder and decoders per iteration."""
    model_trials: int = 64
    """Trials in each of them, drawn from the current and past iterations."""
    model_prefixes: int = 8
    """Steps per trial at which the belief is decoded."""
    model_targets: int = 32
    """Steps per trial that are predicted from each of these beliefs."""
    buffer_trials: int = 2000
    """Number of newest trials to keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "encoder_size", "latent_size", "model_updates", "model_trials")
        require_counts(self, "model_prefixes", "model_targets", "buffer_trials")
        require_positive(self, "model_learning_rate")
        require_not_negative(self, "transition_weight", "kl_weight", "policy_observation_size", "policy_belief_size")
        self.check_memory(self.encoder_size)
        if not self.decoder_sizes:
            raise InputError("decoder_sizes must name at least one layer")
        require_choice(self, "reward_inputs", RewardInputs)
