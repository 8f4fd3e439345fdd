"""Reference returns of families: without adaptation, and with full knowledge of the task."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from metarl.errors import InputError
from metarl.numerics.statistics import Scores, normalize


@dataclass(frozen=True)
class Reference:
    """Reference returns of a family's preset: mean undiscounted episode returns over its tasks.

    An episode of a bandit is one pull, so a published total of n pulls is divided by n here, and likewise the tabular
    MDP's total of n episodes.

    Attributes:
        horizon: horizon of the episodes; the returns hold only for this one.
        no_adaptation: the highest return of a policy that treats all tasks alike.
        full_knowledge: the return of a policy that knows the task; None if unknown.
        source: source of both values.
    """

    horizon: int
    no_adaptation: float
    full_knowledge: float | None
    source: str

    @property
    def lines(self) -> dict[str, float]:
        """The known values by name."""
        known = {"no adaptation": self.no_adaptation, "full knowledge": self.full_knowledge}
        return {label: value for label, value in known.items() if value is not None}

    def normalize(self, returns: ArrayLike) -> Scores:
        """Normalise returns so that no adaptation is 0 and full knowledge is 1; see ``statistics.normalize``.

        Raises:
            InputError: if the return with full knowledge is unknown.
        """
        if self.full_knowledge is None:
            raise InputError(
                "returns are normalised by the return with full knowledge, which is unknown for this preset"
            )
        return normalize(returns, self.no_adaptation, self.full_knowledge)
