"""A causal transformer over the steps of a trial, whose memory is the keys and values of the last steps.

Blocks normalise before attention and before the perceptron (Parisotto et al. 2020, section 3). Positions are rotations
of queries and keys (Su et al. 2021, section 3.2): attention depends on how many steps ago something was, not on when in
the trial that was, and a trial may be of any length.

A step is embedded together with the one before it. What an action did stands in the inputs of the step after it, which
know the previous action and reward, but not the previous observation; with both, each step holds one transition whole
(observation, action, reward, next observation), and a single block can look up what was done in the present state.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork

RINGS = ("keys", "values")


class Transformer(MemoryNetwork):
    """A stack of blocks in which every step attends to itself and to the ``window - 1`` steps before it.

    The memory is the last step's inputs, and two rings for each block: the key and the value of a trial's step p stand
    at place ``p % window``, until the step that comes ``window`` later takes it. So acting costs the same at every step
    of a trial.

    Args:
        inputs: size of a step's inputs.
        size: of the outputs and of all between; a multiple of 2 * ``heads``.
        layers: number of blocks.
        heads: of attention, in each block.
        window: steps W that attention reaches.
    """

    _frequencies: Tensor

    def __init__(self, inputs: int, size: int, layers: int, heads: int, window: int) -> None:
        super().__init__()
        self.size, self._window, self._heads = size, window, heads
        self.embed = nn.Linear(2 * inputs, size)
        self.blocks = nn.ModuleList(_Block(size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        width = size // heads
        self.register_buffer("_frequencies", 10_000.0 ** (-torch.arange(0, width, 2) / width), persistent=False)

    def initial(self, trials: int) -> Memory:
        """Return zeros.

        They are ``steps`` read so far ``[B]``, the ``last`` one's inputs ``[B, D]``, and ``keys_i``, ``values_i``
        ``[B, heads, W, size / heads]``.
        """
        like = self.embed.weight
        shape = (trials, self._heads, self._window, self.size // self._heads)
        rings = {f"{name}_{index}": like.new_zeros(shape) for index in range(len(self.blocks)) for name in RINGS}
        steps = torch.zeros(trials, dtype=torch.int64, device=like.device)
        return {"steps": steps, "last": like.new_zeros(trials, self.embed.in_features // 2), **rings}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials."""
        own = torch.full_like(memory["steps"], inputs.shape[1]) if lengths is None else lengths
        reading = _Reading(memory["steps"], own, inputs.shape[1], self._window)
        angles = (reading.positions.unsqueeze(-1) * self._frequencies).unsqueeze(1)
        turns = angles.cos(), angles.sin()
        before = torch.cat([memory["last"].unsqueeze(1), inputs[:, :-1]], 1)
        last = inputs[torch.arange(len(own), device=own.device), own - 1]
        hidden = self.embed(torch.cat([inputs, before], -1))
        following = {"steps": memory["steps"] + own, "last": last}
        for index, block in enumerate(self.blocks):
            names = [f"{name}_{index}" for name in RINGS]
            hidden, *rings = block(hidden, turns, *(memory[name] for name in names), reading)
            following.update(zip(names, rings, strict=True))
        return self.norm(hidden), following


@dataclass(frozen=True)
class _Reading:
    """How L steps of B trials join the rings; the same in all blocks.

    The first step is written into the ring before anyone looks: the step whose place it takes is out of its reach. The
    others stand behind the ring until they have been attended to.

    Shapes:
        steps: read before ``[B]``.
        own: how many of the L are each trial's own ``[B]``.
    """

    steps: Tensor
    own: Tensor
    length: int
    window: int

    @cached_property
    def positions(self) -> Tensor:
        """Positions of the steps in their trials, ``[B, L]``."""
        return self.steps.unsqueeze(1) + torch.arange(self.length, device=self.steps.device)

    @cached_property
    def used(self) -> int:
        """Places of the ring that may hold something, from its beginning on.

        One step does not ask how many they are: on CUDA that would be to wait.
        """
        return self.window if self.length == 1 else min(int(self.steps.max()) + 1, self.window)

    @cached_property
    def reached(self) -> Tensor:
        """Whether each step attends to the places of the ring and to the other steps, ``[B, 1, L, used + L - 1]``."""
        held = torch.cat([self._held(self.steps)[:, : self.used], self.positions[:, 1:]], 1).unsqueeze(1)
        here = self.positions.unsqueeze(2)
        return ((held >= 0) & (held <= here) & (held > here - self.window)).unsqueeze(1)

    @cached_property
    def place(self) -> Tensor:
        """The first step's place, ``[B, 1, 1, 1]``."""
        return (self.steps % self.window).view(-1, 1, 1, 1)

    @cached_property
    def source(self) -> Tensor:
        """Which of the steps each place holds after them, below 0 if none of them, ``[B, 1, W, 1]``."""
        return (self._held(self.steps + self.own - 1) - self.steps.unsqueeze(1))[:, None, :, None]

    def _held(self, last: Tensor) -> Tensor:
        """Return which position each place of the ring holds after the position ``last`` ``[B]``, ``[B, W]``."""
        return last.unsqueeze(1) - (last.unsqueeze(1) - torch.arange(self.window, device=last.device)) % self.window

    def join(self, ring: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the steps attend to ``[B, heads, used + L - 1, d]``, and the ring after them.

        One step without gradients is written into the ring that is given.

        Args:
            ring: ``[B, heads, W, d]``.
            new: keys or values of the steps ``[B, heads, L, d]``.
        """
        first, alone = new[:, :, :1], self.length == 1
        begun = ring if alone else ring[:, :, : self.used]
        write = begun.scatter_ if alone and not torch.is_grad_enabled() else begun.scatter
        begun = write(2, self.place.expand_as(first), first)
        if alone:
            return begun, begun
        kept = new.gather(2, self.source.clamp(min=0).expand_as(ring))
        return torch.cat([begun, new[:, :, 1:]], 2), torch.where(self.source < 0, ring, kept)


class _Block(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.merge = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.perceptron = nn.Sequential(nn.Linear(size, 4 * size), nn.ReLU(), nn.Linear(4 * size, size))

    def forward(
        self, hidden: Tensor, turns: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, reading: _Reading
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs ``[B, L, size]``, and the rings of keys and values after the steps."""
        parts = self.project(self.before_attention(hidden)).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _turned(parts[:2], *turns)
        seen_keys, keys = reading.join(keys, key)
        seen_values, values = reading.join(values, parts[2])
        found = nn.functional.scaled_dot_product_attention(query, seen_keys, seen_values, attn_mask=reading.reached)
        hidden = hidden + self.merge(found.transpose(1, 2).flatten(2))
        return hidden + self.perceptron(self.before_perceptron(hidden)), keys, values


def _turned(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn pairs of entries of vectors ``[..., d]`` by angles whose cosines and sines are ``[..., d / 2]``."""
    left, right = vectors.chunk(2, -1)
    return torch.cat([left * cosines - right * sines, left * sines + right * cosines], -1)
