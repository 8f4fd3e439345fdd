"""MAML, Reptile and five metric-based methods on few-shot regression and classification.

    python experiments/tools/few_shot.py
    python experiments/tools/few_shot.py --problems sinusoids --methods maml prototypical --seeds 1

Trains each method on each problem with each seed, tests it on tasks that it has not seen, and prints a table. With
``--write`` it goes into experiments/results/few-shot.json and docs/few-shot.md; a test holds the page to the file.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from metarl.agents.in_context.task_metrics import METRICS
from metarl.errors import InputError
from metarl.experiments.commands.parsing import guarded, parse
from metarl.experiments.few_shot.by_gradient import GradientSettings, Predict, maml, reptile
from metarl.experiments.few_shot.by_metric import SIZE, classifier, regressor
from metarl.experiments.few_shot.problems import PROBLEMS, Characters, Sinusoids
from metarl.networks.activations import tanh
from metarl.numerics.statistics import interval, mean
from metarl.seeding import derive_seed, generator
from metarl.storage.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / "docs" / "few-shot.md", ROOT / "experiments" / "results" / "few-shot.json"
MARKERS = re.compile(r"(<!-- few-shot -->\n).*?(<!-- /few-shot -->)", re.DOTALL)
COMMAND = "python experiments/tools/few_shot.py --write"
TEST_TASKS = 200

BY_GRADIENT = {"maml": maml, "reptile": reptile}
SETTINGS = {
    ("maml", "sinusoids"): GradientSettings(inner_lr=0.01, inner_steps=1, outer_lr=3e-3, iterations=6000),
    ("reptile", "sinusoids"): GradientSettings(
        inner_lr=0.02, inner_steps=32, outer_lr=1.0, iterations=3000, units=64, activation=tanh, minibatch=5
    ),
    ("maml", "characters"): GradientSettings(inner_lr=0.4, inner_steps=1, outer_lr=3e-3, iterations=400),
    ("reptile", "characters"): GradientSettings(inner_lr=0.5, inner_steps=5, outer_lr=1.0, iterations=200),
}
METRIC_ITERATIONS = {"sinusoids": 400, "characters": 400}
Method = Literal["maml", "reptile", "siamese", "prototypical", "matching", "relation", "contrastive"]
ProblemName = Literal["sinusoids", "characters"]
# Errors or accuracies of the test tasks, by method, problem and seed.
Scores = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class Options:
    """Compare few-shot methods."""

    methods: tuple[Method, ...] = get_args(Method)
    """Which methods."""
    problems: tuple[ProblemName, ...] = get_args(ProblemName)
    """On which problems."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Training runs of each."""
    write: bool = False
    """Write the results file and the manual's table."""

    def __post_init__(self) -> None:
        if not (self.methods and self.problems and self.seeds):
            raise InputError("--methods, --problems and --seeds need at least one value each")


def trained(method: str, problem: str, seed: int) -> Predict:
    """Return a trained method's function that predicts queries; the numbers depend only on the seed."""
    stream = generator(seed, "few-shot", method, problem)
    task_problem = PROBLEMS[problem]
    if method in BY_GRADIENT:
        return BY_GRADIENT[method](task_problem, SETTINGS[method, problem], stream)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "few-shot networks", method, problem) % 2**63)
        metric, iterations = METRICS[method](SIZE), METRIC_ITERATIONS[problem]
        if isinstance(task_problem, Sinusoids):
            return regressor(task_problem, metric, iterations, stream)
        assert isinstance(task_problem, Characters)
        return classifier(task_problem, metric, iterations, stream)


def measured(method: str, problem: str, seed: int) -> list[float]:
    """Train a method, and return its score on each of the test tasks, which are the same for all methods and seeds."""
    tasks = PROBLEMS[problem].draw(TEST_TASKS, generator(0, "few-shot test"), held_out=True)
    scores = PROBLEMS[problem].score(trained(method, problem, seed)(tasks), tasks.truth)
    return [float(f"{score:.4g}") for score in scores.tolist()]


def table(scores: Scores) -> str:
    """Return a Markdown table: each method's mean over tasks and seeds, with its 95 % interval, and each seed's."""
    heads = [f"{name}, {PROBLEMS[name].unit}" for name in next(iter(scores.values()))]
    lines = ["| method |" + "".join(f" {head} | of each seed |" for head in heads)]
    lines.append("|---|" + 2 * len(heads) * "---|")
    for method, by_problem in scores.items():
        cells = [method]
        for by_seed in by_problem.values():
            matrix = np.array(list(by_seed.values()))
            found = interval(mean, matrix) if len(matrix) > 1 else interval(mean, matrix, over="tasks")
            estimate, low, high = (value.item() for value in found)
            cells.append(f"{estimate:.3f} [{low:.3f}, {high:.3f}]")
            cells.append(", ".join(f"{value:.3f}" for value in matrix.mean(1)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fill_page(page: str, scores: Scores | None) -> str:
    """Return a page with the table between its marks, or with the command that makes it if there are no results."""
    text = f"No results are committed; `{COMMAND}` makes them." if scores is None else table(scores)
    return MARKERS.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def committed(results: Path) -> Scores | None:
    """Return the content of a results file, or None if there is none."""
    return json.loads(results.read_text()) if results.exists() else None


def run(options: Options) -> None:
    """Train, test and print."""
    torch.set_num_threads(1)
    scores: Scores = {method: {problem: {} for problem in options.problems} for method in options.methods}
    for method in options.methods:
        start = time.process_time()
        for problem in options.problems:
            for seed in options.seeds:
                scores[method][problem][str(seed)] = measured(method, problem, seed)
        print(f"{method}: {time.process_time() - start:.1f} CPU seconds", file=sys.stderr)
    print(table(scores))
    if options.write:
        write_whole(RESULTS, lambda part: part.write_text(json.dumps(scores) + "\n"))
        page = fill_page(PAGE.read_text(), scores)
        write_whole(PAGE, lambda part: part.write_text(page))


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/tools/few_shot.py", sys.argv[1:]))))
