"""Wire types of the native protocol: what bodies and query strings may hold, and what answers look like.

Shapes only: a limit stands here to be documented (`extra_json_schema`), and is enforced by the domain, whose errors say
what to change. Times are int64 microseconds UTC, sizes are bytes. A number in a metric is a JSON number where it is
finite and one of the strings `nan`, `inf`, `-inf` where it is not: JSON has no other way to write those.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from touchmark.domain.aliases import ALIAS_LIMIT
from touchmark.domain.lineage import MAX_DEPTH
from touchmark.domain.names import NAME_LIMIT
from touchmark.domain.paging import MAX_CURSOR_CHARACTERS
from touchmark.domain.references import MAX_VERSION, REFERENCE_LIMIT
from touchmark.domain.search import MAX_FILTER_CHARACTERS
from touchmark.domain.tags import TAG_KEY_LIMIT, TAG_VALUE_LIMIT
from touchmark.domain.text import DESCRIPTION_LIMIT, SHORT_TEXT_LIMIT, SOURCE_LIMIT
from touchmark.domain.tracking import EXPERIMENT_NAME_LIMIT, KEY_LIMIT, PARAM_VALUE_LIMIT, RUN_NAME_LIMIT

# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(longest: int, shortest: int = 0, **more: Any) -> Any:
    return Meta(extra_json_schema={"minLength": shortest, "maxLength": longest, **more})


def _map(value: dict[str, Any], longest_key: int) -> Any:
    # the pattern says "not blank" in a way every JSON Schema library understands
    names = {"minLength": 1, "maxLength": longest_key, "pattern": r"\S"}
    return Meta(extra_json_schema={"additionalProperties": value, "propertyNames": names})


_INT64 = Meta(extra_json_schema={"minimum": -(2**63), "maximum": 2**63 - 1})

Number = float | Literal["nan", "inf", "-inf"]
Int64 = Annotated[int, _INT64]
Name = Annotated[str, _text(NAME_LIMIT, 1, pattern="^[^/:@]+$")]
AliasText = Annotated[str, _text(ALIAS_LIMIT, 1, pattern="^[A-Za-z0-9_][A-Za-z0-9_-]*$")]
Reference = Annotated[str, _text(REFERENCE_LIMIT, 1)]
Source = Annotated[str, _text(SOURCE_LIMIT, 1, pattern="^[A-Za-z][A-Za-z0-9+.-]*:/")]
Description = Annotated[str | None, _text(DESCRIPTION_LIMIT)]
ShortText = Annotated[str | None, _text(SHORT_TEXT_LIMIT)]
Link = Annotated[str | None, _text(SOURCE_LIMIT)]
Tags = Annotated[dict[str, str], _map({"type": "string", "maxLength": TAG_VALUE_LIMIT}, TAG_KEY_LIMIT)]
Params = Annotated[dict[str, str], _map({"type": "string", "maxLength": PARAM_VALUE_LIMIT}, KEY_LIMIT)]
Metrics = dict[str, Number]
VersionNumber = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_VERSION})]
DigestText = Annotated[str, Meta(extra_json_schema={"pattern": "^sha256:[0-9a-f]{64}$"})]
ExperimentKey = Annotated[str | int, _text(EXPERIMENT_NAME_LIMIT, 1, minimum=0, maximum=2**63 - 1)]


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every body and every query string has in common: a field nobody knows is refused."""


# ── query strings ────────────────────────────────────────────────────────────────────────────────────────────────

Limit = Annotated[int | None, Meta(extra_json_schema={"minimum": 1, "maximum": 1000})]
Cursor = Annotated[str | None, _text(MAX_CURSOR_CHARACTERS)]
Filter = Annotated[str | None, _text(MAX_FILTER_CHARACTERS)]


class PageQuery(Request):
    """Which page of a list."""

    limit: Limit = None
    cursor: Cursor = None


class ModelsQuery(PageQuery):
    """Which models: a filter and an order in the search language, plain words, the beginning of a name."""

    filter: Filter = None
    order_by: Filter = None
    words: ShortText = None
    prefix: Annotated[str | None, _text(NAME_LIMIT)] = None


class ModelVersionsQuery(PageQuery):
    """Which versions of one model."""

    filter: Filter = None
    order_by: Filter = None
    include_deleted: bool = False


