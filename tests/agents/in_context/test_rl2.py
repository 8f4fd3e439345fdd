import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import metarl
from metarl.agents.in_context.memories.external import ExternalMemory
from metarl.agents.in_context.memories.gru import Gru
from metarl.agents.in_context.memories.language_model import LanguageModelMemory
from metarl.agents.in_context.memories.lstm import Lstm
from metarl.agents.in_context.memories.memory import MEMORIES, TransitionReader
from metarl.agents.in_context.memories.min_gru import MinGru
from metarl.agents.in_context.memories.set import Set
from metarl.agents.in_context.memories.splagger import SplAgger
from metarl.agents.in_context.memories.transformer import Transformer
from metarl.agents.in_context.rl2 import LinearActorCritic, Rl2, Rl2Config
from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.commands.main import main
from metarl.families.family import make_family
from metarl.numerics.distributions import Categorical, DiagonalGaussian
from metarl.run.directory import RunDirectory
from tests.agents.language.models import memory_settings

CPU = torch.device("cpu")
KINDS = ("gru", "lstm", "min-gru", "transformer", "external", "set", "splagger", "language-model")
every_memory = pytest.mark.parametrize("memory", KINDS)


def network_of(memory: str, family: str = "gridnavi", **settings: Any) -> LinearActorCritic:
    learner = Rl2(make_family(family), Rl2Config(**memory_settings(memory), **settings), 1, CPU)
    assert isinstance(learner.network, LinearActorCritic)
    return learner.network


def test_every_kind_of_memory_can_be_made() -> None:
    assert set(MEMORIES) == set(KINDS)
    made = [type(network_of(kind, previous_step="no").memory) for kind in KINDS]
    assert made == [Gru, Lstm, MinGru, Transformer, ExternalMemory, Set, SplAgger, LanguageModelMemory]
    assert isinstance(network_of("transformer").memory, TransitionReader)


def test_a_memory_takes_its_settings() -> None:
    assert network_of("gru", hidden_size=12).memory.size == 12
    slots = network_of("external", hidden_size=12, slots=3, slot_size=7)
    assert slots.memory.size == 19
    assert slots.initial(2)["slots"].shape == (2, 3, 7)
    attending = network_of("transformer", hidden_size=12, layers=3, heads=2, window=9)
    assert attending.memory.size == 12
    remembered = attending.initial(2)
    assert remembered.pop("steps").shape == (2,)
    assert remembered.pop("previous").shape == (2, 9)  # cell, last of five actions, last reward, start
    rings = {name: tuple(value.shape) for name, value in remembered.items()}
    assert rings == {f"{ring}_{layer}": (2, 2, 9, 6) for layer in range(3) for ring in ("keys", "values")}


@every_memory
def test_a_new_policy_is_near_uniform_and_a_new_critic_near_nothing(memory: str) -> None:
    network = network_of(memory)
    distribution, values, _ = network(torch.randn(4, 6, 9), network.initial(4))
    assert isinstance(distribution, Categorical)
    assert distribution.logits.shape == (4, 6, 5)
    torch.testing.assert_close(distribution.logits.softmax(-1), torch.full((4, 6, 5), 0.2), rtol=0, atol=0.02)
    assert values.shape == (4, 6)


@every_memory
def test_bounded_actions_have_gaussians_of_one_deviation(memory: str) -> None:
    network = network_of(memory, "navigation-2d")
    distribution, _, _ = network(torch.randn(4, 6, 6), network.initial(4))
    assert isinstance(distribution, DiagonalGaussian)
    assert distribution.mean.shape == distribution.log_std.shape == (4, 6, 2)
    assert not distribution.log_std.any()
    assert network.head.log_std.requires_grad


