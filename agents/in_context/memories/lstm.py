"""Long short-term memory."""

from typing import ClassVar, Self

from torch import Tensor, lstm_cell, nn

from metarl.agents.in_context.memories import compiled, recurrence
from metarl.agents.in_context.memories.initial_weights import make_orthogonal
from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory


@register_memory
class Lstm(MemoryNetwork):
    """One layer of long short-term memory (Hochreiter and Schmidhuber 1997; forget gates: Gers et al. 2000).

    Args:
        inputs: size of a step's inputs.
        size: units.
        orthogonal: start with ``initial_weights.make_orthogonal``.
    """

    name: ClassVar[str] = "lstm"
    takes_orthogonal: ClassVar[bool] = True

    def __init__(self, inputs: int, size: int, orthogonal: bool) -> None:
        super().__init__()
        self.size = size
        self.lstm = nn.LSTM(inputs, size, batch_first=True)
        if orthogonal:
            make_orthogonal(self.lstm)

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.orthogonal)

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden`` and ``cell``, ``[B, size]`` each."""
        zeros = next(self.lstm.parameters()).new_zeros(2, trials, self.size)
        return {"hidden": zeros[0], "cell": zeros[1]}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        state = memory["hidden"], memory["cell"]
        if inputs.shape[1] == 1:
            hidden, cell = lstm_cell(inputs[:, 0], state, *self.lstm.parameters())
            return hidden.unsqueeze(1), {"hidden": hidden, "cell": cell}
        fitting = compiled if compiled.supports(inputs, self.size) else recurrence
        outputs, cells = fitting.read_lstm(inputs, *state, self.lstm)
        return outputs, {"hidden": last_steps(outputs, lengths), "cell": last_steps(cells, lengths)}
