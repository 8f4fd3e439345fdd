"""Time and memory of one task's linear baseline by the size of its observation, before and after the dual form.

    python benchmarks/linear_baseline.py

Each row is a process of its own, whose largest memory is measured above that of its imports.
"""

import json
import resource
import subprocess
import sys
import time

import torch

from metarl.baselines import RIDGE, LinearBaseline, linear_features, projected

SIZES = (64, 256, 510, 1024, 2048, 12288)
SAMPLES = (24, 400, 2000)
# Beyond this the primal form would take minutes and gigabytes.
LARGEST_PRIMAL = 2048


def primal(features: torch.Tensor, returns: torch.Tensor) -> None:
    """Solve the normal equations whatever their number, as in earlier versions."""
    inputs, targets = features.flatten(1, 2).double(), returns.flatten(1, 2).unsqueeze(-1).double()
    gram = inputs.mT @ inputs + RIDGE * torch.eye(inputs.shape[-1], dtype=inputs.dtype)
    torch.linalg.solve(gram, inputs.mT @ targets)


def measure(form: str, size: int, samples: int) -> None:
    """Print seconds and megabytes of one fit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    observations, returns = torch.rand(1, 1, samples, size), torch.rand(1, 1, samples)
    steps, valid = torch.arange(samples), torch.ones(1, 1, samples, dtype=torch.bool)
    torch.linalg.solve(torch.eye(8).double(), torch.ones(8, 1).double())
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if form == "primal":
        primal(linear_features(observations, steps), returns)
    else:
        LinearBaseline.fit(linear_features(projected(observations, samples), steps), returns, valid)
    seconds = time.process_time() - start
    print(json.dumps([seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))


def main() -> None:
    """Print the table."""
    print("| numbers of an observation | samples | primal | now |\n|---|---|---|---|")
    for size in SIZES:
        for samples in SAMPLES:
            cells = []
            for form in ("primal", "now"):
                if form == "primal" and size > LARGEST_PRIMAL:
                    cells.append("-")
                    continue
                command = [sys.executable, __file__, form, str(size), str(samples)]
                seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                cells.append(f"{seconds:.3f} s, {megabytes:.0f} MB")
            print(f"| {size} | {samples} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
