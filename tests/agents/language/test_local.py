"""A model in this process: what it has read is kept, and that does not change what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.language.local import LocalModel
from metarl.agents.language.transcript import Prompt
from metarl.errors import InputError
from tests.agents.language.models import make_model

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
NAMES = [" up", " down", " stay", " u-turn"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("model"))


def plainly(model: LocalModel, text: str, names: list[str]) -> Tensor:
    """Return the names' log-probabilities after a text, each by one pass over the whole."""
    found = []
    for name in names:
        before, option = ([model._tokenizer.bos_token_id, *model._tokens(text)], model._tokens(name))
        with torch.no_grad():
            logits = model._model(input_ids=torch.tensor([before + option])).logits[0].log_softmax(-1)
        # The start that all names share has the same probability in all of them.
        found.append(sum(logits[len(before) - 1 + place, option[place]] for place in range(1, len(option))))
    return torch.stack([torch.as_tensor(each) for each in found])


def normalised(scores: Tensor) -> Tensor:
    return scores.log_softmax(-1)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_a_growing_batch_of_prompts_is_read_as_each_of_them_alone(batch: int, folder: str) -> None:
    model = LocalModel(folder, CPU, batch=batch)
    pieces: list[list[str]] = [[], [], []]
    for step in range(4):
        for number, row in enumerate(pieces):
            row += [f"{'seen ' * (1 + number * step)}\nAction:", NAMES[(number + step) % 4], f"\nReward: {step}\n"]
        prompts = [Prompt("Some rules.\n", (("Episode 1\n", *row, "Action:"),)) for row in pieces]
        found = model.log_probs(prompts, NAMES)
        expected = torch.stack([plainly(model, prompt.text, NAMES) for prompt in prompts])
        torch.testing.assert_close(normalised(found), normalised(expected), atol=1e-4, rtol=1e-4)
        assert found.softmax(-1).std() > 0.01  # they differ


def test_only_new_tokens_are_read(folder: str) -> None:
    model, rules = LocalModel(folder, CPU), "A long text that all prompts start with. "
    first, second = (Prompt(rules, ((letter, " Action:"),)) for letter in "ab")
    model.log_probs([first, second], NAMES)
    # The start once, then " Action:" and what all names start with for both.
    assert model.usage.read_tokens == 1 + len(rules) + 2 * len("a Action: ")
    before = model.usage.read_tokens
    longer = [Prompt(rules, ((each.episodes[0] + (NAMES[0], "\n Action:"),))[:1]) for each in (first, second)]
    model.log_probs(longer, NAMES)
    assert model.usage.read_tokens - before == 2 * len("up\n Action: ")
    before = model.usage.read_tokens
    model.log_probs([Prompt(rules, (("another task Action:",),))] * 3, NAMES)  # from the start that it knows
    assert model.usage.read_tokens - before <= 3 * len("another task Action: ") + len(rules) + 1


def test_a_name_that_starts_another_is_told_apart_by_its_end(folder: str) -> None:
    model, prompt = LocalModel(folder, CPU), Prompt("", (("Action:",),))
    found = model.log_probs([prompt], [" 1", " 10"])
    expected = plainly(model, prompt.text, [" 1\n", " 10\n"])
    torch.testing.assert_close(normalised(found), normalised(expected[None]), atol=1e-4, rtol=1e-4)


def test_it_writes_a_line(folder: str) -> None:
    model = LocalModel(folder, CPU)
    prompts = [Prompt("Rules. ", ((f"{letter} I think",),)) for letter in ("a", "bcd")]
    together = model.write(prompts, 6)
    assert together == [line for prompt in prompts for line in model.write([prompt], 6)]
    assert all("\n" not in line for line in together)
    assert model.usage.written_tokens > 0


def test_it_writes_as_many_tokens_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(make_model(tmp_path, context=400), CPU)
    monkeypatch.setattr(model._tokenizer, "decode", lambda *_, **__: "a word")  # no line ends
    model.write([Prompt("Rules. ", (("I think",),))], 150)
    assert model.usage.written_tokens == 150
    with pytest.raises(InputError, match="context has no room for 400 tokens; use a smaller --reflection-tokens"):
        model.write([Prompt("Rules. ", (("I think",),))], 400)


def test_the_oldest_episodes_leave_a_context_that_is_full(tmp_path: Path) -> None:
    model = LocalModel(make_model(tmp_path, context=128 + 60), CPU)
    episodes = tuple((f"{number}" * 20, "\nAction:") for number in range(6))
    whole, kept = Prompt("Rules.", episodes), Prompt("Rules.", episodes[-1:])
    assert torch.equal(model.log_probs([whole], NAMES), LocalModel(str(tmp_path), CPU).log_probs([kept], NAMES))
    assert kept.kept(len, 0) == ["Rules.", *episodes[-1]]


def test_another_model_has_another_identity(folder: str, tmp_path: Path) -> None:
    own, same = LocalModel(folder, CPU), LocalModel(folder, CPU)
    assert own.identity == same.identity != LocalModel(make_model(tmp_path, seed=1), CPU).identity


def bad_models(folder: Path) -> list[Any]:
    (folder / "empty").mkdir()
    (folder / "text.gguf").write_text("no model")
    return [folder / "empty", folder / "text.gguf", folder / "nothing.gguf"]


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for path in bad_models(tmp_path):
        with pytest.raises(InputError, match=rf"^--model {path}") as refusal:
            LocalModel(str(path), CPU)
        assert "\n" not in str(refusal.value)