@pytest.mark.parametrize(("layers", "sees"), [((), False), ((5,), True)], ids=["linear", "hidden layer"])
def test_hidden_layers_read_the_observation_beside_the_memory(layers: tuple[int, ...], sees: bool) -> None:
    learner = Rl2(
        make_family("gridnavi"), Rl2Config(policy_sizes=layers, activation="relu" if sees else "auto"), 1, CPU
    )
    network: Any = learner.network
    for parameter in network.memory.parameters():
        torch.nn.init.zeros_(parameter)  # its outputs are then zeros, whatever it reads
    inputs = torch.zeros(2, 1, 9)
    inputs[1, 0, :2] = 3.0
    distribution, values, _ = network(inputs, network.initial(2))
    assert bool((distribution.logits[0] != distribution.logits[1]).any()) is sees
    assert bool(values[0] != values[1]) is sees
    inputs[:, 0, :2] = 1.0
    inputs[1, 0, 2:] = 3.0  # action, reward and start are for the memory
    same, _, _ = network(inputs, network.initial(2))
    assert torch.equal(same.logits[0], same.logits[1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"memory": "transfomer"},
            r"no memory is called 'transfomer'; did you mean transformer\? \(docs/rl2.md lists them\)",
        ),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"policy_sizes": (8, 0)}, r"policy_sizes: every hidden layer needs at least one unit, not \[8, 0\]"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"slots": 0}, "slots must be at least 1, not 0"),
        ({"slot_size": 0}, "slot_size must be at least 1, not 0"),
        (
            {"memory": "transformer", "hidden_size": 60},
            r"the memory transformer's size .* must be a multiple of 2 \* heads = 8, not 60",
        ),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        Rl2Config(**bad)


def test_other_memories_do_not_mind_the_transformers_heads() -> None:
    assert Rl2Config(hidden_size=60).hidden_size == 60


@every_memory
def test_it_trains_and_is_evaluated_from_the_command_line(memory: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    given = {**memory_settings(memory), "hidden-size": 8, "episodes-per-trial": 3, "episodes-per-task": 3}
    run_of = {"iterations": 2, "tasks-per-batch": 2, "track": "disabled", "out": run}
    assert main(["train", "rl2", "bandit", *(f"--{name}={value}" for name, value in (given | run_of).items())]) == 0
    assert RunDirectory(run).read_config()["settings"]["memory"] == memory
    # A trial of three pulls: three columns, each after one more.
    curve = evaluate(run, tasks=4)
    assert curve.returns.shape == (4, 3)
    assert curve.env_steps.tolist() == [0, 1, 2]


OWN_MEMORY = """
import torch
from metarl.agents.in_context.memories.memory import MemoryNetwork, register_memory

@register_memory
class Sums(MemoryNetwork):
    name = "sums"

    def __init__(self, inputs, size):
        super().__init__()
        self.size, self.embed = size, torch.nn.Linear(inputs, size)

    @classmethod
    def make(cls, config, inputs, size):
        return cls(inputs, size)

    def initial(self, trials):
        return {"sum": self.embed.weight.new_zeros(trials, self.size)}

    def forward(self, inputs, memory, lengths=None):
        outputs = memory["sum"].unsqueeze(1) + self.embed(inputs).cumsum(1)
        last = outputs[:, -1] if lengths is None else outputs[torch.arange(len(lengths)), lengths - 1]
        return outputs, {"sum": last}
"""


@pytest.mark.parametrize("learner", ["rl2", "hyper-rl2", "varibad"])
def test_a_memory_of_ones_own_trains_and_is_found_again(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_memories.py").write_text(OWN_MEMORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = str(tmp_path / "run")
    words = "--memory own_memories:sums --iterations 1 --tasks-per-batch 2 --episodes-per-task 4 --track disabled"
    try:
        assert main(["train", learner, "bandit", *words.split(), "--out", run]) == 0
        # Another process knows nothing of it but what config.json says.
        del MEMORIES["sums"], sys.modules["own_memories"]
        assert evaluate(run, tasks=2).returns.shape == (2, 2)
    finally:
        MEMORIES.pop("sums", None)
        sys.modules.pop("own_memories", None)


@pytest.mark.slow
@pytest.mark.parametrize("memory", KINDS[:-1])  # a language model of 8 units cannot; one of 64 learns a bandit
def test_later_episodes_of_a_trial_are_better_on_gridnavi(memory: str, tmp_path: Path) -> None:
    config = metarl.TrainConfig(
        "rl2",
        "gridnavi",
        metarl.RunConfig(
            iterations=80, tasks_per_batch=16, episodes_per_task=16, track="disabled", out=str(tmp_path / "run")
        ),
        Rl2Config(memory=memory, episodes_per_trial=4, discount=0.95, window=64),
    )
    metarl.train(config)
    means = evaluate(str(tmp_path / "run")).returns.mean(0)
    assert means[-1] > means[0] + 2
