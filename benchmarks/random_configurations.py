"""Train random configurations of every learner: each must run, or end with a one-line error; print the counts.

    python benchmarks/random_configurations.py [--each 60] [--seed 0] [--learner NAME ...]

Settings are drawn from their types: about nine in ten stay at their defaults, the others take values that are sensible,
extreme or senseless. Families are small ones; a run has two iterations of two tasks.
"""

import argparse
import dataclasses
import random
import tempfile
import time
import traceback
import types
import typing
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import metarl  # noqa: F401 (registers every learner)
from metarl.errors import InputError, RunError
from metarl.learning.learner import LEARNERS
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.train import train

FAMILIES = ("bandit", "tabular-mdp", "navigation-2d", "gridnavi", "four-rooms")
REALS = (-1.0, 0.0, 1e-8, 0.01, 0.3, 0.9, 1.0, 5.0, 1e4, 1e30, float("nan"), float("inf"))
# Counts that are possible at all stay small, so that each run takes little time.
COUNTS = (-1, 0, 1, 1, 2, 3, 10**30)
# Most settings that are drawn, on average; the others keep their defaults.
DRAWN = 2.0


def draw_value(kind: Any, default: Any, stream: random.Random) -> Any:
    """Draw a value of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return draw_value(stream.choice(arguments), default, stream)
    if origin is typing.Literal:
        return stream.choice(arguments)
    if kind in (tuple, list) or origin in (tuple, list):
        return tuple(stream.choice((0, 1, 4, 8, 10**30)) for _ in range(stream.randrange(3)))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return draw_settings(kind, stream)
    choices = {bool: (False, True), int: COUNTS, float: REALS}
    return stream.choice(choices[kind]) if kind in choices else default


def draw_settings(kind: type, stream: random.Random, sensible: float = 0.9) -> Any:
    """Draw an instance of a dataclass of settings; raises ``InputError`` if the class refuses them.

    If there are many settings, a smaller share of them is drawn: otherwise nearly all configurations would be refused.
    """
    sensible = max(sensible, 1 - DRAWN / max(1, len(dataclasses.fields(kind))))
    hints = typing.get_type_hints(kind)
    chosen = {}
    for field in dataclasses.fields(kind):
        if field.name.startswith("updates"):
            chosen[field.name] = stream.choice((1, 2))
        elif stream.random() > sensible:
            chosen[field.name] = draw_value(hints[field.name], field.default, stream)
    return kind(**chosen)


def draw_run(out: Path, stream: random.Random) -> RunConfig:
    """Draw the settings of a small run."""
    return RunConfig(
        iterations=2,
        tasks_per_batch=stream.choice((1, 2, 2, 3)),
        episodes_per_task=stream.choice((1, 2, 2, 3)),
        horizon=stream.choice((1, 2, 6)),
        seed=stream.choice((0, 1, -1, 10**30)),
        validate_every=stream.choice((0, 1)),
        track="disabled",
        out=str(out),
    )


def outcome(learner: str, family: str, seed: int) -> tuple[str, str]:
    """Train one configuration; return the outcome and the message."""
    stream = random.Random(f"{learner} {family} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = draw_run(Path(folder) / "run", stream)
            settings = draw_settings(LEARNERS[learner].config_class, stream)
            train(TrainConfig(learner, family, run, settings))
        except (InputError, RunError) as error:
            kind = "refused" if isinstance(error, InputError) else "ended"
            return (kind if "\n" not in str(error) else "MANY LINES"), str(error)
        except Exception:
            return "TRACEBACK", traceback.format_exc()
    return "ran", ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learner", nargs="*", default=sorted(LEARNERS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    total: Counter[str] = Counter()
    for learner in options.learner:
        began, counts = time.perf_counter(), Counter[str]()
        for number in range(options.seed, options.seed + options.each):
            kind, said = outcome(learner, FAMILIES[number % len(FAMILIES)], number)
            counts[kind] += 1
            if kind.isupper():
                print(f"{learner}, number {number}, on {FAMILIES[number % len(FAMILIES)]}:\n{said}")
        total += counts
        print(f"{learner:<12} {dict(counts)} in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{sum(total.values())} configurations: {dict(total)}")


if __name__ == "__main__":
    main()
