"""Gated recurrent units."""

from typing import ClassVar, Self

from torch import Tensor, gru_cell, nn

from metarl.agents.in_context.memories import compiled, recurrence
from metarl.agents.in_context.memories.initial_weights import make_orthogonal
from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory


@register_memory
class Gru(MemoryNetwork):
    """One layer of gated recurrent units (Cho et al. 2014).

    On CUDA whole trials are read by cuDNN, whose kernels hold the loop over steps; on the CPU by ``compiled`` or, where
    that is not possible, by ``recurrence``.

    Args:
        inputs: size of a step's inputs.
        size: units.
        orthogonal: start with ``initial_weights.make_orthogonal``.
    """

    name: ClassVar[str] = "gru"
    takes_orthogonal: ClassVar[bool] = True

    def __init__(self, inputs: int, size: int, orthogonal: bool) -> None:
        super().__init__()
        self.size = size
        self.gru = nn.GRU(inputs, size, batch_first=True)
        if orthogonal:
            make_orthogonal(self.gru)

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.orthogonal)

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden`` ``[B, size]``."""
        return {"hidden": next(self.gru.parameters()).new_zeros(trials, self.size)}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        hidden = memory["hidden"]
        if inputs.shape[1] == 1:
            outputs = gru_cell(inputs[:, 0], hidden, *self.gru.parameters()).unsqueeze(1)
        elif inputs.is_cuda:
            outputs, _ = self.gru(inputs, hidden.unsqueeze(0))
        else:
            fitting = compiled if compiled.supports(inputs, self.size) else recurrence
            outputs = fitting.read_gru(inputs, hidden, self.gru)
        return outputs, {"hidden": last_steps(outputs, lengths)}
