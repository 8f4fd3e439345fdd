"""Language models of random weights, whose tokens are bytes, and a server for them; nothing is downloaded."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

CONTEXT = 2048


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def tiny_model(seed: int = 0, layers: int = 1, kind: str = "gpt_neox") -> str:
    """Write a tiny model of random weights, which computes in the precision it is loaded in; return its folder."""
    transformers = pytest.importorskip("transformers")
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    units = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": layers, **heads}
    config = transformers.AutoConfig.for_model(kind, vocab_size=8, bos_token_id=0, eos_token_id=0, **units)
    folder = f"{_folder().name}/{kind}-{seed}-{layers}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
        for value in model.parameters():
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    return folder


def memory_settings(memory: str) -> dict[str, Any]:
    """Return the settings of a memory by its name, with a tiny model where it needs one."""
    return {"memory": memory, "model": tiny_model()} if memory == "language-model" else {"memory": memory}


def make_model(folder: Path, seed: int = 0, context: int = CONTEXT) -> str:
    """Write a tiny model and its tokenizer; return its folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = transformers.LlamaForCausalLM(config)
        for value in model.parameters():  # far from uniform probabilities
            torch.nn.init.normal_(value, std=0.1)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)
