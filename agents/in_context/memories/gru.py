"""Gated recurrent units."""

from typing import ClassVar, Self

from torch import Tensor, gru_cell, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory
from metarl.agents.in_context.memories.recurrence import GruSequence


@register_memory
class Gru(MemoryNetwork):
    """One layer of gated recurrent units (Cho et al. 2014).

    On CUDA whole trials are read by cuDNN, whose kernels hold the loop over steps; on the CPU by ``GruSequence``.

    Args:
        inputs: size of a step's inputs.
        size: units.
    """

    name: ClassVar[str] = "gru"

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.gru = nn.GRU(inputs, size, batch_first=True)

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size)

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden`` ``[B, size]``."""
        return {"hidden": self.gru.weight_hh_l0.new_zeros(trials, self.size)}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials."""
        gru, hidden = self.gru, memory["hidden"]
        weights = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
        if inputs.shape[1] == 1:
            outputs = gru_cell(inputs[:, 0], hidden, *weights).unsqueeze(1)
        elif inputs.is_cuda:
            outputs, _ = gru(inputs, hidden.unsqueeze(0))
        else:
            outputs = GruSequence.apply(inputs, hidden, *weights)
        return outputs, {"hidden": last_steps(outputs, lengths)}
