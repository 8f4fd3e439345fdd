"""The sweeps that are in the repository: what W&B's agent would run is a command of ours."""

import random
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from metarl.experiments.commands.train import parse_train
from metarl.run.config import TrainConfig
from metarl.run.metrics import METRICS

SWEEPS = sorted((Path(__file__).parents[2] / "experiments" / "sweeps").glob("*.yaml"))
every_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def sample(parameter: dict[str, Any], stream: random.Random) -> Any:
    """Draw a value of a parameter, as the sweep's server would."""
    if "values" in parameter:
        return stream.choice(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    if parameter["distribution"] == "log_uniform_values":
        return low * (high / low) ** stream.random()
    assert parameter["distribution"] == "uniform"
    return stream.uniform(low, high)


def command(sweep: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """Return the command line that W&B's agent makes of a sampled point."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # takes a second

    given = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
    words: list[str] = []
    for word in create_sweep_command(list(sweep["command"])):
        words += given[word[2:-1]] if word.startswith("${") else [str(word)]
    return words


def settings(config: TrainConfig) -> dict[str, Any]:
    """Return a run's options and its learner's, by the names of the command line."""
    found = {**asdict(config.run), **asdict(config.settings)}
    found |= found.pop("trust_region", {})
    return {name.replace("_", "-"): value for name, value in found.items()}


def test_sampled_points_are_commands_that_parse() -> None:
    # One test, so that only one process imports W&B's part.
    for path, seed in product(SWEEPS, range(5)):
        sweep, stream = read(path), random.Random(seed)
        point = {name: sample(parameter, stream) for name, parameter in sweep["parameters"].items()}
        program, verb, learner, family, *words = command(sweep, point)
        assert (program, verb) == ("metarl", "train")
        parsed = settings(parse_train(TrainConfig(learner, family), "metarl train", words))
        assert {name: parsed[name] for name in point} == point, path


@every_sweep
def test_a_sweep_optimises_what_validation_measures(path: Path) -> None:
    sweep = read(path)
    assert sweep["metric"] == {"name": "validation/return_after", "goal": "maximize"}
    assert sweep["metric"]["name"] in METRICS


@every_sweep
def test_a_sweep_leaves_the_directory_to_the_run(path: Path) -> None:
    # Every trial is a run of its own: name_run makes a folder of the sweep's and the trial's id.
    assert not any(word.startswith("--out") for word in read(path)["command"])
