"""A causal transformer over the steps of a trial; its memory is a cache of the keys and values of the last steps.

Blocks apply layer normalisation before attention and before the MLP (Parisotto et al. 2020, section 3). Positions are
rotations of queries and keys (Su et al. 2021, section 3.2): attention depends on how many steps ago something happened,
not on the position in the trial, so a trial may be of any length.

Attention is local: every step attends to itself and to the ``window - 1`` steps before it. A sequence is processed in
chunks of ``window`` steps, each of which attends to itself and to the chunk before it, so the cost is linear in the
length of the sequence.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, register_memory
from metarl.devices.transfer import reading_is_free
from metarl.errors import InputError
from metarl.networks.activations import Activation, Elementwise, choose_activation

RINGS = ("keys", "values")


@register_memory
class Transformer(MemoryNetwork):
    """A stack of blocks in which every step attends to itself and to the ``window - 1`` steps before it.

    The memory is two ring buffers per block: the key and the value of a trial's step p are stored at index
    ``p % window``, until step ``p + window`` overwrites them. So acting costs the same at every step of a trial.

    By default the inputs of a step include those of the previous step, so that each contains a whole transition, and a
    single block can look up what was done in the current state.

    Args:
        inputs: size of a step's inputs.
        size: of the outputs and of all hidden layers; a multiple of 2 * ``heads``.
        layers: number of blocks.
        heads: attention heads of each block.
        window: number of steps W that attention covers.
        activation: of the hidden layer of each block's MLP.
    """

    name: ClassVar[str] = "transformer"
    wants_previous_step: ClassVar[bool] = True
    _frequencies: Tensor

    def __init__(
        self, inputs: int, size: int, layers: int, heads: int, window: int, activation: Elementwise = torch.relu
    ) -> None:
        super().__init__()
        self.size, self._window, self._heads = size, window, heads
        self.embed = nn.Linear(inputs, size)
        self.blocks = nn.ModuleList(_Block(size, heads, activation) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        width = size // heads
        self.register_buffer("_frequencies", 10_000.0 ** (-torch.arange(0, width, 2) / width), persistent=False)

    @classmethod
    def check(cls, config: MemoryConfig, size: int) -> None:
        """Raise ``InputError`` unless every head gets the same, even number of entries."""
        if size % (2 * config.heads):
            raise InputError(
                "the memory transformer's size (hidden_size or encoder_size) must be a multiple of 2 * heads = "
                f"{2 * config.heads}, not {size}"
            )

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        activation = choose_activation(config.activation, torch.relu)
        return cls(inputs, size, config.layers, config.heads, config.window, activation)

    def initial(self, trials: int) -> Memory:
        """Return zeros: ``steps`` so far ``[B]``, and ``keys_i``, ``values_i`` ``[B, heads, W, size / heads]``."""
        like = self.embed.weight
        shape = (trials, self._heads, self._window, self.size // self._heads)
        rings = {f"{name}_{index}": like.new_zeros(shape) for index in range(len(self.blocks)) for name in RINGS}
        return {"steps": torch.zeros(trials, dtype=torch.int64, device=like.device), **rings}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials; see ``MemoryNetwork``."""
        own = torch.full_like(memory["steps"], inputs.shape[1]) if lengths is None else lengths
        kind = _Step if inputs.shape[1] == 1 else _Sequence
        reading = kind(memory["steps"], own, inputs.shape[1], self._window)
        angles = (reading.positions.unsqueeze(-1) * self._frequencies).unsqueeze(1)
        rotation = angles.cos(), angles.sin()
        hidden = self.embed(inputs)
        following = {"steps": memory["steps"] + own}
        for index, block in enumerate(self.blocks):
            names = [f"{name}_{index}" for name in RINGS]
            hidden, *rings = block(hidden, rotation, *(memory[name] for name in names), reading)
            following.update(zip(names, rings, strict=True))
        return self.norm(hidden), following


@dataclass(frozen=True)
class _Reading:
    """How L steps of B trials attend to the ring buffers and to each other, and are written to them; for all blocks.

    Shapes:
        steps: number of earlier steps ``[B]``.
        own: how many of the L steps belong to each trial ``[B]``.
    """

    steps: Tensor
    own: Tensor
    length: int
    window: int

    @cached_property
    def positions(self) -> Tensor:
        """Positions of the steps in their trials, ``[B, L]``."""
        return self.steps.unsqueeze(1) + torch.arange(self.length, device=self.steps.device)

    def _kept(self, last: Tensor) -> Tensor:
        """Return the position stored at each index of the ring after position ``last`` ``[B]``, ``[B, W]``."""
        return last.unsqueeze(1) - (last.unsqueeze(1) - torch.arange(self.window, device=last.device)) % self.window