class VersionsQuery(ModelVersionsQuery):
    """Which versions of all models."""

    words: ShortText = None


class VersionQuery(Request):
    """Whether a deleted version is shown too."""

    include_deleted: bool = False


class TagQuery(Request):
    """Which tag."""

    key: Annotated[str, _text(TAG_KEY_LIMIT, 1)]


class AliasQuery(Request):
    """When: microseconds UTC since 1970, or an ISO 8601 date or instant with a zone."""

    as_of: Annotated[str | None, _text(40, 1)] = None


class HistoryQuery(Request):
    """Which moves: of one alias or all, below a log index; a page's `next_cursor` is the next `before`."""

    alias: AliasText | None = None
    before: Int64 | None = None
    limit: Limit = None


class ReferenceQuery(Request):
    """What is meant."""

    ref: Reference


class DiffQuery(Request):
    """Which two versions."""

    left: Reference
    right: Reference


class DepthQuery(Request):
    """How many steps a lineage walk takes."""

    depth: Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_DEPTH})] = 3


class LineageQuery(DepthQuery, kw_only=True):
    """Where a lineage walk begins, and how far it goes."""

    ref: Reference


class EventsQuery(Request):
    """Which entries of the log: those above an index, of one model if named."""

    after: Annotated[int, _INT64] = -1
    limit: Limit = None
    model: Name | None = None


class ProofQuery(Request):
    """Which entry, in the log of which size (now if left out)."""

    index: Int64
    size: Int64 | None = None


class ConsistencyQuery(Request):
    """From which size to which (now if left out)."""

    first: Int64
    second: Int64 | None = None


class RunsQuery(PageQuery):
    """Runs of which experiment: its name, or its id in digits."""

    experiment: Annotated[str, _text(EXPERIMENT_NAME_LIMIT, 1)] = "Default"


class MetricQuery(Request):
    """Which measurements of one metric."""

    key: Annotated[str, _text(KEY_LIMIT, 1)]
    limit: Annotated[int | None, Meta(extra_json_schema={"minimum": 1, "maximum": 25_000})] = None
    cursor: Cursor = None


class ArtifactsQuery(Request):
    """Which folder (the root if left out); with `recursive` every file below it at any depth."""

    path: Annotated[str | None, _text(1024)] = None
    recursive: bool = False


class ArtifactQuery(Request):
    """Which file or folder."""

    path: Annotated[str, _text(1024, 1)]


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


class NewModel(Request):
    """A registered model to create."""

    name: Name
    description: Description = None
    owner: ShortText = None
    contact: ShortText = None
    tags: Tags = {}


class ModelChanges(Request):
    """Fields to change; null empties one, a field left out stays."""

    description: Description | UnsetType = UNSET
    owner: ShortText | UnsetType = UNSET
    contact: ShortText | UnsetType = UNSET


class NewName(Request):
    """A model's next name."""

    new_name: Name


class TagChanges(Request):
    """Tags to set; the others stay."""

    tags: Tags


class NewVersion(Request):
    """What to register: `runs:/RUN/PATH`, `models:/m-ID`, `models:/NAME/3`, `models:/NAME@alias` or `@sha256:…`, or an address.

    An address (`s3://…`, `gs://…`, `az://…`, `https://…`, `hf://ORG/REPO`) is imported if the settings allow it: the version
    is PENDING_REGISTRATION until its files are here. Otherwise it stays unsealed, and `status_message` says why.
    """

    source: Source
    description: Description = None
    tags: Tags = {}
    parents: Annotated[list[Reference], Meta(extra_json_schema={"maxItems": 100})] = []
    run_link: Link = None


class VersionChanges(Request):
    """A version's new description; null empties it."""

    description: Description


class NewDeprecation(Request):
    """Why a version should not be used any more, and what to use instead."""

    reason: Annotated[str, _text(DESCRIPTION_LIMIT, 1, pattern=r"\S")]
    replaced_by: Reference | None = None


class NewEvaluation(Request):
    """Results found after registration."""

    metrics: Annotated[Metrics, Meta(extra_json_schema={"minProperties": 1, "maxProperties": 1000})]
    dataset: ShortText = None


class AliasTarget(Request):
    """The version an alias shall point at."""

    version: VersionNumber


