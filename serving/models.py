"""The tables of the service: its tasks, their rounds of episodes, and the steps of these.

Everything a learner has learned follows from them. Numbers are kept as the bytes of their tensors, so that what is read
back is bit for bit what was there; their shapes and types follow from the spaces and the learner.
"""

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class Service(SQLModel, table=True):
    """The learner that acted in the episodes; the only row.

    Attributes:
        run: id of the run.
        checkpoint: SHA-256 of its checkpoint.
    """

    __tablename__ = "service"
    id: int = Field(default=1, primary_key=True)
    run: str
    checkpoint: str


class Task(SQLModel, table=True):
    """A task to adapt to.

    Attributes:
        created: when, in UTC, as ISO 8601.
        parameters: as JSON, if they are known.
        episodes: E episodes side by side; None for a single one, without an axis for it.
        adapt_after: complete episodes between adaptations.
        seed: of the episodes' random numbers.
    """

    __tablename__ = "task"
    id: str = Field(primary_key=True)
    created: str = Field(index=True)
    description: str
    parameters: str | None = None
    episodes: int | None = None
    adapt_after: int
    seed: int = Field(sa_type=BigInteger)


class Round(SQLModel, table=True):
    """E episodes of a task that started together.

    Attributes:
        seed: of the draws in the episodes.
        deterministic: whether actions are the policy's mode.
        recorded: whether they were recorded elsewhere.
        returns: return of each of the E episodes, as JSON; None until all have ended.
        steps: env steps of all of them; None until then.
        length: steps of the longest of them; None until then.
        adapts: whether the learner adapts after it, to all rounds since the last adaptation.
    """

    __tablename__ = "round"
    task: str = Field(foreign_key="task.id", primary_key=True)
    number: int = Field(primary_key=True)
    seed: int = Field(sa_type=BigInteger)
    deterministic: bool
    recorded: bool
    returns: str | None = None
    steps: int | None = None
    length: int | None = None
    adapts: bool = False


class Step(SQLModel, table=True):
    """A step of a round: what was observed and done, and, once it is known, what came of it.

    Shapes:
        observations: before the step, ``[E, *observation]``.
        actions: as the policy sampled them, ``[E, *action]``.
        distribution: tensors of the policy's distribution one after the other, each ``[E, ...]``; None if unknown.
        rewards: float32 ``[E]``.
        terminated: bool ``[E]``.
        truncated: bool ``[E]``.
        next_observations: after the step, ``[E, *observation]``.
    """

    __tablename__ = "step"
    task: str = Field(foreign_key="task.id", primary_key=True)
    round: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    observations: bytes
    actions: bytes
    distribution: bytes | None = None
    rewards: bytes | None = None
    terminated: bytes | None = None
    truncated: bytes | None = None
    next_observations: bytes | None = None


METADATA = SQLModel.metadata
SERVICES, TASKS, ROUNDS, STEPS = (METADATA.tables[name] for name in ("service", "task", "round", "step"))
