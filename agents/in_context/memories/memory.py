"""What a memory is: a network that reads a trial, all at once or step by step, to the same numbers."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# What is remembered of B trials: named tensors ``[B, ...]``.
Memory = dict[str, Tensor]


class MemoryNetwork(nn.Module, ABC):
    """A causal network over the steps of trials.

    Attributes:
        size: of its outputs.
    """

    size: int

    @abstractmethod
    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step, on the network's device."""

    @abstractmethod
    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials.

        Args:
            inputs: ``[B, L, D]``.
            memory: what is remembered of the steps before them. A single step without gradients may be written into
                it, and it be returned again; else it is not changed.
            lengths: how many of the steps are each trial's own ``[B]``, at least 1; by default all. What stands behind
                them is neither remembered nor seen by any step before.

        Returns:
            Outputs ``[B, L, size]`` and the memory after each trial's last step.
        """


class Gru(MemoryNetwork):
    """One layer of gated recurrent units (Cho et al. 2014).

    Args:
        inputs: size of a step's inputs.
        size: units.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.gru = nn.GRU(inputs, size, batch_first=True)

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden`` ``[B, size]``."""
        return {"hidden": next(self.gru.parameters()).new_zeros(trials, self.size)}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials."""
        outputs, last = self.gru(inputs, memory["hidden"].unsqueeze(0))
        if lengths is None:
            return outputs, {"hidden": last[0]}
        rows = torch.arange(len(lengths), device=lengths.device)
        return outputs, {"hidden": outputs[rows, lengths - 1]}
