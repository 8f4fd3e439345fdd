"""RL²: a policy with a memory that learns to learn (Duan et al. 2016; Wang et al. 2016).

It reads observation, previous action, previous reward and an episode-start flag, and its memory is kept across the
episodes of a trial. It adapts to a new task through its memory; its weights stay fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from metarl.agents.in_context.memories.memory import MemoryNetwork, check_activation, make_memory
from metarl.agents.in_context.memory_actor_critic import MemoryActorCritic
from metarl.agents.in_context.memory_ppo import MemoryPpoConfig, MemoryPpoLearner
from metarl.agents.in_context.perceptrons import perceptron_with_head, small_layer
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import Elementwise, choose_activation
from metarl.validation import require_layers


@dataclass(frozen=True)
class Rl2Config(MemoryPpoConfig):
    """Settings of RL²."""

    policy_sizes: tuple[int, ...] = ()
    """Units of hidden layers of policy and critic, which then read the observation besides the memory's output;
    none makes both linear in the memory's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy_sizes:
            require_layers(self, "policy_sizes")


class LinearActorCritic(MemoryActorCritic):
    """A linear policy and a linear critic on the outputs of a memory."""

    def __init__(self, memory: MemoryNetwork, head: ActionHead) -> None:
        super().__init__(memory, head)
        self.policy, self.critic = small_layer(memory.size, head.size), small_layer(memory.size, 1, 1.0)

    def act(self, inputs: Tensor, outputs: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values."""
        # Both layers as one: the gradient with respect to the memory's outputs is then one product, not a sum of two.
        weights, biases = (
            torch.cat([getattr(layer, name) for layer in (self.policy, self.critic)]) for name in ("weight", "bias")
        )
        found, values = torch.split(linear(outputs, weights, biases), [self.head.size, 1], -1)
        return self.head(found), values.squeeze(-1)


class ObservingActorCritic(MemoryActorCritic):
    """A policy and a critic with hidden layers, on the observation and the outputs of a memory.

    Args:
        memory: reads the steps.
        sizes: size of an observation, and units of the hidden layers of policy and critic.
        head: head of the action distributions.
        activation: of the hidden layers.
    """

    def __init__(self, memory: MemoryNetwork, sizes: Sequence[int], head: ActionHead, activation: Elementwise) -> None:
        super().__init__(memory, head)
        self._observation_size = sizes[0]
        layers = [sizes[0] + memory.size, *sizes[1:]]
        self.policy = perceptron_with_head(layers, head.size, 0.01, activation)
        self.critic = perceptron_with_head(layers, 1, 1.0, activation)

    def act(self, inputs: Tensor, outputs: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values."""
        read = torch.cat([inputs[..., : self._observation_size], outputs], -1)
        return self.head(self.policy(read)), self.critic(read).squeeze(-1)


@register_learner
class Rl2(MemoryPpoLearner):
    """A policy that adapts through its memory of the trial, trained with PPO over whole trials."""

    name: ClassVar[str] = "rl2"
    numbers: ClassVar[int] = 3  # 3: the critic knows how much of its own trial may be ahead
    config_class: ClassVar[type] = Rl2Config
    config: Rl2Config

    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return the memory with a policy and a critic on it."""
        memory = make_memory(self.config, self.inputs.size, self.config.hidden_size)
        head, layers = ActionHead(family.action_space), self.config.policy_sizes
        if not layers:
            check_activation(self.config, memory)
            return LinearActorCritic(memory, head)
        activation = choose_activation(self.config.activation, torch.tanh)
        return ObservingActorCritic(memory, [self.inputs.observation_size, *layers], head, activation)
