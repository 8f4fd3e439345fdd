"""Hyper-RL²: a recurrent network that generates the weights of the policy (Beck et al. 2022, 2023).

The memory's output is not an input of the policy but generates it: a linear layer, the hypernetwork, maps it to all
weights and biases of a small network from observations to actions. The critic is linear in the memory's output, or a
generated network too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarl.agents.in_context.generated import GeneratedNetwork
from metarl.agents.in_context.memories.memory import MemoryNetwork, make_memory
from metarl.agents.in_context.memory_actor_critic import MemoryActorCritic
from metarl.agents.in_context.memory_ppo import MemoryPpoConfig, MemoryPpoLearner
from metarl.agents.in_context.perceptrons import small_layer
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import Elementwise, choose_activation
from metarl.validation import require_layers


@dataclass(frozen=True)
class HyperRl2Config(MemoryPpoConfig):
    """Settings of Hyper-RL²."""

    policy_sizes: tuple[int, ...] = (32,)
    """Units of the generated networks' hidden layers."""
    generated_critic: bool = False
    """Generate the critic too; otherwise it is linear in the memory's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers(self, "policy_sizes")


class HyperActorCritic(MemoryActorCritic):
    """A memory that generates the policy, with a critic that is generated too, or linear in the memory's output.

    Args:
        memory: reads the steps.
        sizes: units of the generated networks' inputs, the observation, and of their hidden layers.
        head: head of the action distributions.
        generated_critic: whether the critic is generated.
        activation: between layers of the generated networks.
    """

    def __init__(
        self,
        memory: MemoryNetwork,
        sizes: Sequence[int],
        head: ActionHead,
        generated_critic: bool,
        activation: Elementwise,
    ) -> None:
        super().__init__(memory, head)
        self._observation_size = sizes[0]
        self.policy = GeneratedNetwork([*sizes, head.size], memory.size, activation)
        self._generated_critic = generated_critic
        self.critic = (
            GeneratedNetwork([*sizes, 1], memory.size, activation, 1.0)
            if generated_critic
            else small_layer(memory.size, 1, 1.0)
        )

    def act(self, inputs: Tensor, outputs: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values."""
        read = torch.cat([inputs[..., : self._observation_size], outputs], -1)
        values = self.critic(read if self._generated_critic else outputs)
        return self.head(self.policy(read)), values.squeeze(-1)


@register_learner
class HyperRl2(MemoryPpoLearner):
    """A memory that generates the policy's weights, trained with PPO over whole trials."""

    name: ClassVar[str] = "hyper-rl2"
    numbers: ClassVar[int] = 3  # 3: the critic knows how much of its own trial may be ahead
    config_class: ClassVar[type] = HyperRl2Config
    config: HyperRl2Config

    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return the memory with the policy that it generates, and the critic."""
        memory = make_memory(self.config, self.inputs.size, self.config.hidden_size)
        head = ActionHead(family.action_space)
        activation = choose_activation(self.config.activation, torch.tanh)
        sizes = [self.inputs.observation_size, *self.config.policy_sizes]
        return HyperActorCritic(memory, sizes, head, self.config.generated_critic, activation)
