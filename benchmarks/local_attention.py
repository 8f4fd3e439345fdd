"""Cost of reading a long trial with a transformer: local attention compared with a dense mask over all steps.

    python benchmarks/local_attention.py

A transformer of two blocks (64 units, 4 heads, window 128) reads four trials of L steps from their beginning, and the
gradient with respect to its parameters is computed. "local" is the network as it is; "masked" does the same with one
call of attention for the whole sequence, whose mask has L x L entries. They alternate, each round in a new process,
which also measures by how many MB its peak memory grew. Medians are printed: of CPU seconds on one thread, and of the
memory. "difference" is the largest one between their outputs.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from metarl.agents.in_context.memories import transformer
from metarl.agents.in_context.memories.transformer import Transformer
from metarl.devices.runtime import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "local_attention.json"
TRIALS, INPUTS, SIZE, LAYERS, HEADS = 4, 9, 64, 2, 4


class MaskedSequence(transformer._Sequence):
    """All steps of trials from their beginning, with a dense mask."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Return the attention's outputs, and both ring buffers after the steps."""
        found = scaled_dot_product_attention(query, key, value, self.reached(self.length, 0))
        return found, self.write(keys, key), self.write(values, value)


def read(kind: type[transformer._Sequence], length: int, window: int) -> tuple[Tensor, float]:
    """Return the outputs, and the seconds for them and the gradient."""
    torch.manual_seed(0)
    network, inputs = Transformer(INPUTS, SIZE, LAYERS, HEADS, window), torch.randn(TRIALS, length, INPUTS)
    with patch.object(transformer, "_Sequence", kind):
        began = time.process_time()
        outputs, _ = network(inputs, network.initial(TRIALS))
        torch.autograd.grad(outputs.square().sum(), list(network.parameters()))
        return outputs.detach(), time.process_time() - began


def measured(kind: type[transformer._Sequence], length: int, window: int) -> tuple[float, float]:
    """Return the seconds and MB of reading a trial."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, seconds = read(kind, length, window)
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[250, 1000, 4000], help="of a trial")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(*options.steps, options.window, options.rounds) < 1:
        parser.error("--steps, --window and --rounds must be at least 1")
    keep_freed_memory()
    torch.set_num_threads(1)
    kinds = {"local": transformer._Sequence, "masked": MaskedSequence}
    rows = []
    for length in options.steps:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in range(options.rounds):
            for name, kind in kinds.items():
                with multiprocessing.get_context("fork").Pool(1) as process:
                    found[name].append(process.apply(measured, (kind, length, options.window)))
        row: dict[str, float] = {"steps": length}
        for name, each in found.items():
            seconds, memory = (statistics.median(column) for column in zip(*each, strict=True))
            row |= {f"{name}, s": seconds, f"{name}, MB": memory}
        rows.append(row)
    for row in rows:
        one, other = (read(kind, int(row["steps"]), options.window)[0] for kind in kinds.values())
        row["difference"] = float((one - other).abs().max())
    print("".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>14.4g}" for value in row.values()))
    content = {"window": options.window, "rounds": options.rounds, "rows": rows}
    options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
