"""Registry: everything a user does, as methods on one connection."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from touchmark.client._runs import ActiveRun
from touchmark.client._session import LoggedModel, Session, to_texts
from touchmark.client._transport import Transport
from touchmark.client._types import (
    DeprecatedVersionWarning,
    Files,
    Resolved,
    from_number,
    to_alias,
    to_model,
    to_move,
    to_number,
    to_resolved,
    to_version,
)
from touchmark.domain import errors
from touchmark.domain.aliases import Alias, AliasMove
from touchmark.domain.models import UNCHANGED, RegisteredModel, Unchanged
from touchmark.domain.references import parse_reference
from touchmark.domain.versions import ModelVersion

if TYPE_CHECKING:
    from touchmark.client._transfer import Progress


class Registry:
    """A registry on a server, or in a folder here behind a private server. Close it, or use it in a `with` block."""

    def __init__(self, transport: Transport, on_close: Callable[[], None] | None = None) -> None:
        """Speak through a transport; `on_close` ends what stands behind it."""
        self._session = Session(transport)
        self._on_close = on_close

    @property
    def url(self) -> str:
        """Return the server's address."""
        return self._session.transport.url

    def close(self) -> None:
        """Close the connection, and end the private server of an embedded registry."""
        self._session.transport.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    # ── registered models ──

    def create_model(
        self,
        name: str,
        *,
        description: str | None = None,
        owner: str | None = None,
        contact: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RegisteredModel:
        """Create a registered model without versions. Raises InvalidNameError, ModelExistsError, NameTakenError."""
        body = {"name": name, "description": description, "owner": owner, "contact": contact, "tags": to_texts(tags)}
        return to_model(self._session.create("/models", body))

    def get_model(self, name: str) -> RegisteredModel:
        """Return a registered model by its present name or a former one. Raises ModelNotFoundError."""
        return to_model(self._session.send("GET", _model(name)))

    def list_models(self, prefix: str | None = None, *, limit: int | None = None) -> Iterator[RegisteredModel]:
        """Yield registered models by name, those that begin with `prefix` if given."""
        return self._session.pages("/models", {"prefix": prefix}, to_model, limit)

    def search_models(
        self,
        filter: str | None = None,  # noqa: A002 - the word of every search here
        *,
        words: str | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[RegisteredModel]:
        """Yield registered models that fit a filter (docs/reference/search.md). Raises InvalidFilterError."""
        query = {"filter": filter, "words": words, "order_by": _order(order_by)}
        return self._session.pages("/models", query, to_model, limit)

    def update_model(
        self,
        name: str,
        *,
        description: str | Unchanged | None = UNCHANGED,
        owner: str | Unchanged | None = UNCHANGED,
        contact: str | Unchanged | None = UNCHANGED,
    ) -> RegisteredModel:
        """Change description, owner or contact; None empties one. Raises ModelNotFoundError."""
        given = {"description": description, "owner": owner, "contact": contact}
        body = {field: value for field, value in given.items() if not isinstance(value, Unchanged)}
        return to_model(self._session.send("PATCH", _model(name), body, again=True))

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model a new name; references by the old one go on to work. Raises ModelExistsError, NameTakenError."""
        return to_model(self._session.send("POST", _model(name, "rename"), {"new_name": new_name}))

    def delete_model(self, name: str) -> None:
        """Delete a model with its versions and aliases; the record stays. Raises ModelNotFoundError."""
        self._session.send("DELETE", _model(name), again=False)

    # ── versions ──

    def register_model(
        self,
        source: object,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        parents: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Register the next version of `name`; the model comes into being if it is not there.

        Args:
            source: `runs:/RUN/PATH`, `models:/m-…`, `models:/other/3`, `models:/other@alias`; or a file or folder here
                (`./folder`, a Path); or an object one of the savers knows.
            name: the registered model.
            description: free text.
            tags: tags of the new version.
            parents: references to versions this one was derived from.
            progress: called while bytes move.

        Raises InvalidNameError, InvalidSourceError, NothingToRegisterError, NotFoundError and its cases.

        """
        if not (isinstance(source, str) and source.startswith(("runs:/", "models:/"))):
            logged = self._session.log_model(source, _logged_name(source), progress=progress)
            source = logged.uri
        return self._session.register(source, name, description=description, tags=tags, parents=parents)

    def get_version(self, name: str, version: int, *, include_deleted: bool = False) -> ModelVersion:
        """Return a version with tags, aliases and contents. Raises ModelNotFoundError, VersionNotFoundError."""
        query = "?include_deleted=true" if include_deleted else ""
        return to_version(self._session.send("GET", _version(name, version) + query))

    def list_versions(
        self, name: str, *, include_deleted: bool = False, limit: int | None = None
    ) -> Iterator[ModelVersion]:
        """Yield a model's versions, newest first. Raises ModelNotFoundError."""
        query = {"include_deleted": include_deleted or None}
        return self._session.pages(_model(name, "versions"), query, to_version, limit)

    def search_versions(
        self,
        filter: str | None = None,  # noqa: A002 - the word of every search here
        *,
        words: str | None = None,
        order_by: str | Sequence[str] | None = None,
        include_deleted: bool = False,
        limit: int | None = None,
    ) -> Iterator[ModelVersion]:
        """Yield versions of all models that fit a filter, such as `tags.team = 'risk' AND metrics.auc >= 0.9`.

        Raises InvalidFilterError.
        """
        query = {
            "filter": filter, "words": words, "order_by": _order(order_by), "include_deleted": include_deleted or None,
        }  # fmt: skip
        return self._session.pages("/versions", query, to_version, limit)

    def update_version(self, name: str, version: int, *, description: str | None) -> ModelVersion:
        """Change a version's description. Raises VersionNotFoundError."""
        return to_version(
            self._session.send("PATCH", _version(name, version), {"description": description}, again=True)
        )

    def delete_version(self, name: str, version: int) -> None:
        """Delete a version and the aliases on it; its number stays taken. Raises VersionNotFoundError."""
        self._session.send("DELETE", _version(name, version), again=False)

    def restore_version(self, name: str, version: int) -> ModelVersion:
        """Bring a deleted version back. Raises VersionNotFoundError, VersionNotDeletedError."""
        return to_version(self._session.send("POST", _version(name, version, "restore")))

    def deprecate(self, name: str, version: int, reason: str, *, replaced_by: str | None = None) -> ModelVersion:
        """Say that a version should not be used any more, and why. Raises VersionNotFoundError."""
        body = {"reason": reason, "replaced_by": replaced_by}
        return to_version(self._session.send("POST", _version(name, version, "deprecate"), body, again=True))

    def record_evaluation(
        self, name: str, version: int, metrics: Mapping[str, float], *, dataset: str | None = None
    ) -> None:
        """Add later results to a version; its origin stays as it was frozen. Raises VersionNotFoundError."""
        body = {"metrics": {key: from_number(value) for key, value in metrics.items()}, "dataset": dataset}
        self._session.create(_version(name, version, "evaluations"), body)

    def list_evaluations(self, name: str, version: int) -> list[dict[str, Any]]:
        """Return a version's later results, oldest first. Raises VersionNotFoundError."""
        items = self._session.send("GET", _version(name, version, "evaluations"))["items"]
        return [{**item, "metrics": {k: to_number(v) for k, v in item["metrics"].items()}} for item in items]

    # ── tags ──

    def setto_texts(self, name: str, tags: Mapping[str, Any], *, version: int | None = None) -> None:
        """Set tags of a model, or of one of its versions; the others stay. Raises InvalidTagError, NotFoundError."""
        self._session.send("PUT", _subject(name, version) + "/tags", {"tags": to_texts(tags) or {}})

    def delete_tag(self, name: str, key: str, *, version: int | None = None) -> None:
        """Delete a tag of a model, or of one of its versions. Raises TagNotFoundError, NotFoundError."""
        self._session.send("DELETE", f"{_subject(name, version)}/tags?{urlencode({'key': key})}", again=False)

    # ── aliases ──

    def set_alias(self, name: str, alias: str, version: int, *, expected: int | None = None) -> Alias:
        """Point an alias at a version.

        `expected` is the log index of the alias as you saw it (-1: there was none): it then moves only if nobody else
        moved it since. Raises VersionNotFoundError, InvalidAliasError, AliasMovedError.
        """
        path = _model(name, "aliases", alias)
        return to_alias(
            self._session.send("PUT", path, {"version": version}, headers=_condition(expected), again=expected is None)
        )

    def get_alias(self, name: str, alias: str, *, as_of: int | str | None = None) -> Alias:
        """Return an alias as it stands, or as it stood at an instant (microseconds UTC, or ISO 8601 text).

        Raises AliasNotFoundError.
        """
        query = f"?{urlencode({'as_of': as_of})}" if as_of is not None else ""
        return to_alias(self._session.send("GET", _model(name, "aliases", alias) + query))

    def list_aliases(self, name: str) -> list[Alias]:
        """Return a model's aliases. Raises ModelNotFoundError."""
        return [to_alias(item) for item in self._session.send("GET", _model(name, "aliases"))["items"]]

    def delete_alias(self, name: str, alias: str, *, expected: int | None = None) -> None:
        """Take an alias away; its history stays. Raises AliasNotFoundError, AliasMovedError."""
        self._session.send("DELETE", _model(name, "aliases", alias), headers=_condition(expected), again=False)

    def history(self, reference: str, *, limit: int | None = None) -> list[AliasMove]:
        """Return every move of an alias (`churn@champion`) or of all aliases of a model (`churn`), newest first.

        Raises ModelNotFoundError.
        """
        name, _, alias = reference.removeprefix("models:/").partition("@")
        query: dict[str, Any] = {"alias": alias or None}
        moves: list[AliasMove] = []
        while limit is None or len(moves) < limit:
            asked = {key: value for key, value in query.items() if value is not None}
            page = self._session.send("GET", f"{_model(name, 'history')}?{urlencode({**asked, 'limit': 1000})}")
            moves += [to_move(item) for item in page["items"]]
            if not page.get("next_cursor"):
                break
            query["before"] = moves[-1].log_index
        return moves[:limit]

    # ── references ──

    def resolve(self, reference: str) -> Resolved:
        """Return what a reference means now: name, number, digest, origin. Warns if the version is deprecated.

        Raises InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError.
        """
        found = to_resolved(self._session.send("GET", f"/resolve?ref={quote(reference, safe='')}"))
        if found.warning:
            warnings.warn(found.warning, DeprecatedVersionWarning, stacklevel=2)
        return found

    def list_files(self, reference: str) -> Files:
        """Return the files of a sealed version. Raises VersionUnsealedError, NotFoundError."""
        found = self.resolve(reference)
        return self._files(found)

    def _files(self, found: Resolved) -> Files:
        """Return the files the manifest lists, from bytes that were checked against the digest."""
        if found.digest is None:
            reason = found.status_message or "its bytes are not held here."
            raise errors.VersionUnsealedError(name=found.name, version=found.version, reason=reason)
        from touchmark.client._manifests import read_manifest

        answer = self._session.transport.request("GET", f"/v2/m/{found.model_id}/manifests/{found.digest}")
        return read_manifest(answer.body, found.digest)

    def pull(self, reference: str, target: str | Path = ".", *, progress: Progress | None = None) -> Path:
        """Write a version's files (or the part below a path in the reference) into a folder, each byte checked.

        Returns the folder. Raises DigestMismatchError, VersionUnsealedError, ArtifactNotFoundError, NotFoundError.
        """
        from touchmark.client._transfer import download_files

        found = self.resolve(reference)
        files = self._files(found).files
        inner = getattr(parse_reference(reference), "path", None)
        if inner is not None:
            files = tuple(file for file in files if file.path == inner or file.path.startswith(inner + "/"))
            if not files:
                raise errors.ArtifactNotFoundError(path=inner)
        folder = Path(target)
        folder.mkdir(parents=True, exist_ok=True)
        download_files(self._session.transport, f"m/{found.model_id}", files, folder, progress)
        return folder

    def load(
        self,
        reference: str,
        *,
        allow_pickle: bool = False,
        trusted_types: Collection[str] = (),
        loader: str | None = None,
        progress: Progress | None = None,
    ) -> object:
        """Return the object a version holds, from files that were each checked.

        Args:
            reference: the version.
            allow_pickle: load pickles too, which run whatever code is in them.
            trusted_types: types skops may build beside those it trusts by itself; the refusal names them.
            loader: the loader, if not the one its files point at.
            progress: called while bytes move.

        Raises UnsafeFormatError, MissingExtraError, and what `pull` raises.

        """
        from touchmark.client._cache import open_snapshot
        from touchmark.client.loaders import load_model

        found = self.resolve(reference)
        files = self._files(found).files
        folder = open_snapshot(self._session.transport, f"m/{found.model_id}", str(found.digest), files, progress)
        sizes = {file.path: file.size_bytes for file in files}
        return load_model(folder, sizes, allow_pickle=allow_pickle, trusted_types=trusted_types, loader=loader)

    def diff(self, left: str, right: str) -> dict[str, Any]:
        """Compare two versions: files, tags, params, metrics, contents. Raises NotFoundError and its cases."""
        found: dict[str, Any] = self._session.send("GET", f"/diff?{urlencode({'left': left, 'right': right})}")
        return found

    def lineage(self, reference: str, *, depth: int = 3) -> dict[str, Any]:
        """Return what a version came from and what came from it: nodes and typed edges. Raises NotFoundError."""
        found: dict[str, Any] = self._session.send("GET", f"/lineage?{urlencode({'ref': reference, 'depth': depth})}")
        return found

    # ── runs ──

    def start_run(
        self,
        experiment: str | int = "Default",
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> ActiveRun:
        """Begin a run; the experiment comes into being if a name is new. Use it in a `with` block."""
        body = {
            "experiment": experiment, "name": name, "user": _user(), "params": to_texts(params), "tags": to_texts(tags),
        }  # fmt: skip
        return ActiveRun(
            self._session, self._session.send("POST", "/runs", {key: value for key, value in body.items() if value})
        )

    def get_run(self, run_id: str) -> dict[str, Any]:
        """Return a run with its params, latest metrics, tags and data sets. Raises RunNotFoundError."""
        found: dict[str, Any] = self._session.send("GET", f"/runs/{quote(run_id, safe='')}")
        return found

    def delete_run(self, run_id: str) -> None:
        """Delete a run. Versions registered from it stay as they are. Raises RunNotFoundError."""
        self._session.send("DELETE", f"/runs/{quote(run_id, safe='')}", again=False)

    def log_model(self, model: object, name: str, **options: Any) -> LoggedModel:
        """Save a model outside any run; the options are those of `ActiveRun.log_model`."""
        return self._session.log_model(model, name, **options)

    # ── the log ──

    def list_events(
        self, *, after: int = -1, model: str | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield entries of the log above index `after`, oldest first, of one model if named."""
        left = limit
        while left is None or left > 0:
            query = {"after": after, "limit": min(left or 100, 1000), "model": model}
            page = self._session.send("GET", f"/events?{urlencode({k: v for k, v in query.items() if v is not None})}")
            yield from page["items"]
            if not page["items"]:
                return
            after = page["next_after"]
            if left is not None:
                left -= len(page["items"])

    def get_log_head(self) -> dict[str, Any]:
        """Return the log's size and root, and the registry's id."""
        found: dict[str, Any] = self._session.send("GET", "/log")
        return found


def _model(name: str, *parts: object) -> str:
    return "/".join(["/models", quote(name, safe=""), *(quote(str(part), safe="") for part in parts)])


def _version(name: str, version: int, *parts: str) -> str:
    return _model(name, "versions", version, *parts)


def _subject(name: str, version: int | None) -> str:
    return _model(name) if version is None else _version(name, version)


def _order(order_by: str | Sequence[str] | None) -> str | None:
    return order_by if order_by is None or isinstance(order_by, str) else ", ".join(order_by)


def _condition(expected: int | None) -> dict[str, str]:
    if expected is None:
        return {}
    return {"If-None-Match": "*"} if expected == -1 else {"If-Match": f'"{expected}"'}


def _logged_name(source: object) -> str:
    if isinstance(source, str | Path):
        kept = "".join(char if char.isalnum() or char in "_- " else "_" for char in Path(source).resolve().name)
        return kept.strip() or "model"
    return type(source).__name__.lower() or "model"


def _user() -> str | None:
    return os.environ.get("USER") or os.environ.get("USERNAME")
