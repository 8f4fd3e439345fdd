"""Write a tiny language model of random weights, with which the memory language-model is measured.

    python experiments/tools/tiny_language_model.py runs/tiny-language-model

It has the architecture of Llama and two layers of 64 units, and was trained on nothing.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import tyro

from metarl.experiments.commands.parsing import guarded, parse

UNITS = 64


@dataclass(frozen=True)
class ModelOptions:
    """Write a tiny language model; the same one whenever it is written."""

    folder: tyro.conf.Positional[str]
    """Folder of the model."""


def write_model(words: Sequence[str]) -> None:
    """Write the model into the folder that the words name."""
    from transformers import LlamaConfig, LlamaForCausalLM, logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    options = parse(ModelOptions, "python experiments/tools/tiny_language_model.py", words)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=UNITS,
        intermediate_size=2 * UNITS,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
    model.save_pretrained(options.folder)


if __name__ == "__main__":
    sys.exit(guarded(lambda: write_model(sys.argv[1:])))