class NewExperiment(Request):
    """An experiment to create."""

    name: Annotated[str, _text(EXPERIMENT_NAME_LIMIT, 1, pattern=r"\S")]
    tags: Tags = {}


class NewRun(Request):
    """A run to begin. `experiment` is an id (a number) or a name; a new name creates the experiment."""

    experiment: ExperimentKey = "Default"
    name: Annotated[str | None, _text(RUN_NAME_LIMIT, 1)] = None
    user: ShortText = None
    tags: Tags = {}
    params: Params = {}


class RunChanges(Request):
    """What to change of a run; a field that is null or left out stays."""

    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"] | None = None
    ended_at: Int64 | None = None
    name: Annotated[str | None, _text(RUN_NAME_LIMIT, 1)] = None


class NewMeasurement(Request):
    """One measurement; `at` is now where it is left out."""

    key: Annotated[str, _text(KEY_LIMIT, 1, pattern=r"\S")]
    value: Number
    at: Int64 | None = None
    step: Int64 = 0


class Batch(Request):
    """Params, measurements and tags of a run, at most 1,000 together: all of them are written, or none."""

    params: Params = {}
    metrics: Annotated[list[NewMeasurement], Meta(extra_json_schema={"maxItems": 1000})] = []
    tags: Tags = {}


class Dataset(Request):
    """A data set a run read."""

    name: Annotated[str, _text(500, 1, pattern=r"\S")]
    digest: Annotated[str, _text(100, 1, pattern=r"\S")]
    context: Annotated[str | None, _text(KEY_LIMIT)] = None
    source: Annotated[str | None, _text(64_000)] = None
    source_type: Annotated[str | None, _text(KEY_LIMIT)] = None
    schema: Annotated[str | None, _text(1_000_000)] = None
    profile: Annotated[str | None, _text(16_000_000)] = None


class NewDatasets(Request):
    """Data sets a run read; one with the same name and digest is replaced."""

    datasets: Annotated[list[Dataset], Meta(extra_json_schema={"maxItems": 1000})]


class NewFiles(Request):
    """Paths and the digests of blobs uploaded before; a path that is there is replaced."""

    files: Annotated[dict[str, DigestText], Meta(extra_json_schema={"maxProperties": 10_000})]


class NewDirectUpload(Request):
    """A blob to put straight into the server's bucket: the repository on /v2 it is for, its digest and its size."""

    repository: Annotated[str, _text(300, 1)]
    digest: DigestText
    size_bytes: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 2**63 - 1})]


class NewLoggedModel(Request):
    """A logged model to begin; it is PENDING until it is finished."""

    name: Annotated[str | None, _text(KEY_LIMIT, 1)] = None
    experiment: ExperimentKey | None = None
    run_id: Annotated[str | None, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9_-]{1,64}$"})] = None
    model_type: Annotated[str | None, _text(KEY_LIMIT)] = None
    params: Params = {}
    tags: Tags = {}


class LoggingEnd(Request):
    """How the logging of a model ended."""

    status: Literal["READY", "UPLOAD_FAILED"]
    status_message: Description = None


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Answer(msgspec.Struct, kw_only=True):
    """What every answer has in common: each field is always there. A later release may add some."""


class Health(Answer):
    """The server answers, and so do its database and its bytes. `schema` is the database's revision."""

    status: Literal["ok"]
    version: str
    schema: str


class Model(Answer):
    """A registered model."""

    name: str
    model_id: int
    description: str | None
    owner: str | None
    contact: str | None
    created_at: int
    created_by: str
    updated_at: int
    version_count: int
    latest_version: int | None
    tags: dict[str, str]
    aliases: dict[str, int]
    similar_names: list[str]


class ModelPage(Answer):
    """Some registered models."""

    items: list[Model]
    next_cursor: str | None


class Deprecation(Answer):
    """Why a version should not be used any more."""

    reason: str
    replaced_by: str | None
    at: int


class ImportProgress(Answer):
    """How far the import of a waiting version's files is. `total_bytes` is null if their place does not say."""

    done_bytes: int
    total_bytes: int | None
    done_files: int
    total_files: int


