"""A language model as a memory: what is read, what is trained and stored, and which models it takes."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents.in_context.memories.language_model import LanguageModelMemory
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate
from metarl.experiments.learning.recorded_comparisons import PULLING_MODEL
from metarl.experiments.tools.tiny_language_model import write_model
from metarl.families.family import make_family
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.sampling.sampler import Sampler
from metarl.training.train import resume, train
from tests.agents.in_context.memories.reading import INPUTS, STEPS, TRIALS
from tests.agents.language.models import tiny_model
from tests.runs import numbers, tiny

transformers = pytest.importorskip("transformers")


def settings(**changed: Any) -> Rl2Config:
    return Rl2Config(**{"memory": "language-model", "model": tiny_model(), "hidden_size": 8, "window": 5, **changed})


def made(path: str, window: int = 20) -> LanguageModelMemory:
    return LanguageModelMemory(INPUTS, 6, path, 2, window)


@pytest.mark.parametrize("kind", ["gpt_neox", "gemma3_text"])
def test_a_new_memory_is_the_model_itself(kind: str) -> None:
    # The model's own attention, without a cache, over vectors as long as its words.
    path = tiny_model(layers=2, kind=kind)
    network, inputs = made(path), torch.randn(TRIALS, STEPS, INPUTS)
    model = transformers.AutoModel.from_pretrained(path)
    length = model.get_input_embeddings()(torch.arange(8)).square().mean().sqrt()
    with torch.no_grad():
        words = torch.nn.functional.rms_norm(network.embed(inputs), (8,)) * length
        hidden = torch.nn.functional.rms_norm(model(inputs_embeds=words).last_hidden_state, (8,))
        torch.testing.assert_close(network(inputs, network.initial(TRIALS))[0], network.merge(hidden))


def test_an_update_moves_adapters_and_layers_of_its_own_and_stores_only_them() -> None:
    family = make_family("bandit")
    learner = Rl2(family, settings(epochs=2), 1, torch.device("cpu"))
    network: Any = learner.network
    base = {name: value.clone() for name, value in network.memory.memory._base.model.state_dict().items()}
    before = {name: value.clone() for name, value in network.named_parameters()}
    tasks, rollouts = family.sample_tasks(3, torch.Generator()), []
    for episode in range(2):
        rollouts.append(Sampler(family).collect(learner, learner.begin(3), tasks, 2, episode))
    learner.update(rollouts)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters() if value.numel())
    assert all(torch.equal(value, base[name]) for name, value in network.memory.memory._base.model.state_dict().items())
    stored = learner.state_dict()["network"]
    assert {name for name in stored if not name.endswith("_extra_state")} == before.keys()
    # A matrix of rank 8 before and after each of the four linear layers, which have 8, 24 and 8 units.
    adapters = sum(value.numel() for name, value in stored.items() if "adapters" in name)
    assert adapters == 8 * (8 + 24 + 8 + 8 + 8 + 8 + 8 + 8)


def test_a_resumed_run_gives_the_same_numbers_and_another_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.symlink_to(tiny_model())
    whole, parts = (
        replace(tiny("rl2", tmp_path / name, iterations=2, checkpoint_every=1), settings=settings(model=str(model)))
        for name in ("whole", "parts")
    )
    train(whole)
    train(replace(parts, run=replace(parts.run, iterations=1)))
    resume(tmp_path / "parts", 2)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    adapters = [RunDirectory(tmp_path / name).load_checkpoint()["learner"]["network"] for name in ("parts", "whole")]
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
    model.unlink()
    model.symlink_to(tiny_model(seed=1))
    refused = rf"^the adapters belong to another language model than {model}: its hash differs; restore it$"
    with pytest.raises(InputError, match=refused):
        resume(tmp_path / "parts", 3)


@pytest.mark.parametrize("kind", ["gpt2", "falcon"])
def test_models_without_rotary_positions_or_with_another_cache_are_refused(kind: str) -> None:
    path = tiny_model(kind=kind)
    with pytest.raises(InputError, match=rf"^--model {path} \({kind}\) cannot be a memory, which needs rotary"):
        made(path)


@pytest.mark.slow
def test_it_learns_to_pull_arms_that_gave_something(tmp_path: Path) -> None:
    # The model of docs/language.md, for a fifth of the iterations.
    write_model([str(tmp_path / "model")])
    pulling = replace(PULLING_MODEL, model=str(tmp_path / "model"), anneal_iterations=60)
    out = str(tmp_path / "run")
    run = RunConfig(60, preset="k5", tasks_per_batch=256, episodes_per_task=1, track="disabled", out=out)
    train(TrainConfig("rl2", "bandit", run, pulling))
    pulls = evaluate(out, tasks=1000).returns
    assert pulls.sum(1).mean() > 5.3  # random pulls give 5.0, with a standard error of 0.06
    assert pulls[:, 5:].mean() > pulls[:, 0].mean() + 0.04


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"needs peft: pip install 'metarl-gym\[language\]'"):
        made(tiny_model())
