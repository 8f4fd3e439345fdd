import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.agents.baselines.sb3.algorithms import SacConfig
from metarl.agents.in_context.pearl import PearlConfig
from metarl.devices.processes import ONE_PROCESS
from metarl.envs.basic.navigation import Navigation2D
from metarl.errors import RunError
from metarl.evaluation.evaluate import evaluate
from metarl.families.family import Transition
from metarl.numerics.distributions import DiagonalGaussian, SquashedGaussian
from metarl.run.config import RunConfig, TrainConfig
from metarl.run.directory import RunDirectory
from metarl.training.divergence import REFUSED_STEPS, ZERO_GRADIENTS, DivergenceCheck, policy_deviation
from metarl.training.train import train
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


@pytest.mark.parametrize("kind", [DiagonalGaussian, SquashedGaussian])
def test_the_deviation_is_a_geometric_mean(kind: type[DiagonalGaussian]) -> None:
    rollout = made_up_rollout()
    log_std = torch.tensor([1.0, 3.0]).expand(*rollout.rewards.shape, 2)
    changed = dataclasses.replace(rollout, distribution=kind(torch.zeros_like(log_std), log_std))
    assert policy_deviation(changed, ONE_PROCESS) == pytest.approx(math.exp(2))


def test_steps_after_an_end_do_not_count() -> None:
    rollout = made_up_rollout()
    valid = torch.zeros_like(rollout.valid)
    valid[..., :2] = True
    log_std = torch.where(valid, 5.0, 0.0).unsqueeze(-1)
    padded = DiagonalGaussian(torch.zeros_like(log_std), log_std)
    changed = dataclasses.replace(rollout, distribution=padded, valid=valid)
    assert policy_deviation(changed, ONE_PROCESS) == pytest.approx(math.exp(5))


def test_a_diverged_run_ends_with_its_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = iter([None, None, "the loss is infinite"])
    monkeypatch.setattr(DivergenceCheck, "sign", lambda *_: next(signs))
    with pytest.raises(RunError, match=r"diverged in iteration 2: the loss is inf.* the checkpoint of iteration 2"):
        train(small(tmp_path / "run", checkpoint_every=1))
    assert [row["diverged"] for row in RunDirectory(tmp_path / "run").read_metrics()] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("learner", ["sac", "pearl"])
def test_learners_from_replay_end_at_infinite_returns_and_keep_a_checkpoint(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, steps = Navigation2D.outcome, iter(range(10**6))

    def exploding(family: Navigation2D, offsets: torch.Tensor) -> Transition:
        outcome = plain(family, offsets)
        return outcome._replace(rewards=outcome.rewards * (1.0 if next(steps) < 30 else 3e38))

    monkeypatch.setattr(Navigation2D, "outcome", exploding)
    run = RunConfig(20, out=str(tmp_path), track="disabled", tasks_per_batch=2, episodes_per_task=2, horizon=5)
    settings = {"pearl": PearlConfig(hidden_sizes=(8,), updates_per_iteration=2), "sac": SacConfig()}[learner]
    run = dataclasses.replace(run, checkpoint_every=1)
    with pytest.raises(
        RunError, match=r"iteration \d+: .*(inf|NaN).* up to the checkpoint of iteration [1-9]"
    ) as caught:
        train(TrainConfig(learner, "navigation-2d", run, settings))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Navigation2D, "outcome", plain)
    assert np.isfinite(evaluate(tmp_path, 2).returns).all()
