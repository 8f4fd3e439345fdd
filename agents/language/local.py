"""A causal language model of ``transformers`` in this process."""

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.agents.language.model import LanguageModel, Usage
from metarl.agents.language.transcript import Prompt
from metarl.errors import InputError

Tokens = list[int]
# Tokens that at least stay free for the continuation of a prompt.
SPARE = 128
# Context length assumed for a model that does not state one.
CONTEXT = 4096


class LocalModel(LanguageModel):
    """A model that keeps what it has read: keys and values of its prompts, so that only their new tokens are computed.

    Prompts that all start alike share the computation of this start, too. In a batch of prompts whose new parts differ
    in length, the shorter ones are padded on the left, and the padding is masked from then on.

    Args:
        path: a folder as ``save_pretrained`` writes, a GGUF file, or a name on the Hugging Face hub.
        device: where it computes.
        precision: of its numbers, such as ``float32``.
        batch: prompts in a forward pass.

    Raises:
        InputError: when ``transformers`` is not installed, or there is no such model.
    """

    def __init__(self, path: str, device: torch.device, precision: str = "float32", batch: int = 64) -> None:
        self.usage, self._device, self._batch = Usage(), device, batch
        self._tokenizer, self._model = load_tokenizer(path), load_model(path, getattr(torch, precision))
        self._model.to(device).eval()
        self._known: dict[str, Tokens] = {}
        self._chunks: dict[int, _Chunk] = {}
        self._start: tuple[Tokens, Any] = ([], None)

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """A hash of the settings, and of some numbers of each parameter."""
        return identity_of(self._model)

    def log_probs(self, prompts: Sequence[Prompt], names: Sequence[str]) -> Tensor:
        """Return the log-probabilities ``[R, A]`` of the names' tokens after R prompts."""
        options = self._options(names)
        shared = _common_start(options, min(map(len, options)) - 1)
        rest = [option[shared:] for option in options]
        found = []
        for number, chunk in enumerate(self._read(prompts, options[0][:shared])):
            scores = chunk.following[:, [option[0] for option in rest]].clone()
            for column, option in enumerate(rest):
                if len(option) > 1:
                    scores[:, column] += chunk.score(self._model, option)
            self._chunks[number] = chunk
            found.append(scores)
        return torch.cat(found).float()

    def write(self, prompts: Sequence[Prompt], tokens: int) -> list[str]:
        """Return the most probable lines, token by token."""
        lines: list[str] = []
        for chunk in self._read(prompts, [], max(tokens, SPARE)):
            written: list[Tokens] = [[] for _ in chunk.rows]
            for _ in range(tokens):
                following = chunk.following.argmax(-1).tolist()
                for row, token in zip(written, following, strict=True):
                    row.append(token)
                if all("\n" in self._tokenizer.decode(row) for row in written):
                    break
                chunk.read(self._model, [[token] for token in following])
            self.usage.written_tokens += sum(map(len, written))
            lines += [self._tokenizer.decode(row, skip_special_tokens=True).split("\n")[0].strip() for row in written]
        self._chunks.clear()  # they have read what was written, which later prompts need not contain
        return lines

    def _options(self, names: Sequence[str]) -> list[Tokens]:
        """Return the tokens of names; with a line's end where one name would be the beginning of another."""
        options = [self._tokens(name) for name in names]
        ambiguous = any(one is not other and other[: len(one)] == one for one in options for other in options)
        return [option + self._tokens("\n") for option in options] if ambiguous else options

    def _tokens(self, text: str) -> Tokens:
        if text not in self._known:
            self._known[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def _ids(self, prompt: Prompt, spare: int) -> Tokens:
        """Return a prompt's tokens, without its oldest episodes if there would be less than ``spare`` left to write."""
        limit = getattr(self._model.config, "max_position_embeddings", CONTEXT) - spare
        if limit <= 0:
            raise InputError(f"the model's context has no room for {spare} tokens; use a smaller --reflection-tokens")
        pieces = prompt.kept(lambda piece: len(self._tokens(piece)), limit)
        first = [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]
        return first + [token for piece in pieces for token in self._tokens(piece)]

    def _read(self, prompts: Sequence[Prompt], more: Tokens, spare: int = SPARE) -> "list[_Chunk]":
        """Read prompts, and further tokens after each; continue from what was read before if they begin with it."""
        wanted = [self._ids(prompt, spare) + more for prompt in prompts]
        chunks = []
        for number, start in enumerate(range(0, len(wanted), self._batch)):
            rows = wanted[start : start + self._batch]
            chunk = self._chunks.pop(number, None)
            if chunk is None or not chunk.continues_to(rows):
                chunk = self._fresh(wanted, len(rows))
            new = [row[len(old) :] for row, old in zip(rows, chunk.rows, strict=True)]
            self.usage.read_tokens += sum(map(len, new))
            chunk.read(self._model, new)
            chunks.append(chunk)
        return chunks

    def _fresh(self, wanted: list[Tokens], rows: int) -> "_Chunk":
        """Return a chunk that has read the tokens with which all prompts start."""
        shared = wanted[0][: _common_start(wanted, min(map(len, wanted)) - 1)]
        if self._start[0] != shared:
            chunk = _Chunk([[]], self._device)
            if shared:
                chunk.read(self._model, [shared])
            self._start = shared, chunk
            self.usage.read_tokens += len(shared)
        fresh: _Chunk = copy.deepcopy(self._start[1])
        fresh.repeat(rows)
        return fresh


class _Chunk:
    """Prompts that are read together, with their keys and values.

    Attributes:
        rows: tokens that each has read.
        following: log-probabilities of the next token ``[R, V]``.
    """

    def __init__(self, rows: list[Tokens], device: torch.device) -> None:
        from transformers import DynamicCache

        self.rows, self._device = rows, device
        self._cache = DynamicCache()
        self._mask = torch.zeros(len(rows), 0, dtype=torch.int64, device=device)
        self.following: Tensor = torch.empty(0)

    def continues_to(self, rows: list[Tokens]) -> bool:
        """Return whether each of these rows starts with what was read, and is longer."""
        return len(rows) == len(self.rows) and all(
            len(old) < len(row) and row[: len(old)] == old for row, old in zip(rows, self.rows, strict=True)
        )

    def repeat(self, rows: int) -> None:
        """Turn a single row into several."""
        if self.rows[0]:
            self._cache.batch_repeat_interleave(rows)
        self.rows, self._mask = self.rows * rows, self._mask.repeat(rows, 1)

    def read(self, model: Any, new: list[Tokens]) -> None:
        """Read further tokens of each prompt."""
        width = max(map(len, new))
        padding = [width - len(tokens) for tokens in new]
        ids = torch.tensor([[0] * pad + tokens for pad, tokens in zip(padding, new, strict=True)], device=self._device)
        mask = (torch.arange(width, device=self._device) >= torch.tensor(padding, device=self._device)[:, None]).long()
        self.following = self._forward(model, ids, mask, 1)[:, -1]
        self.rows = [old + tokens for old, tokens in zip(self.rows, new, strict=True)]

    def score(self, model: Any, option: Tokens) -> Tensor:
        """Return the log-probability ``[R]`` of the tokens after an option's first one, without keeping them."""
        ids = torch.tensor([option[:-1]], device=self._device).expand(len(self.rows), -1)
        known, length = self._mask, len(option) - 1
        following = self._forward(model, ids, torch.ones_like(ids), length)
        self._cache.crop(-length)
        self._mask = known
        later = torch.tensor(option[1:], device=self._device)
        return following.gather(-1, later.expand(len(self.rows), -1).unsqueeze(-1)).squeeze(-1).sum(-1)

    @torch.no_grad()
    def _forward(self, model: Any, ids: Tensor, mask: Tensor, kept: int) -> Tensor:
        """Return log-probabilities after the last ``kept`` tokens, ``[R, kept, V]``."""
        self._mask = torch.cat([self._mask, mask], 1)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return logits.float().log_softmax(-1)


def _common_start(rows: Sequence[Tokens], most: int) -> int:
    """Return how many tokens all rows start with, up to ``most``."""
    length = 0
    while length < most and all(row[length] == rows[0][length] for row in rows):
        length += 1
    return length


def identity_of(model: Any) -> str:
    """Return a hash of a model's settings, and of some numbers of each parameter."""
    digest = hashlib.sha256(str(sorted(model.config.to_dict().items(), key=str)).encode())
    for name, value in model.named_parameters():
        digest.update(name.encode() + value.detach().flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_model(path: str, precision: torch.dtype) -> Any:
    """Return a causal language model; see ``_loaded``."""
    return _loaded("AutoModelForCausalLM", path, dtype=precision)


def load_tokenizer(path: str) -> Any:
    """Return the tokenizer of a model; see ``_loaded``."""
    return _loaded("AutoTokenizer", path)


def _loaded(kind: str, path: str, **options: Any) -> Any:
    """Return what a class of ``transformers`` reads.

    Raises:
        InputError: when ``transformers`` is not installed, or there is no such model.
    """
    try:
        import transformers
    except ImportError:
        raise InputError("language models need transformers: pip install 'metarl-gym[language]'") from None
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    file = Path(path).expanduser()
    place = str(file) if file.is_dir() else path
    if file.suffix == ".gguf":
        place, options["gguf_file"] = str(file.parent), file.name
        if not file.is_file():
            raise InputError(f"--model {path}: there is no such file")
    try:
        return getattr(transformers, kind).from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"--model {path} is not a causal language model: give a folder of transformers, a GGUF file or a name on "
            f"the Hugging Face hub ({reason})"
        ) from None
