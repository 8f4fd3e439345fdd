"""The measures of Continual World (Wołczyk et al. 2021, section 3), with intervals over seeds and tasks.

p_j(i) is the performance in task j after tasks 0 to i have been learned, of K. Continual World's p is a success rate;
here it is the return, or the return normalised by the family's references, where it has them.
"""

from collections.abc import Callable

import numpy as np

from metarl.experiments.continual.performance import Performance
from metarl.numerics.statistics import Interval, Scores, interval, mean

AVERAGE, FORGETTING, BACKWARD, FORWARD = "average performance", "forgetting", "backward transfer", "forward transfer"


def forgotten(matrix: Scores) -> Scores:
    """Return p_j(j) - p_j(K - 1), ``[S, K]``: what was lost of each task since it was learned.

    Args:
        matrix: ``[S, K, K]``, as in ``Performance``.
    """
    lost: Scores = np.diagonal(matrix, axis1=1, axis2=2) - matrix[:, -1]
    return lost


def transfer(normalized: bool) -> Callable[[Scores, Scores], Scores]:
    """Return the statistic of forward transfer: how much earlier tasks speed up the learning of a new one.

    With areas a under the curves of learning and b of learning from scratch, it is (a - b) / (1 - b), as 1 is the best
    possible performance. The references of a family are means over tasks, and so are a and b here; Continual World
    takes the ratio for each task, and then the mean. If returns are not normalised, it is a - b.
    """

    def statistic(areas: Scores, from_scratch: Scores) -> Scores:
        gain: Scores = mean(areas) - mean(from_scratch)
        return gain / (1 - mean(from_scratch)) if normalized else gain

    return statistic


def measures(learned: Performance, from_scratch: Performance, normalized: bool) -> dict[str, Interval]:
    """Return all measures of a method.

    Forgetting is the mean of ``forgotten`` over all tasks. Backward transfer is minus its mean over all but the last
    task, which has none after it (Lopez-Paz and Ranzato 2017).
    """
    assert learned.matrix is not None
    lost = forgotten(learned.matrix)
    return {
        AVERAGE: interval(mean, learned.matrix[:, -1]),
        FORGETTING: interval(mean, lost),
        BACKWARD: interval(mean, -lost[:, :-1]),
        FORWARD: interval(transfer(normalized), learned.areas, from_scratch.areas),
    }
