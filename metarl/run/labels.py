"""What a user may tell Weights & Biases about a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunLabels:
    """Where a run is logged in W&B, and what it is labelled with."""

    project: str = "metarl"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; by default the account's own."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    notes: str | None = None
    """W&B notes, a longer description."""