class Version(Answer):
    """A model version. `contents` and `importing` are filled only where one version is asked for."""

    name: str
    model_id: int
    version: int
    version_id: int
    state: Literal["PENDING_REGISTRATION", "READY", "FAILED_REGISTRATION", "PURGED"]
    sealed: bool
    digest: str | None
    content_digest: str | None
    size_bytes: int | None
    file_count: int | None
    source: str
    run_id: str | None
    logged_model_id: str | None
    parent: str | None
    same_bytes_as: int | None
    description: str | None
    stage: Literal["None", "Staging", "Production", "Archived"]
    status_message: str | None
    run_link: str | None
    created_at: int
    created_by: str
    updated_at: int
    deleted_at: int | None
    deprecation: Deprecation | None
    tags: dict[str, str]
    aliases: list[str]
    origin: dict[str, Any]
    metrics: Metrics
    contents: dict[str, Any] | None
    importing: ImportProgress | None


class VersionPage(Answer):
    """Some model versions."""

    items: list[Version]
    next_cursor: str | None


class Resolved(Answer):
    """What a reference means now. `moved_to` is the model's present name if the reference used an older one."""

    reference: str
    name: str
    model_id: int
    version: int
    digest: str | None
    state: Literal["PENDING_REGISTRATION", "READY", "FAILED_REGISTRATION", "PURGED"]
    sealed: bool
    size_bytes: int | None
    file_count: int | None
    source: str
    run_id: str | None
    moved_to: str | None
    warning: str | None
    status_message: str | None


class File(Answer):
    """One file of a version."""

    path: str
    size_bytes: int
    digest: str


class Files(Answer):
    """A sealed version's files, and the digests that name them together."""

    digest: str
    content_digest: str
    items: list[File]


class Evaluation(Answer):
    """Results recorded after registration."""

    metrics: Metrics
    dataset: str | None
    at: int
    by: str
    log_index: int


class Evaluations(Answer):
    """A version's evaluations, oldest first."""

    items: list[Evaluation]


class Alias(Answer):
    """An alias; `log_index` is the entry of its last move and its ETag."""

    name: str
    alias: str
    version: int
    log_index: int
    moved_at: int
    moved_by: str


class Aliases(Answer):
    """A model's aliases, by name."""

    items: list[Alias]


class Move(Answer):
    """One move of an alias; `before` is null where it was created, `after` where it was deleted."""

    name: str
    alias: str
    before: int | None
    after: int | None
    log_index: int
    at: int
    by: str


class MovePage(Answer):
    """Moves, newest first. Give `next_cursor` as `before` for the next page."""

    items: list[Move]
    next_cursor: str | None


class FileChange(Answer):
    """A path whose bytes differ: digest and size on either side."""

    path: str
    left: dict[str, Any]
    right: dict[str, Any]


class FileChanges(Answer):
    """Files only on the right, only on the left, on both sides with other bytes, and how many are the same."""

    added: list[File]
    removed: list[File]
    changed: list[FileChange]
    same_count: int


class TextPair(Answer):
    """A value on either side."""

    left: str
    right: str


class TextChanges(Answer):
    """Keys only on the right, only on the left, and on both with other values."""

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, TextPair]


class NumberPair(Answer):
    """A number on either side."""

    left: Number
    right: Number


class NumberChanges(Answer):
    """Metrics only on the right, only on the left, and on both with other values."""

    added: Metrics
    removed: Metrics
    changed: dict[str, NumberPair]


class Diff(Answer):
    """What differs between two versions, written NAME/N."""

    left: str
    right: str
    same_bytes: bool
    files: FileChanges
    tags: TextChanges
    params: TextChanges
    metrics: NumberChanges
    contents: dict[str, Any]


class Node(Answer):
    """One thing in a lineage. `id` is its kind and key, `version:17`, `run:4f0c…`, as edges name it.

    The key of a version is its version_id, of a data set NAME@DIGEST. `distance` is 0 for the root, positive for what it
    came from, negative for what came from it.
    """

    id: str
    kind: Literal["version", "run", "dataset", "logged_model"]
    key: str
    label: str
    state: str | None
    is_deleted: bool
    distance: int


class Edge(Answer):
    """From a version to what it came from."""

    from_: str = msgspec.field(name="from")
    to: str
    relation: Literal["copy_of", "derived_from", "produced_by", "trained_on", "logged_as"]
    detail: str | None


class Lineage(Answer):
    """What a version came from and what came from it; `truncated` says that there was more than the limits allow."""

    root: str
    nodes: list[Node]
    edges: list[Edge]
    truncated: bool


