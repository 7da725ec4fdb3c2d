"""How each noun is shown: the columns of its table and the lines of its record. Keys are those of the HTTP API's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from touchmark.cli.output import Column, Kind, Output, to_json
from touchmark.domain.models import is_prompt

if TYPE_CHECKING:
    from touchmark.domain.models import RegisteredModel
    from touchmark.domain.versions import ModelVersion

Shown = TypeVar("Shown", "RegisteredModel", "ModelVersion")

MODEL_TABLE = (
    Column("name", "NAME"),
    Column("version_count", "VERSIONS", Kind.NUMBER, 1),
    Column("latest_version", "LATEST", Kind.NUMBER),
    Column("aliases", "ALIASES", Kind.MAP, 2),
    Column("owner", "OWNER", Kind.TEXT, 4),
    Column("updated_at", "CHANGED", Kind.TIME, 3),
    Column("tags", "TAGS", Kind.MAP, 6),
    Column("description", "DESCRIPTION", Kind.TEXT, 5),
)

MODEL_RECORD = (
    Column("name", "Name"),
    Column("model_id", "Model id"),
    Column("description", "Description"),
    Column("owner", "Owner"),
    Column("contact", "Contact"),
    Column("version_count", "Versions", Kind.NUMBER),
    Column("latest_version", "Latest", Kind.NUMBER),
    Column("aliases", "Aliases", Kind.MAP),
    Column("tags", "Tags", Kind.MAP),
    Column("created_at", "Created", Kind.TIME),
    Column("created_by", "Created by"),
    Column("updated_at", "Changed", Kind.TIME),
    Column("similar_names", "Looks like", Kind.LIST),
)

VERSION_TABLE = (
    Column("version", "VERSION", Kind.NUMBER),
    Column("standing", "STATE", Kind.TEXT, 1),
    Column("aliases", "ALIASES", Kind.LIST, 1),
    Column("digest", "DIGEST", Kind.DIGEST, 2),
    Column("size_bytes", "SIZE", Kind.SIZE, 4),
    Column("created_at", "REGISTERED", Kind.TIME, 3),
    Column("created_by", "BY", Kind.TEXT, 6),
    Column("tags", "TAGS", Kind.MAP, 7),
    Column("description", "DESCRIPTION", Kind.TEXT, 5),
)

FOUND_TABLE = (Column("name", "NAME"), *VERSION_TABLE)
"""Versions of several models."""

VERSION_RECORD = (
    Column("name", "Name"),
    Column("version", "Version", Kind.NUMBER),
    Column("version_id", "Version id"),
    Column("state", "State"),
    Column("status_message", "Because"),
    Column("sealed", "Sealed", Kind.TEXT),
    Column("importing.done_bytes", "Imported", Kind.SIZE),
    Column("importing.total_bytes", "Of", Kind.SIZE),
    Column("importing.done_files", "Files here", Kind.NUMBER),
    Column("importing.total_files", "Of files", Kind.NUMBER),
    Column("deleted_at", "Deleted", Kind.TIME),
    Column("deprecation.reason", "Deprecated"),
    Column("deprecation.replaced_by", "Use instead"),
    Column("aliases", "Aliases", Kind.LIST),
    Column("stage", "Stage"),
    Column("digest", "Digest"),
    Column("content_digest", "Content digest"),
    Column("same_bytes_as", "Same bytes as"),
    Column("size_bytes", "Size", Kind.SIZE),
    Column("file_count", "Files", Kind.NUMBER),
    Column("source", "Source"),
    Column("run_id", "Run"),
    Column("logged_model_id", "Logged model"),
    Column("parent", "Parent"),
    Column("run_link", "Link"),
    Column("description", "Description"),
    Column("tags", "Tags", Kind.MAP),
    Column("metrics", "Metrics", Kind.MAP),
    Column("evaluations", "Evaluations", Kind.MAP),
    Column("contents.framework", "Framework"),
    Column("contents.python_version", "Python"),
    Column("origin.run.name", "Run's name"),
    Column("origin.run.experiment", "Experiment"),
    Column("origin.run.user", "Run by"),
    Column("origin.params", "Params", Kind.MAP),
    Column("origin.tags", "Run's tags", Kind.MAP),
    Column("created_at", "Registered", Kind.TIME),
    Column("created_by", "Registered by"),
    Column("updated_at", "Changed", Kind.TIME),
)

ALIAS_TABLE = (
    Column("alias", "ALIAS"),
    Column("version", "VERSION", Kind.NUMBER),
    Column("moved_at", "MOVED", Kind.TIME, 1),
    Column("moved_by", "BY", Kind.TEXT, 2),
    Column("log_index", "LOG INDEX", Kind.NUMBER, 3),
)

ALIAS_RECORD = (
    Column("name", "Name"),
    Column("alias", "Alias"),
    Column("version", "Version", Kind.NUMBER),
    Column("log_index", "Log index", Kind.NUMBER),
    Column("moved_at", "Moved", Kind.TIME),
    Column("moved_by", "Moved by"),
)

HISTORY_TABLE = (
    Column("at", "AT", Kind.TIME),
    Column("alias", "ALIAS"),
    Column("before", "FROM", Kind.NUMBER),
    Column("after", "TO", Kind.NUMBER),
    Column("by", "BY", Kind.TEXT, 1),
    Column("log_index", "LOG INDEX", Kind.NUMBER, 2),
)

RESOLVED_RECORD = (
    Column("reference", "Reference"),
    Column("name", "Name"),
    Column("model_id", "Model id"),
    Column("version", "Version", Kind.NUMBER),
    Column("digest", "Digest"),
    Column("state", "State"),
    Column("sealed", "Sealed"),
    Column("size_bytes", "Size", Kind.SIZE),
    Column("file_count", "Files", Kind.NUMBER),
    Column("source", "Source"),
    Column("run_id", "Run"),
    Column("moved_to", "Now called"),
    Column("warning", "Warning"),
    Column("status_message", "Because"),
)

EVENT_TABLE = (
    Column("index", "INDEX", Kind.NUMBER),
    Column("at", "AT", Kind.TIME),
    Column("kind", "KIND"),
    Column("model", "MODEL"),
    Column("version", "VERSION", Kind.NUMBER),
    Column("actor.id", "BY"),
    Column("change", "CHANGE"),
)


_MLFLOWS = ("mlflow.", "_mlflow_")


def show_rows(output: Output, found: Iterable[object]) -> Iterable[object]:
    """Return models or versions as a table for people has them; unchanged for --json.

    A version's `standing` is its state, or what stands in the way of using it: an unsealed one is READY to MLflow's clients,
    and nobody should take it for a sealed one; a prompt of theirs never has files. Tags that MLflow's clients set for themselves are left out.
    """
    return found if output.as_json else map(_show_row, found)


def _show_row(found: object) -> dict[str, Any]:
    item: dict[str, Any] = to_json(found)
    if "state" in item:
        item["standing"] = (
            "DELETED" if item.get("deleted_at") is not None
            else "PROMPT" if not item["sealed"] and is_prompt(item["tags"])
            else "UNSEALED" if item["state"] == "READY" and not item["sealed"]
            else "DEPRECATED" if item.get("deprecation") is not None
            else item["state"]
        )  # fmt: skip
    item["tags"] = {key: value for key, value in item["tags"].items() if not key.startswith(_MLFLOWS)}
    return item


def hide_prompts(found: Iterable[Shown], limit: int | None = None) -> Iterator[Shown]:
    """Return models or versions without the prompts of MLflow's clients, at most so many."""
    return islice((each for each in found if not is_prompt(each.tags)), limit)


def show_version(found: object, evaluations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a version as its record for people has it: with what was measured later, and on what, oldest first."""
    item: dict[str, Any] = to_json(found)
    lines = {}
    for number, each in enumerate(evaluations, 1):
        metrics = ", ".join(f"{key}={value}" for key, value in each["metrics"].items())
        where = f" on {each['dataset']}" if each.get("dataset") else ""
        lines[f"{number}{where}"] = metrics
    return {**item, "evaluations": lines}
