"""What MLflow's door needs: indexes for its searches, webhooks, uploads in parts, models of runs, leases of imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SHORT = sa.String(500, collation="C").with_variant(sa.String(500), "sqlite")


def upgrade() -> None:
    """Add the tables, the column and the index."""
    op.create_index(
        "ix_versions_model_id_stage_number",
        "versions",
        ["model_id", "stage", "number"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("ix_runs_started_at", "runs", ["started_at", "run_id"], unique=False)
    op.create_index(
        "ix_logged_models_experiment_id_name",
        "logged_models",
        ["experiment_id", "name", "created_at", "model_id"],
        unique=False,
    )
    op.create_index("ix_logged_models_created_at", "logged_models", ["created_at", "model_id"], unique=False)
    op.add_column("run_datasets", sa.Column("tags", sa.Text(), nullable=True))
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", KEY, nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", KEY, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_created_at", "webhooks", ["created_at", "webhook_id"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("upload_id", KEY, nullable=False),
        sa.Column("repository", KEY, nullable=False),
        sa.Column("path", KEY, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_updated_at", "uploads", ["updated_at", "upload_id"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", KEY, nullable=False),
        sa.Column("part_number", sa.Integer(), nullable=False),
        sa.Column("digest", KEY, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.upload_id"], name=op.f("fk_upload_parts_upload_id")),
        sa.PrimaryKeyConstraint("upload_id", "part_number", name=op.f("pk_upload_parts")),
    )
    op.create_table(
        "run_models",
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("role", KEY, nullable=False),
        sa.Column("model_id", KEY, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_models_run_id")),
        sa.PrimaryKeyConstraint("run_id", "role", "model_id", name=op.f("pk_run_models")),
    )
    op.create_index("ix_run_models_model_id", "run_models", ["model_id"], unique=False)
    op.create_table(
        "logged_model_measurements",
        sa.Column("model_id", KEY, nullable=False),
        sa.Column("key", KEY, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", KEY, nullable=False),
        sa.Column("dataset_name", SHORT, nullable=False),
        sa.Column("dataset_digest", KEY, nullable=False),
        sa.Column("text", KEY, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["logged_models.model_id"], name=op.f("fk_logged_model_measurements_model_id")
        ),
        sa.PrimaryKeyConstraint(
            "model_id", "key", "step", "at", "run_id", "dataset_name", "dataset_digest",
            name=op.f("pk_logged_model_measurements"),
        ),
    )  # fmt: skip
    op.create_table(
        "import_leases",
        sa.Column("version_id", ID, autoincrement=False, nullable=False),
        sa.Column("holder", KEY, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.version_id"], name=op.f("fk_import_leases_version_id")),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_import_leases")),
    )


def downgrade() -> None:
    """Take them away."""
    for table in ("import_leases", "logged_model_measurements", "run_models", "upload_parts", "uploads", "webhooks"):
        op.drop_table(table)
    with op.batch_alter_table("run_datasets") as run_datasets:
        run_datasets.drop_column("tags")
    op.drop_index("ix_logged_models_created_at", table_name="logged_models")
    op.drop_index("ix_logged_models_experiment_id_name", table_name="logged_models")
    op.drop_index("ix_runs_started_at", table_name="runs")
    op.drop_index("ix_versions_model_id_stage_number", table_name="versions")
