"""Time and memory of one task's linear baseline by the size of its observation, before and after the dual form.

    python benchmarks/linear_baseline.py

Each row is a process of its own, whose peak memory is measured above that of its imports.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from metarl.learning.baselines import RIDGE, LinearBaseline, linear_features, projected

RESULTS = Path(__file__).parent / "results" / "linear_baseline.json"
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
    """Measure, write, print."""
    rows = []
    for size in SIZES:
        for samples in SAMPLES:
            row: dict[str, Any] = {"size": size, "samples": samples}
            for form in ("primal", "now"):
                if form == "now" or size <= LARGEST_PRIMAL:
                    command = [sys.executable, __file__, form, str(size), str(samples)]
                    row[form] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            rows.append(row)
    RESULTS.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(table())


def table(path: Path = RESULTS) -> str:
    """Return what was measured as a Markdown table."""
    lines = ["| entries of an observation | samples | primal | now |", "|---|---|---|---|"]
    for row in json.loads(path.read_text())["rows"]:
        cells = [f"{row[form][0]:.3f} s, {row[form][1]:.0f} MB" if form in row else "-" for form in ("primal", "now")]
        lines.append(f"| {row['size']} | {row['samples']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
