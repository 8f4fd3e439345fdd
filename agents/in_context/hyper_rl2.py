"""Hyper-RL²: a recurrent network that writes the weights of the policy (Beck et al. 2022, 2023).

What the memory makes of a trial is not an input of the policy but generates it: a linear layer, the hypernetwork, turns
the memory's outputs into all weights and biases of a small network from observations to actions. Its own weights
start near zero and its biases as an ordinary network's weights, so that at first every trial has the same well-scaled
policy (Bias-HyperInit: Beck et al. 2022, section 4.2).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, make_memory
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork, small_layer
from metarl.agents.in_context.trial_ppo import TrialPpoConfig, TrialPpoLearner
from metarl.family import TaskFamily
from metarl.learner import register_learner
from metarl.validation import require_counts, require_layers


@dataclass(frozen=True)
class HyperRl2Config(MemoryConfig, TrialPpoConfig):
    """Settings of Hyper-RL²."""

    hidden_size: int = 64
    """Units of the memory."""
    policy_sizes: tuple[int, ...] = (32,)
    """Units of the generated policy's hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size")
        self.check_memory(self.hidden_size)
        require_layers(self, "policy_sizes")


class GeneratedPolicy(nn.Module):
    """Perceptrons with tanh between layers whose weights a linear layer generates, other ones for every step.

    Args:
        context: size of what they are generated from.
        sizes: units of every layer, inputs and outputs included.
    """

    def __init__(self, context: int, sizes: list[int]) -> None:
        super().__init__()
        self._shapes = list(pairwise(sizes))
        self.hypernetwork = nn.Linear(context, sum(inputs * outputs + outputs for inputs, outputs in self._shapes))
        nn.init.orthogonal_(self.hypernetwork.weight, 0.01)
        with torch.no_grad():
            for index, (weight, bias) in enumerate(self._layers(self.hypernetwork.bias)):
                gain = 0.01 if index == len(self._shapes) - 1 else 1.0
                weight.copy_(nn.init.xavier_uniform_(torch.empty_like(weight), gain))
                bias.zero_()

    def forward(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Return outputs ``[S, outputs]`` of inputs ``[S, inputs]``, each by weights from context ``[S, context]``."""
        hidden = inputs
        for index, (weight, bias) in enumerate(self._layers(self.hypernetwork(context))):
            hidden = torch.einsum("si,sio->so", hidden if index == 0 else hidden.tanh(), weight) + bias
        return hidden

    def _layers(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return numbers ``[..., P]`` as weights ``[..., inputs, outputs]`` and biases ``[..., outputs]``."""
        sizes = [size for inputs, outputs in self._shapes for size in (inputs * outputs, outputs)]
        pieces = torch.split(numbers, sizes, -1)
        weights = [
            piece.view(*piece.shape[:-1], *shape) for piece, shape in zip(pieces[::2], self._shapes, strict=True)
        ]
        return list(zip(weights, pieces[1::2], strict=True))


class HyperActorCritic(TrialNetwork):
    """A memory that generates the policy, and a linear critic on it."""

    def __init__(self, memory: MemoryNetwork, observation_size: int, hidden: tuple[int, ...], head: ActionHead) -> None:
        super().__init__()
        self.memory, self.head, self._observation_size = memory, head, observation_size
        self.policy = GeneratedPolicy(memory.size, [observation_size, *hidden, head.size])
        self.critic = small_layer(memory.size, 1, 1.0)

    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step."""
        return self.memory.initial(trials)

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read on in B trials."""
        context, memory = self.memory(inputs, memory, lengths)
        observations = inputs[..., : self._observation_size]
        outputs = self.policy(context.flatten(0, 1), observations.flatten(0, 1)).unflatten(0, context.shape[:2])
        return self.head(outputs), self.critic(context).squeeze(-1), memory


@register_learner
class HyperRl2(TrialPpoLearner):
    """A memory that generates the policy's weights from the trial, trained by PPO over whole trials."""

    name: ClassVar[str] = "hyper-rl2"
    numbers: ClassVar[int] = 2  # 2: the critic knows what share of the trial is ahead
    config_class: ClassVar[type] = HyperRl2Config
    config: HyperRl2Config

    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return the memory with the policy that it generates."""
        memory = make_memory(self.config, self.inputs.size, self.config.hidden_size)
        head = ActionHead(family.action_space)
        return HyperActorCritic(memory, self.inputs.observation_size, self.config.policy_sizes, head)
