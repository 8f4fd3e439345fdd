"""Detection of divergence from an iteration's metrics and from the policy that sampled it.

A diverged run is ended, because nothing that it would still learn is of use. The thresholds are far outside what
healthy runs reach; docs/divergence.md lists them.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from metarl.devices.processes import Processes
from metarl.numerics.distributions import DiagonalGaussian
from metarl.rollouts.rollout import Rollout
from metarl.run.metrics_file import MetricsRow

# Standard deviation of actions in the policy's units, geometric mean over actions and steps. Bounded actions are in
# [-1, 1]; the policy's lower limit is 1e-6.
LEAST_DEVIATION, GREATEST_DEVIATION = 2e-6, 1e4
# Mean KL divergence in nats between the adapted policies before and after an update, for learners that bound it.
GREATEST_KL = 100.0
# Consecutive iterations. Gradients of exactly 0 are normal until an episode first meets a reward, hence more of them.
REFUSED_STEPS, ZERO_GRADIENTS = 3, 50


class DivergenceCheck:
    """Looks for signs of divergence, iteration by iteration.

    Args:
        kl_metric: name of the learner's metric for the KL divergence of an update, if it bounds that.
        history: rows of earlier iterations, so that a resumed run ends where an uninterrupted one does.
    """

    def __init__(self, kl_metric: str | None, history: Sequence[MetricsRow]) -> None:
        self._kl_metric = kl_metric
        self._refused = self._zero = 0
        for row in history:
            self._count(row)

    def sign(self, row: Mapping[str, float | None], deviation: float | None) -> str | None:
        """Return the sign of divergence in an iteration, as a clause; None if there is none.

        Args:
            row: the iteration's metrics.
            deviation: the result of ``policy_deviation``.
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
    """Return the geometric mean of a Gaussian policy's standard deviations; None for other policies.

    Args:
        rollout: sampled by the policy.
        processes: those to average over.
    """
    distribution = rollout.distribution
    if not isinstance(distribution, DiagonalGaussian):
        return None
    of_steps = distribution.log_std.double().mean(-1) * rollout.valid
    total, count = processes.mean(torch.stack([of_steps.sum(), rollout.valid.sum().double()]))
    return float((total / count).exp())
