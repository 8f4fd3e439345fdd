"""An external memory: a recurrent controller that writes vectors to slots and finds them again by their content.

Slots are written where they were least used or last read (Santoro et al. 2016, section 3.2), and read where their
contents resemble a key, by a softmax that the controller sharpens (Graves et al. 2014, equations 5 and 6).
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, register_memory
from metarl.devices.transfer import reading_is_free

USAGE_DECAY = 0.95
# Added to products of lengths, which are 0 for empty slots.
SMALL = 1e-6


@register_memory
class ExternalMemory(MemoryNetwork):
    """Gated recurrent units with M slots of vectors. Outputs are the units and what was last read.

    At every step, with w_r and w_w the weights of slots in reading and writing, u their usage, and l one at the slot
    least used so far and zero elsewhere::

        h_t = GRU([inputs_t, r_{t-1}], h_{t-1})
        k_t, v_t, gate, beta = linear(h_t)        then tanh of v, sigmoid of gate, 1 + softplus of beta
        w_r_t = softmax over slots of beta * cos(k_t, slot)          r_t = sum of w_r_t * slot
        w_w_t = gate * w_r_{t-1} + (1 - gate) * l
        slot <- slot * (1 - l) + w_w_t * v_t
        u_t = 0.95 u_{t-1} + w_r_t + w_w_t

    Args:
        inputs: size of a step's inputs.
        units: of the controller.
        slots: their number M.
        width: of a slot's vector.
    """

    name: ClassVar[str] = "external"

    def __init__(self, inputs: int, units: int, slots: int, width: int) -> None:
        super().__init__()
        self.size = units + width
        self._units, self._slots, self._width = units, slots, width
        self.controller = nn.GRUCell(inputs + width, units)
        self.interface = nn.Linear(units, 2 * width + 2)

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.slots, config.slot_size)

    def initial(self, trials: int) -> Memory:
        """Return zeros.

        Shapes: ``hidden`` ``[B, units]``, ``slots`` ``[B, M, width]``, ``found`` ``[B, width]`` what was last read,
        ``read`` ``[B, M]`` with which weights, ``usage`` ``[B, M]``.
        """
        shapes = {
            "hidden": (self._units,),
            "slots": (self._slots, self._width),
            "found": (self._width,),
            "read": (self._slots,),
            "usage": (self._slots,),
        }
        return {name: self.interface.weight.new_zeros(trials, *shape) for name, shape in shapes.items()}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials, one by one."""
        # From here on some trial is over; off the CPU it may be any step, because looking would mean waiting.
        shortest = inputs.shape[1] if lengths is None else int(lengths.min()) if reading_is_free(lengths.device) else 0
        outputs = []
        for step, entries in enumerate(inputs.unbind(1)):
            following = self._step(entries, memory)
            outputs.append(torch.cat([following["hidden"], following["found"]], -1))
            if lengths is not None and step >= shortest:
                following = _where(step < lengths, following, memory)
            memory = following
        return torch.stack(outputs, 1), memory

    def _step(self, entries: Tensor, memory: Memory) -> Memory:
        hidden = self.controller(torch.cat([entries, memory["found"]], -1), memory["hidden"])
        key, vector, scalars = self.interface(hidden).split([self._width, self._width, 2], -1)
        gate, sharpness = scalars[:, :1].sigmoid(), 1 + nn.functional.softplus(scalars[:, 1:])
        slots = memory["slots"]
        read = torch.softmax(sharpness * _cosines(slots, key), -1)
        least = torch.zeros_like(read).scatter_(1, memory["usage"].argmin(-1, keepdim=True), 1.0)
        write = torch.lerp(least, memory["read"], gate)
        kept = slots * (1 - least).unsqueeze(-1)
        return {
            "hidden": hidden,
            "found": torch.bmm(read.unsqueeze(1), slots).squeeze(1),
            "slots": torch.baddbmm(kept, write.unsqueeze(2), vector.tanh().unsqueeze(1)),
            "read": read,
            "usage": USAGE_DECAY * memory["usage"] + read + write,
        }


def _cosines(slots: Tensor, key: Tensor) -> Tensor:
    """Return the cosines ``[B, M]`` of the angles between slots ``[B, M, width]`` and a key ``[B, width]``."""
    products = torch.bmm(slots, key.unsqueeze(2)).squeeze(2)
    lengths = (slots.square().sum(-1) * key.square().sum(-1, keepdim=True) + SMALL).sqrt()
    return products / lengths


def _where(alive: Tensor, one: Memory, other: Memory) -> Memory:
    """Return the memory ``one`` of the trials where ``alive`` ``[B]``, else ``other``."""
    return {
        name: torch.where(alive.view(-1, *[1] * (value.ndim - 1)), value, other[name]) for name, value in one.items()
    }
