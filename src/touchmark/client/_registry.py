"""Registry: everything a user does, as methods on one connection.

Addresses and bodies of /api/v1 are known here (and in _session.py, _runs.py); how a request is sent, and what JSON becomes,
is not. What one method alone needs is imported in it: `resolve` must stay cheap for a process that does nothing else.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, SupportsFloat

from touchmark.client._session import Session, model_path, to_texts
from touchmark.client._transport import Transport, quote_part, write_query
from touchmark.client._types import (
    DeprecatedVersionWarning,
    Files,
    Resolved,
    from_number,
    to_alias,
    to_artifact,
    to_experiment,
    to_logged_model,
    to_metric,
    to_model,
    to_move,
    to_number,
    to_resolved,
    to_run,
    to_version,
)
from touchmark.domain import errors
from touchmark.domain.aliases import parse_alias
from touchmark.domain.models import UNCHANGED, Unchanged
from touchmark.domain.names import parse_model_name
from touchmark.domain.text import list_first
from touchmark.domain.versions import VersionState

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from numpy import ndarray

    from touchmark.client._runs import ActiveRun
    from touchmark.client._session import LoggedModel
    from touchmark.client._transfer import Progress
    from touchmark.domain.aliases import Alias, AliasMove
    from touchmark.domain.models import RegisteredModel
    from touchmark.domain.tracking import ArtifactEntry, Experiment, Metric, Run
    from touchmark.domain.tracking import LoggedModel as LoggedModelRecord
    from touchmark.domain.versions import ModelVersion, VersionFile

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two characters at least: C: is a drive


class Registry:
    """A registry on a server, or in a folder here behind a private server. Close it, or use it in a `with` block.

    Any thread may use it. Times are microseconds UTC. Whatever the server refuses is raised as the class of
    `touchmark.errors` it names; ServerUnreachableError if it does not answer. Requests that can safely be sent again are.
    """

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
            self._session.transport.is_over = True
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
        return to_model(self._session.send("GET", model_path(name)))

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
        return to_model(self._session.send("PATCH", model_path(name), body, again=True))

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model a new name; references by the old one go on to work. Raises ModelExistsError, NameTakenError."""
        return to_model(self._session.send("POST", model_path(name, "rename"), {"new_name": new_name}))

    def delete_model(self, name: str) -> None:
        """Delete a model with its versions and aliases; the record stays. Raises ModelNotFoundError."""
        self._session.send("DELETE", model_path(name))

    # ── versions ──

    def register_model(
        self,
        source: object,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
        run_link: str | None = None,
        format: str | None = None,  # noqa: A002 - the word users know from every saver
        progress: Progress | None = None,
        wait: bool | float = False,
    ) -> ModelVersion:
        """Register the next version of `name`; the model comes into being if it is not there.

        Args:
            source: `runs:/RUN/PATH`, `models:/m-…`, `models:/other/3`, `models:/other@alias`; or a file or folder here
                (`./folder`, a Path); or an object one of the savers knows; or an address that the server imports from
                (`s3://…`, `https://…`, `hf://org/repo`).
            name: the registered model.
            description: free text.
            tags: tags of the new version.
            parents: references to versions this one was derived from.
            run_link: where to look at the training run, for people.
            format: the saver of an object, if not the one that knows it.
            progress: called while bytes move.
            wait: of an address: until the server has imported it, or for so many seconds at most; the version may then
                still be PENDING. Without, it is returned as it stands.

        Raises InvalidNameError, InvalidSourceError, NothingToRegisterError, NotFoundError and its cases; VersionNotReadyError,
        after a wait, for a version whose import failed.

        """
        parse_model_name(name)  # before any byte is sent
        reference = find_reference(source)
        if reference is None:
            known = self._list_known(parents)
            logged = self._session.log_model(
                source, _logged_name(source), format=format, progress=progress, known=known
            )
            reference = logged.uri
        version = self._session.register(
            reference, name, description=description, tags=tags, parents=parents, run_link=run_link
        )
        return self._wait(version, None if wait is True else float(wait), progress) if wait else version

    def _wait(self, version: ModelVersion, seconds: float | None, progress: Progress | None) -> ModelVersion:
        """Return a version as it stands once it has its files, or after so many seconds. Raises VersionNotReadyError."""
        import time

        from touchmark.client._transfer import Transfer

        end = None if seconds is None else time.monotonic() + seconds
        pause = 0.05
        while version.state is VersionState.PENDING and (end is None or time.monotonic() < end):
            time.sleep(pause if end is None else max(0.0, min(pause, end - time.monotonic())))
            pause = min(pause * 1.5, 2.0)
            version = self.get_version(version.name, version.version)
            if progress is not None and version.importing is not None:
                done = version.importing
                progress(Transfer(version.source, done.done_bytes, max(done.total_bytes or 0, done.done_bytes)))
        if version.state is VersionState.FAILED:
            reason = f"{version.name}/{version.version} could not be imported: {version.status_message}"
            raise errors.VersionNotReadyError(
                reason, name=version.name, version=version.version, state=version.state.value
            )
        return version

    def _list_known(self, parents: Sequence[str]) -> dict[str, str]:
        """Return which repository holds which blobs of the parents: what a child has in common with them need not be sent."""
        known: dict[str, str] = {}
        for parent in parents:
            with suppress(errors.NotFoundError, errors.ConflictError, errors.InvalidError, errors.DeniedError):
                found, listed, _ = self._find(parent)
                known |= dict.fromkeys((file.digest for file in listed.files), f"m/{found.model_id}")
        return known

    def get_version(self, name: str, version: int, *, include_deleted: bool = False) -> ModelVersion:
        """Return a version with tags, aliases and contents. Raises ModelNotFoundError, VersionNotFoundError."""
        query = "?include_deleted=true" if include_deleted else ""
        return to_version(self._session.send("GET", _version(name, version) + query))

    def list_versions(
        self, name: str, *, include_deleted: bool = False, limit: int | None = None
    ) -> Iterator[ModelVersion]:
        """Yield a model's versions, newest first. Raises ModelNotFoundError."""
        query = {"include_deleted": include_deleted or None}
        return self._session.pages(model_path(name, "versions"), query, to_version, limit)

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
        self._session.send("DELETE", _version(name, version))

    def restore_version(self, name: str, version: int) -> ModelVersion:
        """Bring a deleted version back. Raises VersionNotFoundError, VersionNotDeletedError."""
        return to_version(self._session.send("POST", _version(name, version, "restore")))

    def deprecate(self, name: str, version: int, reason: str, *, replaced_by: str | None = None) -> ModelVersion:
        """Say that a version should not be used any more, and why. Raises VersionNotFoundError."""
        body = {"reason": reason, "replaced_by": replaced_by}
        return to_version(self._session.send("POST", _version(name, version, "deprecate"), body, again=True))

    def record_evaluation(
        self, name: str, version: int, metrics: Mapping[str, SupportsFloat], *, dataset: str | None = None
    ) -> None:
        """Add later results to a version; its origin stays as it was frozen. Raises VersionNotFoundError."""
        body = {"metrics": {key: from_number(value) for key, value in metrics.items()}, "dataset": dataset}
        self._session.create(_version(name, version, "evaluations"), body)

    def list_evaluations(self, name: str, version: int) -> list[dict[str, Any]]:
        """Return a version's later results, oldest first. Raises VersionNotFoundError."""
        items = self._session.send("GET", _version(name, version, "evaluations"))["items"]
        return [{**item, "metrics": {k: to_number(v) for k, v in item["metrics"].items()}} for item in items]

    # ── tags ──

    def set_tags(self, name: str, tags: Mapping[str, Any], *, version: int | None = None) -> None:
        """Set tags of a model, or of one of its versions; the others stay. Raises InvalidTagError, NotFoundError."""
        self._session.send("PUT", _subject(name, version) + "/tags", {"tags": to_texts(tags) or {}})

    def delete_tag(self, name: str, key: str, *, version: int | None = None) -> None:
        """Delete a tag of a model, or of one of its versions. Raises TagNotFoundError, NotFoundError."""
        self._session.send("DELETE", f"{_subject(name, version)}/tags?{write_query({'key': key})}")

    # ── aliases ──

    def set_alias(self, name: str, alias: str, version: int, *, expected: int | None = None) -> Alias:
        """Point an alias at a version.

        `expected` is the log index of the alias as you saw it (-1: there was none): it then moves only if nobody else
        moved it since. Raises VersionNotFoundError, InvalidAliasError, AliasMovedError.
        """
        if not isinstance(version, int) or isinstance(version, bool):
            raise errors.InvalidFieldError(field="version", reason=f"write a number such as 3, not {version!r}")
        path = model_path(name, "aliases", parse_alias(alias))
        return to_alias(
            self._session.send("PUT", path, {"version": version}, headers=_condition(expected), again=expected is None)
        )

    def get_alias(self, name: str, alias: str, *, as_of: int | str | None = None) -> Alias:
        """Return an alias as it stands, or as it stood at an instant (microseconds UTC, or ISO 8601 text).

        Raises InvalidAliasError, AliasNotFoundError.
        """
        query = f"?{write_query({'as_of': as_of})}" if as_of is not None else ""
        return to_alias(self._session.send("GET", model_path(name, "aliases", parse_alias(alias)) + query))

    def list_aliases(self, name: str) -> list[Alias]:
        """Return a model's aliases. Raises ModelNotFoundError."""
        return [to_alias(item) for item in self._session.send("GET", model_path(name, "aliases"))["items"]]

    def delete_alias(self, name: str, alias: str, *, expected: int | None = None) -> None:
        """Take an alias away; its history stays. Raises InvalidAliasError, AliasNotFoundError, AliasMovedError."""
        self._session.send("DELETE", model_path(name, "aliases", parse_alias(alias)), headers=_condition(expected))

    def history(self, reference: str, *, limit: int | None = None) -> list[AliasMove]:
        """Return every move of an alias (`churn@champion`) or of all aliases of a model (`churn`), newest first.

        Raises ModelNotFoundError, AliasNotFoundError of an alias that never was.
        """
        name, _, alias = reference.removeprefix("models:/").partition("@")
        query: dict[str, Any] = {"alias": alias or None}
        moves: list[AliasMove] = []
        while limit is None or len(moves) < limit:
            asked = {key: value for key, value in query.items() if value is not None}
            page = self._session.send("GET", f"{model_path(name, 'history')}?{write_query({**asked, 'limit': 1000})}")
            moves += [to_move(item) for item in page["items"]]
            if not page.get("next_cursor"):
                break
            query["before"] = moves[-1].log_index
        return moves[:limit]

    # ── references ──

    def resolve(self, reference: str) -> Resolved:
        """Return what a reference means now: name, number, digest, source. Warns if the version is deprecated.

        Raises InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError.
        """
        return _warn(self._resolve(reference))

    def _resolve(self, reference: str) -> Resolved:
        if self._session.transport.is_offline:
            if (kept := self._find_kept(reference)) is None:
                raise errors.OfflineError(what=repr(reference))
            return kept[0]
        found = to_resolved(self._session.send("GET", f"/resolve?ref={quote_part(reference)}"))
        _before, pinned, digest = reference.partition("@sha256:")
        if pinned and found.digest != (asked := "sha256:" + digest.partition("/")[0]):
            raise errors.DigestMismatchError(expected=asked, found=found.digest, path="manifest")
        return found

    def _find_kept(self, reference: str) -> tuple[Resolved, Files] | None:
        """Return what a reference meant when it was last loaded here, if the list of its files is still in the cache."""
        from touchmark.client._cache import find_cache, open_cache

        whole, _ = _split(reference)
        cache = open_cache() if self._session.transport.is_offline else find_cache()
        found = cache.find_resolved(self._session.transport.known_as, whole) if cache is not None else None
        if (
            cache is None
            or found is None
            or found.digest is None
            or (files := cache.find_manifest(found.digest)) is None
        ):
            return None
        return found, files

    def _find(self, reference: str) -> tuple[Resolved, Files, bytes | None]:
        """Return what a reference means and its files, and the manifest's bytes if they were fetched for that.

        What is pinned and in the cache means the same for ever, and is not asked for.
        """
        if (self._session.transport.is_offline or "@sha256:" in reference) and (kept := self._find_kept(reference)):
            return *kept, None
        found = self._resolve(reference)
        content = self._get_manifest(found)
        from touchmark.client._manifests import read_manifest

        return found, read_manifest(content, str(found.digest)), content

    def list_files(self, reference: str) -> Files:
        """Return the files of a sealed version, from a manifest that was checked against the version's digest.

        Raises DigestMismatchError, VersionUnsealedError, NotFoundError.
        """
        return self._find(reference)[1]

    def _get_manifest(self, found: Resolved) -> bytes:
        if found.digest is None:
            reason = found.status_message or "its bytes are not held here."
            raise errors.VersionUnsealedError(name=found.name, version=found.version, reason=reason)
        return self._session.transport.request("GET", f"/v2/m/{found.model_id}/manifests/{found.digest}").body

    def pull(
        self, reference: str, target: str | Path | None = None, *, force: bool = False, progress: Progress | None = None
    ) -> Path:
        """Write a version's files (or the part below a path in the reference) into a folder, and return the folder.

        The folder is `target`, or NAME-N here. Each file keeps its path in the version and gets its name only when its bytes
        are right. Files of this version that are there already and right stay. A folder that holds anything else is refused,
        and nothing is written; with `force` wrong files are replaced and others left alone. A home is always refused. What is in the cache is copied from there;
        nothing is put into it. A pull that was cut goes on where it was when it is called again: until then a folder
        `.touchmark-pull` is in the target. Raises DigestMismatchError (nothing of that file is left),
        InvalidFieldError, VersionUnsealedError, VersionPurgedError, ArtifactNotFoundError, NotFoundError, StorageFullError.
        """
        from pathlib import Path

        from touchmark.client._cache import find_cache
        from touchmark.client._downloads import download_files, open_source

        whole, inner = _split(reference)
        found, listed, _ = self._find(whole)
        _warn(found)
        files: Sequence[VersionFile] = listed.files
        if inner is not None:
            files = [file for file in files if file.path == inner or file.path.startswith(inner + "/")]
            if not files:
                raise errors.ArtifactNotFoundError(path=inner)
        folder = Path(f"{found.name}-{found.version}" if target is None else target)
        beside = None if force else {file.path for file in listed.files}
        several = len(files) > 1
        with open_source(self._session.transport, f"m/{found.model_id}", several=several) as source:
            download_files(source, listed.digest, files, folder, progress, find_cache(), beside=beside)
        return folder

    def fetch(self, reference: str, *, progress: Progress | None = None) -> Path:
        """Bring a version into the cache, and return the folder of its files there.

        The folder is shared: do not write to it. It stays for as long as this process lives, and until the space is needed
        for others. Raises what `pull` raises.
        """
        return self._fetch(*_warn_first(self._find(_get_whole(reference))), reference, progress)

    def _fetch(
        self, found: Resolved, listed: Files, manifest: bytes | None, reference: str, progress: Progress | None
    ) -> Path:
        from touchmark.client._cache import open_cache
        from touchmark.client._downloads import open_source

        cache = open_cache()
        several = len(listed.files) > 1
        with open_source(self._session.transport, f"m/{found.model_id}", several=several) as source:
            folder = cache.open_snapshot(source, listed.digest, manifest, listed.files, progress)
        if manifest is not None:
            names = {_get_whole(reference), f"{found.name}/{found.version}", f"{found.name}@{found.digest}"}
            cache.note_resolved(self._session.transport.known_as, sorted(names), found)
        return folder

    def load(
        self,
        reference: str,
        *,
        allow_pickle: bool = False,
        trusted_types: Collection[str] = (),
        loader: str | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> object:
        """Return the object a version holds, from files that were each checked and are kept in the cache.

        A pinned reference (`models:/NAME@sha256:…`) that is in the cache costs no request.

        Args:
            reference: the version, whole.
            allow_pickle: load pickles too, which run whatever code is in them.
            trusted_types: types skops or Keras may build beside those trusted by themselves; the refusal names them.
            loader: the loader, if not the one its files point at.
            progress: called while bytes move.
            options: what the loader takes beside that (docs/reference/formats.md): `tensors=[…]`, `into=module`.

        Raises UnsafeFormatError, InvalidFieldError, MissingExtraError, and what `pull` raises.

        """
        from touchmark.client.loaders import load_model

        found, listed, manifest = _warn_first(self._find(_get_whole(reference)))
        folder = self._fetch(found, listed, manifest, reference, progress)
        sizes = {file.path: file.size_bytes for file in listed.files}
        return load_model(
            folder, sizes, allow_pickle=allow_pickle, trusted_types=trusted_types, loader=loader, options=options
        )

    def open_file(self, reference: str, path: str | None = None) -> BufferedReader:
        """Open one file of a version to read, where it is: in the cache, or by ranges over the network.

        It can be sought in, and reads ahead by 4 MiB at most. A file that is read from its beginning to its end is
        checked against its digest; a small one (256 KiB) always is, since it comes whole.

        Args:
            reference: the version, or the file in it: `models:/churn/3/config.json`.
            path: the file, if the reference does not end in it.

        Raises ArtifactNotFoundError, DigestMismatchError when reading, and what `pull` raises.

        """
        found, file = self._find_file(reference, path)
        _warn(found)
        return self._open_file(found, file)

    def _find_file(self, reference: str, path: str | None) -> tuple[Resolved, VersionFile]:
        whole, inner = _split(reference)
        wanted = "/".join(part for part in (inner, path) if part)
        found, listed, _ = self._find(whole)
        for file in listed.files:
            if file.path == wanted:
                return found, file
        there = list_first([file.path for file in listed.files])
        if not wanted:
            raise errors.InvalidReferenceError(reference=reference, reason=f"name a file of the version, too: {there}")
        message = f"There is no file {wanted!r} in {found.name}/{found.version}; it has {there}."
        raise errors.ArtifactNotFoundError(message, path=wanted)

    def _open_file(self, found: Resolved, file: VersionFile) -> BufferedReader:
        from io import BufferedReader

        from touchmark.client._cache import find_cache
        from touchmark.client._downloads import BlobSource

        cache = find_cache()
        if cache is not None and (blob := cache.find_blob(file)) is not None:
            return blob.open("rb")
        from touchmark.client._remote_file import RemoteFile

        if self._session.transport.is_offline:
            raise errors.OfflineError(what=repr(file.path))
        return BufferedReader(RemoteFile(BlobSource(self._session.transport, f"m/{found.model_id}"), file), 1 << 16)

    def read_tensor(self, reference: str, path: str, name: str) -> ndarray[Any, Any]:
        """Return one tensor of a `.safetensors` file of a version as a NumPy array; the rest of the file is not fetched.

        What comes by range cannot be checked against the file's digest; what is in the cache was. bfloat16, which NumPy
        does not have, becomes float32, which holds each of its values. Raises InvalidFieldError if there is no such
        tensor, MissingExtraError without NumPy, and what `open_file` raises.
        """
        from touchmark.client._tensors import read_tensor

        found, file = self._find_file(reference, path)
        _warn(found)
        with self._open_file(found, file) as stream:
            return read_tensor(stream, file.path, name)

    def diff(self, left: str, right: str) -> dict[str, Any]:
        """Compare two versions, and return the HTTP API's answer: files, tags, params, metrics, contents, `same_bytes`.

        Raises NotFoundError and its cases.
        """
        return self._session.get(f"/diff?{write_query({'left': left, 'right': right})}", "files")

    def lineage(self, reference: str, *, depth: int = 3) -> dict[str, Any]:
        """Return what a version came from and what came from it, as the HTTP API answers: nodes and typed edges.

        Raises NotFoundError and its cases.
        """
        return self._session.get(f"/lineage?{write_query({'ref': reference, 'depth': depth})}", "nodes")

    # ── experiments, runs, logged models ──

    def create_experiment(self, name: str, *, tags: Mapping[str, Any] | None = None) -> Experiment:
        """Create an experiment. Raises ExperimentExistsError, InvalidFieldError."""
        return to_experiment(self._session.send("POST", "/experiments", {"name": name, "tags": to_texts(tags) or {}}))

    def get_experiment(self, experiment_id: int) -> Experiment:
        """Return an experiment, deleted or not. Raises ExperimentNotFoundError."""
        return to_experiment(self._session.send("GET", f"/experiments/{experiment_id}"))

    def list_experiments(self, *, limit: int | None = None) -> Iterator[Experiment]:
        """Yield experiments, newest first."""
        return self._session.pages("/experiments", {}, to_experiment, limit)

    def start_run(
        self,
        experiment: str | int = "Default",
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> ActiveRun:
        """Begin a run in an experiment, named or by its id; a new name makes one. Use it in a `with` block.

        Raises InvalidFieldError, ExperimentNotFoundError for an id.
        """
        from touchmark.client._runs import ActiveRun

        body = {
            "experiment": experiment, "name": name, "user": _user(), "params": to_texts(params), "tags": to_texts(tags),
        }  # fmt: skip
        return ActiveRun(
            self._session,
            self._session.send("POST", "/runs", {key: value for key, value in body.items() if value is not None}),
        )

    def get_run(self, run_id: str) -> Run:
        """Return a run with its params, latest metrics, tags and data sets, deleted or not. Raises RunNotFoundError."""
        return to_run(self._session.send("GET", _run(run_id)))

    def list_runs(self, experiment: str | int = "Default", *, limit: int | None = None) -> Iterator[Run]:
        """Yield an experiment's runs, newest first. Raises ExperimentNotFoundError."""
        return self._session.pages("/runs", {"experiment": experiment}, to_run, limit)

    def list_metrics(self, run_id: str, key: str, *, limit: int | None = None) -> Iterator[Metric]:
        """Yield every measurement of one metric of a run, by step and time. Raises RunNotFoundError."""
        return self._session.pages(_run(run_id, "metrics"), {"key": key}, to_metric, limit)

    def list_artifacts(self, run_id: str, path: str | None = None, *, recursive: bool = False) -> list[ArtifactEntry]:
        """Return what lies in a folder of a run (its root if None), or every file below it. Raises RunNotFoundError."""
        query = {"path": path, "recursive": "true" if recursive else None}
        given = write_query({name: value for name, value in query.items() if value is not None})
        return [
            to_artifact(item) for item in self._session.send("GET", f"{_run(run_id, 'artifacts')}?{given}")["items"]
        ]

    def delete_run(self, run_id: str) -> None:
        """Delete a run. Versions registered from it stay as they are. Raises RunNotFoundError."""
        self._session.send("DELETE", _run(run_id))

    def restore_run(self, run_id: str) -> None:
        """Bring a deleted run back. Raises RunNotFoundError."""
        self._session.send("POST", _run(run_id, "restore"), again=True)

    def get_logged_model(self, model_id: str) -> LoggedModelRecord:
        """Return a logged model by its id, `m-…`. Raises LoggedModelNotFoundError."""
        return to_logged_model(self._session.send("GET", f"/logged-models/{_quote_id('model_id', model_id)}"))

    def log_model(self, model: object, name: str, **options: Any) -> LoggedModel:
        """Save a model outside any run; the options are those of `ActiveRun.log_model`."""
        return self._session.log_model(model, name, **options)

    # ── the log ──

    def list_events(
        self, *, after: int = -1, model: str | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield entries of the log above index `after` as the HTTP API gives them, oldest first, of one model if named.

        It ends with the last entry there is; go on later with `after` set to that one's `index`.
        """
        left = limit
        while left is None or left > 0:
            query = {"after": after, "limit": min(left or 100, 1000), "model": model}
            page = self._session.send(
                "GET", f"/events?{write_query({k: v for k, v in query.items() if v is not None})}"
            )
            yield from page["items"]
            if not page["items"]:
                return
            after = page["next_after"]
            if left is not None:
                left -= len(page["items"])

    def get_log_head(self) -> dict[str, Any]:
        """Return the log's size and root, and the registry's id."""
        return self._session.get("/log", "size")


def _version(name: str, version: int, *parts: str) -> str:
    return model_path(name, "versions", version, *parts)


def _subject(name: str, version: int | None) -> str:
    return model_path(name) if version is None else _version(name, version)


def _order(order_by: str | Sequence[str] | None) -> str | None:
    return order_by if order_by is None or isinstance(order_by, str) else ", ".join(order_by)


def _condition(expected: int | None) -> dict[str, str]:
    if expected is None:
        return {}
    return {"If-None-Match": "*"} if expected == -1 else {"If-Match": f'"{expected}"'}


def _run(run_id: str, *parts: str) -> str:
    return "/".join(["/runs", _quote_id("run_id", run_id), *parts])


def _quote_id(field: str, text: str) -> str:
    """Return an id as a segment of a path. Raises InvalidFieldError for none: what is left would be another route."""
    if not text:
        raise errors.InvalidFieldError(field=field, reason="it is empty")
    return quote_part(text)


def _warn(found: Resolved) -> Resolved:
    """Say of a deprecated version that it is one, at the line of the user's that asked for it (two calls up)."""
    if found.warning:
        warnings.warn(found.warning, DeprecatedVersionWarning, stacklevel=3)
    return found


def _warn_first(found: tuple[Resolved, Files, bytes | None]) -> tuple[Resolved, Files, bytes | None]:
    """Say of a deprecated version that it is one, as `_warn` does."""
    if found[0].warning:
        warnings.warn(found[0].warning, DeprecatedVersionWarning, stacklevel=3)
    return found


def _split(reference: str) -> tuple[str, str | None]:
    """Return a reference to a version without `models:/` and without a path in it, and that path."""
    from touchmark.domain.references import parse_model_reference

    inner = parse_model_reference(reference).path
    whole = reference.removeprefix("models:/")
    return (whole, None) if inner is None else (whole[: -len(inner) - 1], inner)


def _get_whole(reference: str) -> str:
    """Return a reference to a whole version. Raises InvalidReferenceError for one to a part of it."""
    whole, inner = _split(reference)
    if inner is not None:
        reason = "a version is loaded whole: leave out the path after it, or pull it"
        raise errors.InvalidReferenceError(reference=reference, reason=reason)
    return whole


def find_reference(source: object) -> str | None:
    """Return the reference a source is, or None for a path here or an object.

    What begins with a scheme is a reference, and what begins with `.` or `/` never is. `NAME/3` and `NAME@alias` are unless
    there is a file or folder of that name: then nobody can tell, and InvalidSourceError is raised.
    """
    if not isinstance(source, str):
        return None
    if _SCHEME.match(source):
        return source
    from touchmark.domain.references import parse_model_reference

    try:
        parse_model_reference(source)
    except errors.InvalidReferenceError:
        return None
    if os.path.lexists(source):
        reason = f"it is a path here and may be a version: write ./{source} or models:/{source}"
        raise errors.InvalidSourceError(source=source, reason=reason)
    return f"models:/{source}"


def _logged_name(source: object) -> str:
    """Return a name for the logged model a path or an object becomes on its way; the rule is domain/tracking.py's."""
    if isinstance(source, str | os.PathLike):
        from pathlib import Path

        name = Path(os.fsdecode(os.fspath(source))).resolve().name
    else:
        name = type(source).__name__.lower()
    return "".join(char if char.isalnum() or char in "_-" else "_" for char in name)[:100] or "model"


def _user() -> str | None:
    return os.environ.get("USER") or os.environ.get("USERNAME")
