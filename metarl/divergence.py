"""When a training has diverged: signs of it in an iteration's metrics and in the policy that sampled it.

A diverged run is ended, because whatever it goes on to learn from is no longer a policy that anybody set up. The signs
are gross ones, so that no healthy run is ended; docs/divergence.md lists them.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from metarl.distributions import DiagonalGaussian
from metarl.metrics_file import MetricsRow
from metarl.processes import Processes
from metarl.rollout import Rollout

# Standard deviation of actions in units of the policy, geometric mean over actions and steps. Bounded actions have the
# range [-1, 1]; the policy cannot go below 1e-6.
LEAST_DEVIATION, GREATEST_DEVIATION = 2e-6, 1e4
# Mean KL divergence in nats of the adapted policies after an update from those before, of any learner that bounds it.
GREATEST_KL = 100.0
# Iterations in a row. Gradients of exactly 0 are usual while no episode has met a reward, so more of them are needed.
REFUSED_STEPS, ZERO_GRADIENTS = 3, 50


class DivergenceCheck:
    """Looks for signs of divergence, iteration by iteration.

    Args:
        kl_metric: the learner's metric that is the KL divergence of an update, if it bounds that.
        history: rows of the iterations before, so that a resumed run ends where an uninterrupted one does.
    """

    def __init__(self, kl_metric: str | None, history: Sequence[MetricsRow]) -> None:
        self._kl_metric = kl_metric
        self._refused = self._zero = 0
        for row in history:
            self._count(row)

    def sign(self, row: Mapping[str, float | None], deviation: float | None) -> str | None:
        """Return what is wrong in an iteration, as the end of a sentence; None where nothing is.

        Args:
            row: the iteration's metrics.
            deviation: what ``policy_deviation`` returned.
        """
        self._count(row)
        broken = [f"{name} is {value}" for name, value in row.items() if value is not None and not math.isfinite(value)]
        if broken:
            return broken[0]
        if deviation is not None and not LEAST_DEVIATION <= deviation <= GREATEST_DEVIATION:
            what = "collapsed" if deviation < LEAST_DEVIATION else "exploded"
            return f"the policy's standard deviation has {what} to {deviation:.2g}"
        kl = row.get(self._kl_metric) if self._kl_metric else None
        if kl is not None and kl > GREATEST_KL:
            return f"the policy moved by a KL divergence of {kl:.3g} nats in one update"
        if self._refused >= REFUSED_STEPS:
            return f"{self._refused} updates in a row were refused"
        if self._zero >= ZERO_GRADIENTS:
            return f"the gradient was exactly 0 in {self._zero} updates in a row"
        return None

    def _count(self, row: Mapping[str, float | None]) -> None:
        zero = row.get("gradient_norm") == 0
        self._zero = self._zero + 1 if zero else 0
        self._refused = self._refused + 1 if row.get("accepted") == 0 and not zero else 0


def policy_deviation(rollout: Rollout, processes: Processes) -> float | None:
    """Return the geometric mean of a Gaussian policy's standard deviations; None for another policy.

    Args:
        rollout: that it sampled.
        processes: those that train, whose mean it is.
    """
    distribution = rollout.distribution
    if not isinstance(distribution, DiagonalGaussian):
        return None
    mean: torch.Tensor = processes.mean(distribution.log_std.double().mean())
    return mean.exp().item()
