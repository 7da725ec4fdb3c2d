"""How far an upload session is, what a manifest speaks of, and an index by which outworn Idempotency-Keys are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEY = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the columns and the indexes."""
    op.add_column("uploads", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("manifests", sa.Column("subject", KEY, nullable=True))
    op.create_index("ix_manifests_subject", "manifests", ["subject"], unique=False)
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