class Actor(Answer):
    """Who did it."""

    kind: str
    id: str
    token_id: str | None
    verified: bool


class EffectAnswer(Answer):
    """One row that came (`before` null), went (`after` null) or changed; `subject` holds its kind and key."""

    subject: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class EventAnswer(Answer):
    """One entry of the log."""

    index: int
    at: int
    kind: str
    actor: Actor
    request: str | None
    model: str | None
    model_id: int | None
    version: int | None
    effects: list[EffectAnswer]
    leaf_hash: str


class Events(Answer):
    """Entries of the log, oldest first. Ask again with `after=next_after` for what came since."""

    items: list[EventAnswer]
    next_after: int


class Head(Answer):
    """The log's size and Merkle root (hexadecimal), and the registry it belongs to."""

    size: int
    root: str
    registry_id: str


class Entry(Answer):
    """An entry's exact leaf as text, its hash (hexadecimal), and the event it holds with its texts filled in."""

    index: int
    leaf: str
    leaf_hash: str
    event: EventAnswer


class InclusionProof(Answer):
    """That an entry stands in the log of this size and root (RFC 9162 section 2.1.3). Hashes are hexadecimal."""

    index: int
    size: int
    root: str
    registry_id: str
    hashes: list[str]


class ConsistencyProof(Answer):
    """That the log of size `second` and this root extends that of size `first` (RFC 9162 section 2.1.4)."""

    first: int
    second: int
    root: str
    registry_id: str
    hashes: list[str]


class Experiment(Answer):
    """A named group of runs."""

    experiment_id: int
    name: str
    created_at: int
    updated_at: int
    deleted_at: int | None
    tags: dict[str, str]


class ExperimentPage(Answer):
    """Some experiments, newest first."""

    items: list[Experiment]
    next_cursor: str | None


class Latest(Answer):
    """The latest value of a metric."""

    value: Number
    at: int
    step: int


class DatasetAnswer(Answer):
    """A data set a run read. Lists of runs leave `schema` and `profile` out (null)."""

    name: str
    digest: str
    context: str | None
    source: str | None
    source_type: str | None
    schema: str | None
    profile: str | None


class Run(Answer):
    """A training run; `metrics` holds the latest value of each key."""

    run_id: str
    experiment_id: int
    name: str
    user: str
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
    started_at: int
    ended_at: int | None
    created_at: int
    deleted_at: int | None
    params: dict[str, str]
    metrics: dict[str, Latest]
    tags: dict[str, str]
    datasets: list[DatasetAnswer]


class RunPage(Answer):
    """Some runs, newest first."""

    items: list[Run]
    next_cursor: str | None


class Measurement(Answer):
    """One measurement of a metric."""

    key: str
    value: Number
    at: int
    step: int


class MeasurementPage(Answer):
    """Some measurements, by step and time."""

    items: list[Measurement]
    next_cursor: str | None


class ArtifactAnswer(Answer):
    """A file or folder; of a folder `size_bytes` is that of all below it, `digest` and `updated_at` are null."""

    path: str
    is_dir: bool
    size_bytes: int
    digest: str | None
    updated_at: int | None


class Artifacts(Answer):
    """What lies in a folder, by path."""

    items: list[ArtifactAnswer]


class MissingPart(Answer):
    """A part that is not there yet. PUT its bytes at `url`, with no header of ours, while that is good (ten minutes)."""

    number: int
    offset: int
    size_bytes: int
    url: str


class DirectUpload(Answer):
    """How far an upload is: the bytes of whole parts that are there, and the first 64 of the parts that are not.

    While the server reads the parts, `read_bytes` says how far it is.
    """

    upload_id: str
    digest: str
    size_bytes: int
    sent_bytes: int
    read_bytes: int
    is_finishing: bool
    missing: list[MissingPart]


class StoredBlob(Answer):
    """A blob that is stored."""

    digest: str
    size_bytes: int


class LoggedModel(Answer):
    """A model saved in a run, or by itself, and not yet registered."""

    model_id: str
    experiment_id: int
    name: str
    status: Literal["PENDING", "READY", "UPLOAD_FAILED"]
    run_id: str | None
    model_type: str | None
    status_message: str | None
    created_at: int
    updated_at: int
    deleted_at: int | None
    params: dict[str, str]
    metrics: dict[str, Latest]
    tags: dict[str, str]
