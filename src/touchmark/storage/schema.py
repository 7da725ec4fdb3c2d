"""Every table. Times are int64 microseconds UTC; text keys collate by bytes on both databases; names are attributes.

    catalogue (a projection of the log)   models, model_names, model_tags, versions, version_tags, version_params,
                                          version_metrics, aliases, alias_moves, evaluations, edges, search_terms,
                                          webhooks
    log                                   log_head, events, event_texts, log_nodes
    bytes                                 blobs, repository_blobs, manifests, manifest_blobs, manifest_facts,
                                          repository_manifests, uploads, upload_parts
    tracking                              experiments, experiment_tags, runs, run_params, run_metrics,
                                          run_latest_metrics, run_tags, run_datasets, run_models, logged_models,
                                          logged_model_params, logged_model_metrics, logged_model_measurements,
                                          logged_model_tags, artifacts
    requests                              idempotency_keys, import_leases, import_progress, import_files

The migrations write this schema down step by step; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)

Id = BigInteger().with_variant(Integer, "sqlite")
Key = Text(collation="C").with_variant(Text(), "sqlite")
"""Text that is compared and ordered by its bytes."""
HEAD_CHARACTERS = 200
"""How much of a tag's or param's value an index holds; PostgreSQL refuses index rows above 2,704 bytes."""


def head_of(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return the indexed beginning of a long text column."""
    return func.substr(column, 1, HEAD_CHARACTERS)


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("registry_id", Key, nullable=False),
    Column("place", Key, nullable=True),  # where files are (ops/setup.py); None: not said yet
)
events = Table(
    "events",
    metadata,
    Column("log_index", Id, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("model_id", Id),
    Column("version", Integer),
    Column("leaf", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)
Index("ix_events_model_id_log_index", events.c.model_id, events.c.log_index)
Index("ix_events_at", events.c.at)
event_texts = Table(
    "event_texts",
    metadata,
    Column("log_index", Id, ForeignKey("events.log_index"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("text", Text),
)
log_nodes = Table(
    "log_nodes",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
)

# ── the catalogue ────────────────────────────────────────────────────────────────────────────────────────────────

models = Table(
    "models",
    metadata,
    Column("model_id", Id, primary_key=True, autoincrement=False),
    Column("name", Key, nullable=False, unique=True),
    Column("look_alike_key", Key, nullable=False, index=True),
    Column("description", Text),
    Column("owner", Text),
    Column("contact", Text),
    Column("version_count", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
Index("ix_models_updated_at", models.c.updated_at, models.c.model_id)
Index("ix_models_created_at", models.c.created_at, models.c.model_id)
model_names = Table(
    "model_names",
    metadata,
    Column("name", Key, primary_key=True),
    Column("model_id", Id, ForeignKey("models.model_id"), nullable=False, index=True),
)
model_tags = Table(
    "model_tags",
    metadata,
    Column("model_id", Id, ForeignKey("models.model_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Key, nullable=False),
)
Index("ix_model_tags_key_value", model_tags.c.key, head_of(model_tags.c.value), model_tags.c.model_id)
versions = Table(
    "versions",
    metadata,
    Column("version_id", Id, primary_key=True, autoincrement=False),
    Column("model_id", Id, ForeignKey("models.model_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Key, nullable=False),
    Column("digest", Key, index=True),
    Column("content_digest", Key, index=True),
    Column("size_bytes", BigInteger),
    Column("file_count", Integer),
    Column("source", Key, nullable=False),
    Column("run_id", Key, index=True),
    Column("logged_model_id", Key, index=True),
    Column("parent", Key),
    Column("same_bytes_as", Integer),
    Column("description", Text),
    Column("stage", Key, nullable=False),
    Column("status_message", Text),
    Column("run_link", Text),
    Column("origin", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("deprecated_at", BigInteger),
    Column("deprecation_reason", Text),
    Column("replaced_by", Key),
)
Index("uq_versions_model_id_number", versions.c.model_id, versions.c.number, unique=True)
Index("ix_versions_model_id_content_digest", versions.c.model_id, versions.c.content_digest, versions.c.number)
Index("ix_versions_created_at", versions.c.created_at, versions.c.version_id)
Index("ix_versions_updated_at", versions.c.updated_at, versions.c.version_id)
Index("ix_versions_created_by", versions.c.created_by, versions.c.version_id)
# Only what is out of the ordinary: a search for it is quick, and registering a version writes none of these.
_STAGED, _UNREADY = versions.c.stage != "None", versions.c.state != "READY"
Index("ix_versions_stage", versions.c.stage, sqlite_where=_STAGED, postgresql_where=_STAGED)
Index("ix_versions_state", versions.c.state, sqlite_where=_UNREADY, postgresql_where=_UNREADY)
for _column in (versions.c.deprecated_at, versions.c.deleted_at, models.c.deleted_at):
    _is_there = _column.is_not(None)
    Index(f"ix_{_column.table.name}_{_column.name}", _column, sqlite_where=_is_there, postgresql_where=_is_there)
# MLflow's clients ask for the highest number of each stage before nearly every write.
_IS_PRESENT = versions.c.deleted_at.is_(None)
Index(
    "ix_versions_model_id_stage_number",
    versions.c.model_id,
    versions.c.stage,
    versions.c.number,
    sqlite_where=_IS_PRESENT,
    postgresql_where=_IS_PRESENT,
)
version_tags = Table(
    "version_tags",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Key, nullable=False),
)
Index("ix_version_tags_key_value", version_tags.c.key, head_of(version_tags.c.value), version_tags.c.version_id)
version_params = Table(
    "version_params",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Key, nullable=False),
)
Index("ix_version_params_key_value", version_params.c.key, head_of(version_params.c.value), version_params.c.version_id)
version_metrics = Table(
    "version_metrics",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Double),  # NULL stands for NaN, which no comparison matches and which orders last
    Column("is_nan", Boolean, nullable=False),
    Column("log_index", BigInteger, nullable=False),
)
Index("ix_version_metrics_key_value", version_metrics.c.key, version_metrics.c.value, version_metrics.c.version_id)
evaluations = Table(
    "evaluations",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("log_index", BigInteger, primary_key=True),
    Column("dataset", Text),
    Column("metrics", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", Key, nullable=False),
)
aliases = Table(
    "aliases",
    metadata,
    Column("model_id", Id, ForeignKey("models.model_id"), primary_key=True),
    Column("alias", Key, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("log_index", BigInteger, nullable=False),
    Column("moved_at", BigInteger, nullable=False),
    Column("moved_by", Key, nullable=False),
)
Index("ix_aliases_alias", aliases.c.alias, aliases.c.model_id)
Index("ix_aliases_model_id_number", aliases.c.model_id, aliases.c.number)
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("model_id", Id, ForeignKey("models.model_id"), primary_key=True),
    Column("alias", Key, primary_key=True),
    Column("log_index", BigInteger, primary_key=True),
    Column("before", Integer),
    Column("after", Integer),
    Column("at", BigInteger, nullable=False),
    Column("by", Key, nullable=False),
)
edges = Table(
    "edges",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("relation", Key, primary_key=True),
    Column("target_kind", Key, primary_key=True),
    Column("target", Key, primary_key=True),
    Column("detail", Text),
)
Index("ix_edges_target", edges.c.target_kind, edges.c.target, edges.c.version_id)
search_terms = Table(
    "search_terms",
    metadata,
    Column("term", Key, primary_key=True),
    Column("subject", Key, primary_key=True),
    Column("subject_id", Id, primary_key=True),
)
Index("ix_search_terms_subject", search_terms.c.subject, search_terms.c.subject_id, search_terms.c.term)
webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", Key, primary_key=True),
    Column("name", Key, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("status", Key, nullable=False),
    Column("events", Text, nullable=False),  # a JSON list of `ENTITY.ACTION`
    Column("secret", Text),  # encrypted (services/webhooks.py)
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
Index("ix_webhooks_created_at", webhooks.c.created_at, webhooks.c.webhook_id)

# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

blobs = Table(
    "blobs",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", Key, nullable=False),
    Column("layout", Key, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository", Key, primary_key=True),
    Column("digest", Key, ForeignKey("blobs.digest"), primary_key=True),
)
manifests = Table(
    "manifests",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("media_type", Key, nullable=False),
    Column("content_digest", Key, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("file_count", Integer, nullable=False),
    Column("contents", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("subject", Key),  # the manifest that this one speaks of (a signature, say), there or not
    Index("ix_manifests_subject", "subject"),
)
manifest_blobs = Table(
    "manifest_blobs",
    metadata,
    Column("manifest_digest", Key, ForeignKey("manifests.digest"), primary_key=True),
    Column("blob_digest", Key, ForeignKey("blobs.digest"), primary_key=True),
)
Index("ix_manifest_blobs_blob_digest", manifest_blobs.c.blob_digest)
manifest_facts = Table(
    "manifest_facts",
    metadata,
    Column("manifest_digest", Key, ForeignKey("manifests.digest"), primary_key=True),
    Column("kind", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Key, nullable=False),
)
Index("ix_manifest_facts_kind", manifest_facts.c.kind, manifest_facts.c.key, head_of(manifest_facts.c.value))
repository_manifests = Table(
    "repository_manifests",
    metadata,
    Column("repository", Key, primary_key=True),
    Column("digest", Key, ForeignKey("manifests.digest"), primary_key=True),
)
uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", Key, primary_key=True),
    Column("repository", Key, nullable=False),
    Column("path", Key),  # where the file will be among its owner's artifacts, if the upload is for one
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),  # of a session: how far it is, durably
)
Index("ix_uploads_updated_at", uploads.c.updated_at, uploads.c.upload_id)
upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", Key, ForeignKey("uploads.upload_id"), primary_key=True),
    Column("part_number", Integer, primary_key=True),
    Column("digest", Key, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

# ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────

experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", Id, primary_key=True, autoincrement=True),
    Column("name", Key, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("experiment_id", Id, ForeignKey("experiments.experiment_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("value", Key, nullable=False),
)
runs = Table(
    "runs",
    metadata,
    Column("run_id", Key, primary_key=True),
    Column("experiment_id", Id, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", Key, nullable=False),
    Column("user", Key, nullable=False),
    Column("status", Key, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
Index("ix_runs_experiment_id_started_at", runs.c.experiment_id, runs.c.started_at, runs.c.run_id)
Index("ix_runs_started_at", runs.c.started_at, runs.c.run_id)


def _key_value(name: str, owner: str, target: str) -> Table:
    return Table(
        name,
        metadata,
        Column(owner, Key, ForeignKey(target), primary_key=True),
        Column("key", Key, primary_key=True),
        Column("value", Key, nullable=False),
    )


run_params = _key_value("run_params", "run_id", "runs.run_id")
run_tags = _key_value("run_tags", "run_id", "runs.run_id")
run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_id", Key, ForeignKey("runs.run_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column(
        "text", Key, primary_key=True
    ),  # the value's exact text, so that NaN and infinities are storable and distinct
    Column("value", Double),
)
run_latest_metrics = Table(
    "run_latest_metrics",
    metadata,
    Column("run_id", Key, ForeignKey("runs.run_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("text", Key, nullable=False),
    Column("value", Double),
)
run_datasets = Table(
    "run_datasets",
    metadata,
    Column("run_id", Key, ForeignKey("runs.run_id"), primary_key=True),
    Column("name", String(500, collation="C").with_variant(String(500), "sqlite"), primary_key=True),
    Column("digest", Key, primary_key=True),
    Column("context", Key),
    Column("source", Text),
    Column("source_type", Key),
    Column("schema", Text),
    Column("profile", Text),
    Column("tags", Text),  # a JSON object: what was said of the input beside its context
)
run_models = Table(
    "run_models",
    metadata,
    Column("run_id", Key, ForeignKey("runs.run_id"), primary_key=True),
    Column("role", Key, primary_key=True),  # `input` or `output`
    Column("model_id", Key, primary_key=True),
    Column("step", BigInteger, nullable=False),
)
Index("ix_run_models_model_id", run_models.c.model_id)
logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", Key, primary_key=True),
    Column("experiment_id", Id, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", Key, nullable=False),
    Column("status", Key, nullable=False),
    Column("run_id", Key, ForeignKey("runs.run_id")),
    Column("model_type", Key),
    Column("status_message", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
Index(
    "ix_logged_models_experiment_id",
    logged_models.c.experiment_id,
    logged_models.c.created_at,
    logged_models.c.model_id,
)
# MLflow's clients look for a model by its name whenever they follow `runs:/RUN/NAME`.
Index(
    "ix_logged_models_experiment_id_name",
    logged_models.c.experiment_id,
    logged_models.c.name,
    logged_models.c.created_at,
    logged_models.c.model_id,
)
Index("ix_logged_models_created_at", logged_models.c.created_at, logged_models.c.model_id)
Index("ix_logged_models_run_id_name", logged_models.c.run_id, logged_models.c.name, logged_models.c.created_at)
logged_model_params = _key_value("logged_model_params", "model_id", "logged_models.model_id")
logged_model_tags = _key_value("logged_model_tags", "model_id", "logged_models.model_id")
logged_model_metrics = Table(
    "logged_model_metrics",
    metadata,
    Column("model_id", Key, ForeignKey("logged_models.model_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("text", Key, nullable=False),
    Column("value", Double),
)
logged_model_measurements = Table(
    "logged_model_measurements",
    metadata,
    Column("model_id", Key, ForeignKey("logged_models.model_id"), primary_key=True),
    Column("key", Key, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("run_id", Key, primary_key=True),  # empty text: of no run; the same for the data set
    Column("dataset_name", String(500, collation="C").with_variant(String(500), "sqlite"), primary_key=True),
    Column("dataset_digest", Key, primary_key=True),
    Column("text", Key, nullable=False),
    Column("value", Double),
)
artifacts = Table(
    "artifacts",
    metadata,
    Column("owner_kind", Key, primary_key=True),
    Column("owner_id", Key, primary_key=True),
    Column("path", Key, primary_key=True),
    Column("digest", Key, ForeignKey("blobs.digest"), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("request_hash", Key, nullable=False),
    Column("outcome", Key, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
import_leases = Table(
    "import_leases",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("holder", Key, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("trouble", Text),
)
import_progress = Table(
    "import_progress",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("listed_at", BigInteger, nullable=False),
    Column("total_bytes", BigInteger),
    Column("total_files", BigInteger, nullable=False),
    Column("done_bytes", BigInteger, nullable=False),
    Column("done_files", BigInteger, nullable=False),
)
import_files = Table(
    "import_files",
    metadata,
    Column("version_id", Id, ForeignKey("versions.version_id"), primary_key=True),
    Column("path", Key, primary_key=True),
    Column("digest", Key, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mark", Key),
)
