"""A pretrained language model as a memory: each step of a trial takes the place of a token.

A layer maps the inputs of a step to a vector as long as the model's own embeddings of words, so the model reads numbers
where it was trained on text (Lu et al. 2022). Its weights stay as they are; what is trained are low-rank adapters in
all of its linear layers (Hu et al. 2022), and the layers before and after the model.

The memory is a cache of the keys and values of the last ``window`` steps, which have rotary positions, as in
``transformer``: attention knows how long ago a step was, and a trial may be of any length.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import rms_norm

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, register_memory
from metarl.agents.language.local import identity_of, load_model
from metarl.errors import InputError

# Number of words whose embeddings give the length of such a vector.
WORDS = 1000


@register_memory
class LanguageModelMemory(MemoryNetwork):
    """A causal language model of ``transformers`` with adapters.

    Args:
        inputs: size of a step's inputs.
        size: of the outputs.
        path: of the model; see ``load_model``.
        rank: of the adapters.
        window: number of steps W that attention covers.

    Raises:
        InputError: when ``transformers`` or ``peft`` is not installed, or there is no such model, or it does not use
            attention with rotary positions.
    """

    name: ClassVar[str] = "language-model"
    wants_previous_step: ClassVar[bool] = True

    def __init__(self, inputs: int, size: int, path: str, rank: int, window: int) -> None:
        super().__init__()
        self.size, self._window = size, window
        self._base = base = Base(path, rank)
        self.embed, self.merge = nn.Linear(inputs, base.width), nn.Linear(base.width, size)
        # Names of parameters have no dots.
        self.adapters = nn.ParameterDict({name.replace(".", "/"): value for name, value in base.adapters.items()})

    @classmethod
    def check(cls, config: MemoryConfig, size: int) -> None:
        """Raise ``InputError`` without a model."""
        if not config.model:
            raise InputError(
                "the memory language-model needs --model: a folder of transformers, a GGUF file or a name on the "
                "Hugging Face hub"
            )

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.model, config.adapter_rank, config.window)

    def initial(self, trials: int) -> Memory:
        """Return zeros: ``steps`` so far ``[B]``, and ``keys_i``, ``values_i`` ``[B, heads, W, d]`` of each layer."""
        like = self.embed.weight
        rings = {
            f"{name}_{index}": like.new_zeros(trials, heads, self._window, width)
            for index, (heads, width) in enumerate(self._base.layers)
            for name in ("keys", "values")
        }
        return {"steps": torch.zeros(trials, dtype=torch.int64, device=like.device), **rings}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials; see ``MemoryNetwork``."""
        own = torch.full_like(memory["steps"], inputs.shape[1]) if lengths is None else lengths
        reading = _Reading(memory, own, inputs.shape[1], self._window)
        words = rms_norm(self.embed(inputs), (self._base.width,)) * self._base.word_length
        hidden = self._base.read(words, reading, {name.replace("/", "."): each for name, each in self.adapters.items()})
        return self.merge(rms_norm(hidden, (self._base.width,))), reading.following

    def get_extra_state(self) -> Tensor:
        """Return the hash of the model, bytes ``[32]``, which is stored instead of its weights."""
        return torch.tensor(list(bytes.fromhex(self._base.identity)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check the hash of the model.

        Raises:
            InputError: when adapters of another model are loaded.
        """
        if not torch.equal(state.cpu(), self.get_extra_state()):
            raise InputError(
                f"the adapters belong to another language model than {self._base.path}: its hash differs; restore it"
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._base.model._apply(fn)
        return self


class Base:
    """The frozen model, which copies of a network share; it is not a module, so its weights are not the network's.

    Attributes:
        path: of the model.
        identity: its hash.
        model: the transformer without its output layer; its adapters are only placeholders for those of ``read``.
        adapters: initial values of adapters, by name.
        layers: number of heads and size of the keys and values of each layer.
        width: size of embeddings.
        word_length: root mean square of the embeddings of words.
    """

    def __init__(self, path: str, rank: int) -> None:
        whole = load_model(path, torch.get_default_dtype())
        self.path, self.identity = path, identity_of(whole)
        self.model = whole.base_model.eval().requires_grad_(False)
        words = self.model.get_input_embeddings()
        found = words(torch.arange(min(WORDS, words.num_embeddings)))
        self.width, self.word_length = found.shape[-1], found.square().mean().sqrt().item()
        self.layers = self._probed()
        self.adapters = adapted(self.model, rank)

    def __deepcopy__(self, memo: Any) -> "Base":
        return self

    def read(self, words: Tensor, reading: "_Reading", adapters: dict[str, Tensor]) -> Tensor:
        """Return the outputs ``[B, L, width]`` of the last layer for embedded steps ``[B, L, width]``."""
        arguments = {
            "inputs_embeds": words,
            "position_ids": reading.positions,
            "attention_mask": reading.mask.to(words.dtype),
            "cache": reading,
            "use_cache": True,
        }
        hidden: Tensor = functional_call(self.model, adapters, (), arguments, tie_weights=False).last_hidden_state
        return hidden

    @torch.no_grad()
    def _probed(self) -> list[tuple[int, int]]:
        """Return the shapes of keys in all layers, as seen when the model reads something."""
        probe = _Probe()
        rotary = any("rotary" in name for name, _ in self.model.named_modules())
        if rotary:
            first = {"position_ids": torch.zeros(1, 1, dtype=torch.int64), "attention_mask": torch.zeros(1, 1, 1, 1)}
            try:
                self.model(inputs_embeds=torch.zeros(1, 1, self.width), cache=probe, use_cache=True, **first)
            except (AttributeError, TypeError):  # it asks more of a cache than to keep keys and values
                probe.shapes.clear()
        if len(probe.shapes) != self.model.config.num_hidden_layers:
            kind = self.model.config.model_type
            raise InputError(
                f"--model {self.path} ({kind}) cannot be a memory, which needs rotary positions and attention in all "
                "layers"
            )
        return list(probe.shapes.values())


def adapted(model: Any, rank: int) -> dict[str, nn.Parameter]:
    """Add adapters that have no effect yet to all linear layers of a model, in place; return their parameters by name.

    Raises:
        InputError: when ``peft`` is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("the memory language-model needs peft: pip install 'metarl-gym[language]'") from None
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear"), model)
    return {name: nn.Parameter(value.detach().clone()) for name, value in model.named_parameters() if "lora_" in name}


class _Probe:
    """Takes the place of a cache, and keeps the shapes of what it is given."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, int]] = {}

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep shapes; called by the model."""
        self.shapes[layer] = keys.shape[1], keys.shape[3]
        return keys, values


class _Reading:
    """L steps of B trials, which attend to the rings of the steps before them and to each other; a model's cache.

    A step p is stored at index ``p % W`` of a ring. A single step without gradients is written to its place before
    attention, as the entry there is outside its window.

    Attributes:
        positions: of the steps in their trials, ``[B, L]``.
        mask: 0 where a step attends and minus infinity elsewhere, ``[B, 1, L, K]``, with K = W + L, or W for a single
            step.
        following: the memory after them.
    """

    def __init__(self, memory: Memory, own: Tensor, length: int, window: int) -> None:
        steps, index = memory["steps"].unsqueeze(1), torch.arange(window, device=own.device)

        def stored(last: Tensor) -> Tensor:
            """Return the position at each index of the rings after position ``last`` ``[B, 1]``, ``[B, W]``."""
            return last - (last - index) % window

        self.positions = steps + torch.arange(length, device=own.device)
        self._memory, self._single = memory, length == 1 and not torch.is_grad_enabled()
        self._place = (steps % window)[:, None, :, None]
        entries = stored(steps) if self._single else torch.cat([stored(steps - 1), self.positions], 1)
        query, key = self.positions.unsqueeze(2), entries.unsqueeze(1)
        seen = (key >= 0) & (key <= query) & (key > query - window)
        self.mask = torch.zeros(seen.shape, device=own.device).masked_fill(~seen, -torch.inf).unsqueeze(1)
        after = stored(steps + own.unsqueeze(1) - 1)
        self._source = torch.where(after >= steps, window + after - steps, index)[:, None, :, None]
        self.following: Memory = {"steps": memory["steps"] + own}

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return the keys and values ``[B, heads, K, d]`` of a layer with those of these steps; called by the model."""
        return self._entries(f"keys_{layer}", keys), self._entries(f"values_{layer}", values)

    def _entries(self, name: str, new: Tensor) -> Tensor:
        ring = self._memory[name]
        if self._single:
            self.following[name] = ring.scatter_(2, self._place.expand_as(new), new)
            return self.following[name]
        entries = torch.cat([ring, new], 2)
        self.following[name] = entries.gather(2, self._source.expand(-1, new.shape[1], -1, new.shape[3]))
        return entries
