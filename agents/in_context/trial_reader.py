"""What reads a trial for policy and critics: a layer that embeds the inputs of a step, and a memory."""

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork
from metarl.networks.activations import Activation, Elementwise


class TrialReader(nn.Module):
    """Embeds a step's inputs, reads them into a memory, and appends the observation to the memory's output.

    Attributes:
        size: number F of features.

    Args:
        inputs: size of a step's inputs.
        observation_size: size of the observation, which comes first in the inputs.
        embedding_size: units of the embedding layer.
        memory: reads the embedded inputs.
        activation: after the embedding layer.
    """

    def __init__(
        self, inputs: int, observation_size: int, embedding_size: int, memory: MemoryNetwork, activation: Elementwise
    ) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(inputs, embedding_size), Activation(activation))
        self.memory = memory
        self.size = memory.size + observation_size
        self._observation_size = observation_size

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials; return features ``[B, L, F]``, and the memory after the last steps."""
        outputs, memory = self.memory(self.embedding(inputs), memory, lengths)
        return torch.cat([outputs, inputs[..., : self._observation_size]], -1), memory

    def whole(self, inputs: Tensor) -> Tensor:
        """Return the features ``[B, L, F]`` of whole trials; padding after their ends changes none before."""
        features: Tensor = self(inputs, self.memory.initial(len(inputs)))[0]
        return features
