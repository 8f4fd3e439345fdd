import dataclasses
import math
from pathlib import Path

import pytest
import torch

from metarl.distributions import DiagonalGaussian
from metarl.divergence import REFUSED_STEPS, ZERO_GRADIENTS, DivergenceCheck, policy_deviation
from metarl.errors import RunError
from metarl.processes import ONE_PROCESS
from metarl.run_directory import RunDirectory
from metarl.training import train
from tests.fakes import made_up_rollout
from tests.runs import small

HEALTHY = {"iteration": 0, "gradient_norm": 0.5, "accepted": 1.0, "kl": 0.01, "validation/gain": None}


@pytest.mark.parametrize(
    ("changes", "deviation", "sign"),
    [
        ({}, 1.0, None),
        ({}, None, None),
        ({"value_loss": math.inf}, 1.0, "value_loss is inf"),
        ({"return_after": math.nan}, 1.0, "return_after is nan"),
        ({}, 1e-6, "the policy's standard deviation has collapsed to 1e-06"),
        ({}, 1e5, "the policy's standard deviation has exploded to 1e+05"),
        ({}, math.nan, "the policy's standard deviation has exploded to nan"),
        ({"kl": 1e3}, 1.0, "the policy moved by a KL divergence of 1e+03 nats in one update"),
    ],
    ids=str,
)
def test_signs_of_one_iteration(changes: dict[str, float], deviation: float | None, sign: str | None) -> None:
    assert DivergenceCheck("kl", []).sign({**HEALTHY, **changes}, deviation) == sign


def test_a_kl_that_is_no_updates_is_not_bounded() -> None:
    assert DivergenceCheck(None, []).sign({**HEALTHY, "kl": 1e3}, 1.0) is None


@pytest.mark.parametrize(
    ("changes", "count"),
    [({"accepted": 0.0}, REFUSED_STEPS), ({"gradient_norm": 0.0, "accepted": 0.0}, ZERO_GRADIENTS)],
)
def test_signs_of_several_iterations_survive_a_resume(changes: dict[str, float], count: int) -> None:
    bad = {**HEALTHY, **changes}
    straight = DivergenceCheck("kl", [])
    assert [straight.sign(bad, 1.0) is None for _ in range(count)] == [True] * (count - 1) + [False]
    assert DivergenceCheck("kl", [bad] * (count - 1)).sign(bad, 1.0) is not None
    assert DivergenceCheck("kl", [bad] * (count - 1) + [HEALTHY]).sign(bad, 1.0) is None


def test_the_deviation_is_a_geometric_mean() -> None:
    rollout = made_up_rollout()
    log_std = torch.tensor([1.0, 3.0]).expand(*rollout.rewards.shape, 2)
    changed = dataclasses.replace(rollout, distribution=DiagonalGaussian(torch.zeros_like(log_std), log_std))
    assert policy_deviation(changed, ONE_PROCESS) == pytest.approx(math.exp(2))


def test_a_diverged_run_ends_with_its_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = iter([None, None, "the loss is infinite"])
    monkeypatch.setattr(DivergenceCheck, "sign", lambda *_: next(signs))
    with pytest.raises(RunError, match=r"diverged in iteration 2: the loss is inf.* the checkpoint of iteration 2"):
        train(small(tmp_path / "run", checkpoint_every=1))
    assert [row["diverged"] for row in RunDirectory(tmp_path / "run").read_metrics()] == [0.0, 0.0, 1.0]
