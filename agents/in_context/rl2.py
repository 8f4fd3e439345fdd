"""RL²: a policy with a memory that learns to learn (Duan et al. 2016; Wang et al. 2016).

It reads observation, previous action, previous reward and an episode-start flag, and its memory is kept across the
episodes of a trial. It adapts to a new task through its memory; its weights stay fixed.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, check_activation, make_memory
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork, small_layer
from metarl.agents.in_context.trial_ppo import TrialPpoConfig, TrialPpoLearner
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.validation import require_counts


@dataclass(frozen=True)
class Rl2Config(MemoryConfig, TrialPpoConfig):
    """Settings of RL²."""

    hidden_size: int = 64
    """Units of the memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size")
        self.check_memory(self.hidden_size)


class RecurrentActorCritic(TrialNetwork):
    """A linear policy and critic on the outputs of a memory."""

    def __init__(self, memory: MemoryNetwork, head: ActionHead) -> None:
        super().__init__()
        self.memory, self.head = memory, head
        self.policy, self.critic = small_layer(memory.size, head.size), small_layer(memory.size, 1, 1.0)

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        return self.memory.initial(trials)

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read the next steps of B trials."""
        outputs, memory = self.memory(inputs, memory, lengths)
        # Both layers as one: the gradient by the memory's outputs is then one product instead of a sum of two.
        weights, biases = (
            torch.cat([getattr(layer, name) for layer in (self.policy, self.critic)]) for name in ("weight", "bias")
        )
        found, values = torch.split(linear(outputs, weights, biases), [self.head.size, 1], -1)
        return self.head(found), values.squeeze(-1), memory


@register_learner
class Rl2(TrialPpoLearner):
    """A policy that adapts through its memory of the trial, trained with PPO over whole trials."""

    name: ClassVar[str] = "rl2"
    numbers: ClassVar[int] = 3  # 3: the critic knows how much of its own trial may be ahead
    config_class: ClassVar[type] = Rl2Config
    config: Rl2Config

    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return the memory with a policy and a critic on it."""
        memory = make_memory(self.config, self.inputs.size, self.config.hidden_size)
        check_activation(self.config, memory)
        return RecurrentActorCritic(memory, ActionHead(family.action_space))
