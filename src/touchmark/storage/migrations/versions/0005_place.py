"""Where a registry's files are, so that every home on one database means the same place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KEY = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the column; the next start fills it."""
    op.add_column("log_head", sa.Column("place", KEY, nullable=True))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("log_head", "place")
