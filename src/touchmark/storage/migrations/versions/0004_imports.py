"""How far the import of a waiting version is, and which of its files are here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the tables, and what an import waits for."""
    op.add_column("import_leases", sa.Column("trouble", sa.Text(), nullable=True))
    op.create_table(
        "import_progress",
        sa.Column("version_id", ID, autoincrement=False, nullable=False),
        sa.Column("listed_at", sa.BigInteger(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_files", sa.BigInteger(), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), nullable=False),
        sa.Column("done_files", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.version_id"], name=op.f("fk_import_progress_version_id")),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_import_progress")),
    )
    op.create_table(
        "import_files",
        sa.Column("version_id", ID, autoincrement=False, nullable=False),
        sa.Column("path", KEY, nullable=False),
        sa.Column("digest", KEY, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mark", KEY, nullable=True),
        sa.ForeignKeyConstraint(["version_id"], ["versions.version_id"], name=op.f("fk_import_files_version_id")),
        sa.PrimaryKeyConstraint("version_id", "path", name=op.f("pk_import_files")),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("import_files")
    op.drop_table("import_progress")
    op.drop_column("import_leases", "trouble")
