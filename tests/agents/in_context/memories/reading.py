"""Small networks of every memory, and how tests read trials with them."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from metarl.agents.in_context.memories.external import ExternalMemory
from metarl.agents.in_context.memories.gru import Gru
from metarl.agents.in_context.memories.language_model import LanguageModelMemory
from metarl.agents.in_context.memories.lstm import Lstm
from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork, TransitionReader
from metarl.agents.in_context.memories.min_gru import MinGru
from metarl.agents.in_context.memories.set import Set
from metarl.agents.in_context.memories.splagger import SplAgger
from metarl.agents.in_context.memories.transformer import Transformer
from tests.agents.language.models import tiny_model

TRIALS, STEPS, INPUTS = 4, 17, 3
WINDOW = 5
NETWORKS: dict[str, Callable[[], MemoryNetwork]] = {
    "gru": lambda: Gru(INPUTS, 6, orthogonal=False),
    "lstm": lambda: Lstm(INPUTS, 6, orthogonal=True),
    "min-gru": lambda: MinGru(INPUTS, 8, layers=2),
    "transformer": lambda: Transformer(INPUTS, 8, layers=2, heads=2, window=64),
    "transformer of a short window": lambda: Transformer(INPUTS, 8, layers=2, heads=2, window=WINDOW),
    "external": lambda: ExternalMemory(INPUTS, 6, slots=4, width=5),
    "set": lambda: Set(INPUTS, 6),
    "splagger": lambda: SplAgger(INPUTS, 6, orthogonal=False),
    "language-model": cache(lambda: LanguageModelMemory(INPUTS, 6, tiny_model(layers=2), rank=2, window=WINDOW)),
    "gru that reads transitions": lambda: TransitionReader(Gru(2 * INPUTS, 6, orthogonal=False), INPUTS),
    "transformer that reads transitions": lambda: TransitionReader(
        Transformer(2 * INPUTS, 8, layers=2, heads=2, window=WINDOW), INPUTS
    ),
}


def made(name: str, seed: int = 0) -> tuple[MemoryNetwork, Tensor]:
    """Return a network and the inputs of some trials, all in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](), torch.randn(TRIALS, STEPS, INPUTS)


def read(network: MemoryNetwork, pieces: list[Tensor], memory: Memory | None = None) -> tuple[Tensor, Memory]:
    """Read pieces of trials one after the other."""
    memory, outputs = network.initial(len(pieces[0])) if memory is None else memory, []
    for piece in pieces:
        found, memory = network(piece, memory)
        outputs.append(found)
    return torch.cat(outputs, 1), memory