class _Step(_Reading):
    """One step, which is written to the ring before attention: the entry that it overwrites is outside the window.

    No control flow depends on values on the device, so acting never waits for it.
    """

    @cached_property
    def place(self) -> Tensor:
        """The step's index in the ring, ``[B, 1, 1, 1]``."""
        return (self.steps % self.window).view(-1, 1, 1, 1)

    @cached_property
    def reached(self) -> Tensor:
        """Whether each entry of the ring has been written, ``[B, 1, 1, W]``."""
        return (self._kept(self.steps) >= 0)[:, None, None]

    def write(self, ring: Tensor, new: Tensor) -> Tensor:
        """Return the ring with the step in it; without gradients it is written in place."""
        scatter = ring.scatter if torch.is_grad_enabled() else ring.scatter_
        return scatter(2, self.place.expand_as(new), new)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Return the attention's outputs ``[B, heads, 1, d]``, and both rings after the step."""
        keys, values = self.write(keys, key), self.write(values, value)
        return scaled_dot_product_attention(query, keys, values, attn_mask=self.reached), keys, values


class _Sequence(_Reading):
    """Several steps, in chunks of W: each chunk attends to itself and to the W steps before it.

    Those of the first chunk are in the ring.
    """

    @cached_property
    def used(self) -> int:
        """Entries of the ring in use in any trial; all of them on devices where reading the number would wait."""
        return min(int(self.steps.max()), self.window) if reading_is_free(self.steps.device) else self.window

    @cached_property
    def order(self) -> Tensor:
        """Indices of the ring's last ``used`` steps, oldest first, ``[B, 1, used, 1]``."""
        ago = torch.arange(-self.used, 0, device=self.steps.device)
        return ((self.steps.unsqueeze(1) + ago) % self.window)[:, None, :, None]

    @cached_property
    def source(self) -> Tensor:
        """Which of the steps is in each entry after them, negative if none of them, ``[B, 1, W, 1]``."""
        return (self._kept(self.steps + self.own - 1) - self.steps.unsqueeze(1))[:, None, :, None]

    def reached(self, queries: int, before: int) -> Tensor:
        """Return whether steps attend to those ``before`` them and to each other, ``[queries, before + queries]``."""
        here = torch.arange(before, before + queries, device=self.steps.device).unsqueeze(1)
        there = torch.arange(before + queries, device=self.steps.device)
        return (there <= here) & (there > here - self.window)

    @cached_property
    def first_reached(self) -> Tensor:
        """As ``reached`` for the first chunk, before which trials may have fewer steps, ``[B, 1, queries, keys]``."""
        queries = min(self.window, self.length)
        there = torch.arange(self.used + queries, device=self.steps.device) - self.used
        exists = self.steps.unsqueeze(1) + there >= 0
        return self.reached(queries, self.used) & exists[:, None, None]

    @cached_property
    def later_reached(self) -> Tensor:
        """As ``reached`` for whole chunks after the first."""
        return self.reached(self.window, self.window)

    def write(self, ring: Tensor, new: Tensor) -> Tensor:
        """Return the ring after the steps; entries that none of them is written to stay as they are."""
        kept = new.gather(2, self.source.clamp(min=0).expand_as(ring))
        return torch.where(self.source < 0, ring, kept)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Return the attention's outputs ``[B, heads, L, d]``, and both rings after the steps."""
        seen = []
        for ring, new in ((keys, key), (values, value)):
            before = ring.gather(2, self.order.expand(*ring.shape[:2], -1, ring.shape[-1]))
            seen.append(torch.cat([before, new], 2))
        found = []
        for start in range(0, self.length, self.window):
            chunk = query[:, :, start : start + self.window]
            end = self.used + start + chunk.shape[2]
            begin = 0 if start == 0 else self.used + start - self.window
            mask = self.first_reached if start == 0 else self.later_reached[: chunk.shape[2], : end - begin]
            near_keys, near_values = (each[:, :, begin:end] for each in seen)
            found.append(scaled_dot_product_attention(chunk, near_keys, near_values, mask))
        return torch.cat(found, 2), self.write(keys, key), self.write(values, value)


class _Block(nn.Module):
    def __init__(self, size: int, heads: int, activation: Elementwise) -> None:
        super().__init__()
        self._heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.merge = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.perceptron = nn.Sequential(nn.Linear(size, 4 * size), Activation(activation), nn.Linear(4 * size, size))

    def forward(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        reading: "_Step | _Sequence",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs ``[B, L, size]``, and the rings of keys and values after the steps."""
        parts = self.project(self.before_attention(hidden)).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _rotated(parts[:2], *rotation)
        found, keys, values = reading.attend(query, key, parts[2], keys, values)
        hidden = hidden + self.merge(found.transpose(1, 2).flatten(2))
        return hidden + self.perceptron(self.before_perceptron(hidden)), keys, values


def _rotated(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate pairs of entries of vectors ``[..., d]`` by angles whose cosines and sines are ``[..., d / 2]``."""
    left, right = vectors.chunk(2, -1)
    return torch.cat([left * cosines - right * sines, left * sines + right * cosines], -1)
