"""The first tables: the service, its tasks, their rounds of episodes, and the steps of these."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "service",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("parameters", sa.String(), nullable=True),
        sa.Column("episodes", sa.Integer(), nullable=True),
        sa.Column("adapt_after", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_task_created", "task", ["created"])
    _create_episodes()


def _create_episodes() -> None:
    op.create_table(
        "round",
        sa.Column("task", sa.String(), sa.ForeignKey("task.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("deterministic", sa.Boolean(), nullable=False),
        sa.Column("recorded", sa.Boolean(), nullable=False),
        sa.Column("returns", sa.String(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=True),
        sa.Column("length", sa.Integer(), nullable=True),
        sa.Column("adapts", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "step",
        sa.Column("task", sa.String(), sa.ForeignKey("task.id"), primary_key=True),
        sa.Column("round", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("observations", sa.LargeBinary(), nullable=False),
        sa.Column("actions", sa.LargeBinary(), nullable=False),
        sa.Column("distribution", sa.LargeBinary(), nullable=True),
        sa.Column("rewards", sa.LargeBinary(), nullable=True),
        sa.Column("terminated", sa.LargeBinary(), nullable=True),
        sa.Column("truncated", sa.LargeBinary(), nullable=True),
        sa.Column("next_observations", sa.LargeBinary(), nullable=True),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("step", "round", "task", "service"):
        op.drop_table(table)
