"""Fsck: check that all a registry holds agrees with all else it holds.

One read of the database in one snapshot, while a server runs or not: the log is checked against its own tree, replayed
into an empty catalogue which is compared with the present one cell by cell; manifests are parsed again, the facts
beside them read again from their files' headers; every blob's bytes are looked for, and hashed if asked. Nothing is
changed. `docs/reference/fsck.md` lists what is checked, the exit codes, and the columns nothing can be said about.

What must not live here: repairing, and SQL (storage/integrity.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.manifests import Document, parse_document
from touchmark.contents import READER_VERSION, FileEntry, read_contents
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import (
    BlobNotFoundError,
    CatalogueDamagedError,
    DigestMismatchError,
    InvalidManifestError,
    ManifestNotFoundError,
    UnsupportedHomeError,
)
from touchmark.domain.events import ERASED, Effect, Event, SaltedText, SubjectKind, decode_leaf, hash_text
from touchmark.domain.ledger import TreeHead, hash_leaf, hash_nodes
from touchmark.domain.repositories import parse_repository
from touchmark.ops import Progress
from touchmark.ops.setup import get_place, open_blobs
from touchmark.registry import Registry
from touchmark.storage import integrity, ledger
from touchmark.storage.engine import Database, Tx
from touchmark.storage.manifests import encode_contents, find_manifest, list_facts
from touchmark.storage.migrations import HEAD, find_revision

LISTED = 100
"""Findings listed for one kind in one table; those beyond are counted."""
HOLDERS = 20
"""Versions named for one damaged blob; those beyond are counted."""
_BATCH_ENTRIES = 500
_BATCH_MANIFESTS = 8  # a manifest may have 4 MiB


class Kind(StrEnum):
    """What sort of damage a finding is, the least first."""

    ORPHAN = "orphan"
    BYTES = "bytes"
    METADATA = "metadata"
    LOG = "log"


EXIT_CODES: Mapping[Kind, int] = {Kind.ORPHAN: 3, Kind.BYTES: 4, Kind.METADATA: 5, Kind.LOG: 6}
"""The exit code of a report is the highest of its findings, 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    `subject` is where: `table[key=value].column`, or a blob's digest. `versions` are the references (`name/3`) of the
    first HOLDERS versions that need such a blob and are not deleted.
    """

    kind: Kind
    subject: str
    sentence: str
    versions: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What fsck found. `checked` counts what was gone through; `unlisted` findings of each kind came after LISTED others."""

    deep: bool
    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    unlisted: Counter[Kind] = field(default_factory=Counter)
    _listed: Counter[tuple[Kind, str]] = field(default_factory=Counter, repr=False)

    @property
    def exit_code(self) -> int:
        """0 clean, 3 orphans only, 4 bytes missing or corrupt, 5 metadata broken, 6 the log broken: the highest."""
        return max((EXIT_CODES[finding.kind] for finding in self.findings), default=0)

    def add(self, kind: Kind, subject: str, sentence: str, versions: tuple[str, ...] = ()) -> None:
        """List a finding, or count it if its table has LISTED of this kind already."""
        area = kind, subject.partition("[")[0].partition(":")[0]
        self._listed[area] += 1
        if self._listed[area] > LISTED:
            self.unlisted[kind] += 1
        else:
            self.findings.append(Finding(kind, subject, sentence, versions))


def check_registry(registry: Registry, *, deep: bool = False, on_progress: Progress | None = None) -> Report:
    """Check everything, `deep` with every byte of every blob, and return what was found; changes nothing.

    One snapshot: what is written meanwhile is neither checked nor mistaken for damage. Memory does not grow with the
    log: what it is replayed into spills to a temporary file. Raises BusyError if the database or the bucket does not
    answer; damage is a finding, never an exception.
    """
    check = _Check(registry, Report(deep), on_progress or (lambda _what, _done, _of: None))
    try:
        with integrity.reading():
            check.run()
    except CatalogueDamagedError as error:
        check.report.add(Kind.METADATA, "database", error.message)
    return check.report


def open_for_check(home: Path, database_url: str | None = None, *, blobs: BlobStore | None = None) -> Registry:
    """Open a registry as it lies there: nothing is made, migrated or begun, so that a damaged one can be looked at.

    Args:
        home: as for `ops.setup.open_registry`.
        database_url: as there.
        blobs: as there.

    Raises UnsupportedHomeError if there is no registry in `home`, InvalidFieldError, MissingExtraError, BusyError if the
    database does not let us in.

    """
    home = home.expanduser().absolute()
    if not home.is_dir() or (database_url is None and not (home / "registry.db").is_file()):
        raise UnsupportedHomeError(home=str(home), reason="there is no registry in it")
    database = Database(database_url or f"sqlite:///{home / 'registry.db'}")
    database.reach()
    return Registry(database, blobs or open_blobs(home), home=home)


class _Check:
    """One run: the registry, the report so far, and who is told how far it has got."""

    def __init__(self, registry: Registry, report: Report, tell: Progress) -> None:
        self.registry, self.report, self.tell = registry, report, tell
        self.suspects: dict[str, str] = {}  # digests whose bytes are not there, in the snapshot: looked at again later
        self.orphans: list[str] = []

    def run(self) -> None:
        revision = find_revision(self.registry.database)
        if revision != HEAD:
            sentence = f"The schema is {revision}, this Touchmark knows {HEAD}: nothing else was checked."
            self.report.add(Kind.METADATA, "alembic_version.version_num", sentence)
            return
        with self.registry.read() as tx:
            sizes = integrity.find_log_sizes(tx)  # the first read: from here on the snapshot stands
            self._check_database(tx)
            with integrity.Scratch() as scratch:
                log = _LogCheck(self, tx, scratch, sizes)
                log.run()
                _CatalogueCheck(self, tx, scratch, log).run()
            self._check_manifests(tx)
            self._check_blobs(tx)
            self._check_references(tx)
        self._look_again()

    # ── the database itself ──────────────────────────────────────────────────────────────────────────────────────

    def _check_database(self, tx: Tx) -> None:
        self.tell("database", 0, None)
        for said in integrity.find_damage(tx):
            self.report.add(Kind.METADATA, "database", f"SQLite's own check says: {said}")

    def _check_references(self, tx: Tx) -> None:
        self.tell("references", 0, None)
        add = self.report.add
        for row in integrity.stream_dangling(tx):
            kind = Kind.LOG if row.table == "event_texts" else Kind.METADATA
            add(kind, _name(row.table, row.key, row.column), f"{row.target} has no row for {_show(row.value)}.")
        for key, column, value, wrong in integrity.stream_broken_artifacts(tx):
            add(Kind.METADATA, _name("artifacts", key, column), f"It is {_show(value)}, but {wrong}.")
        for table, path in integrity.stream_repositories(tx):
            self.report.checked["repositories"] += 1
            if not self._is_repository(tx, path):
                subject = _name(table, {"repository": path}, "repository")
                add(Kind.METADATA, subject, "No model, run or logged model has this repository.")
        for row in integrity.stream_sealed_versions_unlike_manifest(tx):
            key = {"version_id": row.version_id}
            if row.manifest is None:
                add(Kind.METADATA, _name("versions", key, "digest"), f"There is no manifest {row.digest}.")
                continue
            for column in ("content_digest", "size_bytes", "file_count"):
                found, right = getattr(row, column), getattr(row, f"right_{column}")
                if not _is_same(found, right):
                    sentence = f"It is {_show(found)}, the manifest's row says {_show(right)}."
                    add(Kind.METADATA, _name("versions", key, column), sentence)
        for row in integrity.stream_aliases_astray(tx):
            key = {"model_id": row.model_id, "alias": row.alias}
            sentence = f"It points at number {row.number}, which is no READY, undeleted version of this model."
            add(Kind.METADATA, _name("aliases", key, "number"), sentence)

    @staticmethod
    def _is_repository(tx: Tx, path: str) -> bool:
        try:
            repository = parse_repository(path)
        except ManifestNotFoundError:
            return False
        if repository.model_id is not None:
            return integrity.has_owner(tx, model_id=repository.model_id)
        owner = repository.owner
        if owner is None:  # `models/NAME`: rows hold the path by number only
            return False
        if owner.kind == "run":
            return integrity.has_owner(tx, run_id=owner.id)
        return integrity.has_owner(tx, logged=owner.id)

    # ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_manifests(self, tx: Tx) -> None:
        for row in integrity.stream_table(tx, integrity.MANIFESTS, _BATCH_MANIFESTS):
            self.report.checked["manifests"] += 1
            self.tell("manifests", self.report.checked["manifests"], None)
            self._check_manifest(tx, row)

    def _check_manifest(self, tx: Tx, row: Any) -> None:
        key = {"digest": row.digest}

        def add(column: str, sentence: str) -> None:
            self.report.add(Kind.METADATA, _name("manifests", key, column), sentence)

        try:
            found = digest_of(row.content)
            if found != row.digest:
                add("content", f"The bytes hash to {found}.")
            manifest = parse_document(row.content)
        except (InvalidManifestError, TypeError) as error:
            add("content", f"It does not read as a manifest ({error}).")
            return
        right = {
            "media_type": manifest.media_type, "content_digest": manifest.content_digest,
            "size_bytes": manifest.size_bytes, "file_count": len(manifest.files), "subject": manifest.subject,
        }  # fmt: skip
        for column, value in right.items():
            if not _is_same(getattr(row, column), value):
                add(column, f"It is {_show(getattr(row, column))}, the manifest's bytes say {_show(value)}.")
        self._check_held_blobs(tx, manifest, row.digest)
        self._check_contents(tx, manifest, row)

    def _check_held_blobs(self, tx: Tx, manifest: Document, digest: str) -> None:
        held = integrity.list_held_blobs(tx, digest)
        wanted = manifest.blobs
        for blob in sorted(wanted.keys() ^ held.keys()):
            sentence = "The row is missing." if blob in wanted else "The manifest does not hold this blob."
            key = {"manifest_digest": digest, "blob_digest": blob}
            self.report.add(Kind.METADATA, _name("manifest_blobs", key), sentence)
        for blob in sorted(wanted.keys() & held.keys()):
            size_bytes = held[blob]  # None: a dangling row, which is another check's finding
            if size_bytes is not None and not _is_same(size_bytes, wanted[blob]):
                sentence = f"It is {_show(size_bytes)}, manifest {digest} says {wanted[blob]}."
                self.report.add(Kind.METADATA, _name("blobs", {"digest": blob}, "size_bytes"), sentence)

    def _check_contents(self, tx: Tx, manifest: Document, row: Any) -> None:
        subject = _name("manifests", {"digest": row.digest}, "contents")
        try:
            stored = json.loads(row.contents)
            facts = list_facts(stored)
            version = stored["reader_version"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.report.add(Kind.METADATA, subject, "It does not read as the contents of a model.")
            return
        if version == READER_VERSION:
            read_again = self._read_contents(manifest)
            if read_again is not None:
                self.report.checked["contents"] += 1
                if encode_contents(read_again) != row.contents and self._are_sound(manifest):
                    facts = list_facts(read_again)
                    self.report.add(Kind.METADATA, subject, "The headers of the manifest's files say otherwise.")
        elif not isinstance(version, int) or isinstance(version, bool) or not 0 < version < READER_VERSION:
            self.report.add(Kind.METADATA, subject, f"There is no reader of contents {_show(version)}.")
        found = integrity.list_manifest_facts(tx, row.digest)
        for one in sorted(found.keys() | facts.keys(), key=lambda fact: tuple(map(_rank, fact))):
            if found.get(one) != facts.get(one):
                key = {"manifest_digest": row.digest, "kind": one[0], "key": one[1]}
                self._add_difference(Kind.METADATA, "manifest_facts", key, "value", found.get(one), facts.get(one))

    def _add_difference(
        self, kind: Kind, table: str, key: Mapping[str, Any], column: str, found: str | None, right: str | None
    ) -> None:
        if found is None:
            self.report.add(kind, _name(table, key), "The row is missing.")
        elif right is None:
            self.report.add(kind, _name(table, key), "The contents of the manifest do not say so.")
        else:
            sentence = f"It is {_show(found)}, the contents of the manifest say {_show(right)}."
            self.report.add(kind, _name(table, key, column), sentence)

    def _read_contents(self, manifest: Document) -> dict[str, Any] | None:
        """Read the headers of a manifest's files; None if a file is not there, which is another check's finding."""
        digests = {file.path: file.digest for file in manifest.files}
        entries = [FileEntry(file.path, file.size_bytes) for file in manifest.files]

        def read_at(path: str, offset: int, length: int) -> bytes:
            try:
                return self.registry.blobs.read(digests[path], offset, length)
            except OSError as error:
                self.suspects[digests[path]] = _explain_unreadable(error)
                raise BlobNotFoundError(digest=digests[path]) from error

        try:
            return read_contents(entries, read_at).to_json()
        except BlobNotFoundError:
            return None

    def _are_sound(self, manifest: Document) -> bool:
        """Answer whether all files' bytes are right; those that are not become findings of their own."""
        sound = True
        for file in {file.digest: file for file in manifest.files}.values():
            try:
                self.registry.blobs.check(file.digest)
            except BlobNotFoundError:
                sound = False
            except DigestMismatchError:
                sound = False
                self.suspects[file.digest] = "Its bytes are damaged: they hash to another digest."
            except OSError as error:
                sound = False
                self.suspects[file.digest] = _explain_unreadable(error)
        return sound

    # ── blobs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_blobs(self, tx: Tx) -> None:
        """Go through rows and bytes side by side, both in order of digest: one listing, no look-up a blob."""
        rows = integrity.stream_table(tx, integrity.BLOBS)
        stored = self.registry.blobs.list_blobs()
        for _, row, blob in _side_by_side(rows, stored, lambda row: (row.digest,), lambda blob: (blob.digest,)):
            if row is None:
                self.orphans.append(blob.digest)
                continue
            self.report.checked["blobs"] += 1
            self.tell("blobs", self.report.checked["blobs"], None)
            self._check_blob_row(row)
            if blob is None:
                self.suspects[row.digest] = "Its bytes are missing."
                continue
            self.report.checked["blob bytes"] += blob.size_bytes
            sized = _is_same(row.size_bytes, blob.size_bytes)
            if sized and not self.report.deep:
                continue
            try:
                self.registry.blobs.check(blob.digest)
            except DigestMismatchError:
                wrong = "" if sized else f" and are {blob.size_bytes} where {_show(row.size_bytes)} are noted"
                self.suspects[row.digest] = f"Its bytes are damaged: they hash to another digest{wrong}."
            except BlobNotFoundError:
                self.suspects[row.digest] = "Its bytes are missing."
            except OSError as error:
                self.suspects[row.digest] = _explain_unreadable(error)
            else:
                if not sized:  # the bytes are right, so the row is not
                    subject = _name("blobs", {"digest": row.digest}, "size_bytes")
                    sentence = f"It is {_show(row.size_bytes)}, its bytes are sound and {blob.size_bytes}."
                    self.report.add(Kind.METADATA, subject, sentence)

    def _check_blob_row(self, row: Any) -> None:
        for column, right in (("state", "stored"), ("layout", "whole")):
            if getattr(row, column) != right:
                subject = _name("blobs", {"digest": row.digest}, column)
                self.report.add(Kind.METADATA, subject, f"There is no {column} {_show(getattr(row, column))}.")

    def _look_again(self) -> None:
        """Judge by the present rows what the snapshot could not know: a blob that came, or went by rights, meanwhile."""
        with self.registry.read() as tx:
            came = integrity.list_known_blobs(tx, self.orphans)
            still = integrity.list_known_blobs(tx, list(self.suspects))
            harmed = [digest for digest in self.suspects if digest in still]
            holders = _find_holders(tx, harmed[:LISTED]) if harmed else {}
        for digest in self.orphans:
            if digest not in came:
                self.report.add(Kind.ORPHAN, digest, "No row knows these bytes: harmless, they only take up room.")
        for digest in harmed:
            held = holders.get(digest, _Holders())
            self.report.add(Kind.BYTES, digest, f"{self.suspects[digest]} {held.describe()}", tuple(held.versions))


@dataclass(slots=True)
class _Holders:
    """Who needs a blob: references of the first versions, how many there are, and its path in one of them."""

    versions: list[str] = field(default_factory=list)
    present: int = 0
    deleted: int = 0
    path: str | None = None

    def describe(self) -> str:
        counts = {"more": self.present - len(self.versions), "deleted": self.deleted}
        unnamed = [f"{count} {what} version{'s' * (count > 1)}" for what, count in counts.items() if count]
        where = " and ".join([", ".join(self.versions), *unnamed] if self.versions else unnamed)
        if not where:
            return "No version needs them."
        return f"They are {self.path!r} of {where}." if self.path else f"They belong to {where}."


def _find_holders(tx: Tx, digests: Sequence[str]) -> dict[str, _Holders]:
    """Return, of each of these blobs that a version needs, who does."""
    found: dict[str, _Holders] = {}
    first_of: dict[str, list[str]] = {}  # manifests, and the blobs of which they are the first version's
    for row in integrity.stream_holders(tx, digests):
        if row.digest not in found:
            found[row.digest] = _Holders()
            first_of.setdefault(row.manifest, []).append(row.digest)
        holders = found[row.digest]
        if row.is_deleted:
            holders.deleted += 1
        else:
            holders.present += 1
            if holders.present <= HOLDERS:
                holders.versions.append(f"{row.name}/{row.number}")
    for manifest, blobs in first_of.items():  # one after the other: a manifest may have 4 MiB
        paths = _list_paths(tx, manifest)
        for digest in blobs:
            found[digest].path = paths.get(digest)
    return found


def _list_paths(tx: Tx, manifest: str) -> dict[str, str]:
    """Return the paths of a manifest's files by digest; none of one that does not read, which is a finding of its own."""
    row = find_manifest(tx, manifest)
    try:
        return {} if row is None else {file.digest: file.path for file in parse_document(row.content).files}
    except (InvalidManifestError, TypeError):
        return {}


def _explain_unreadable(error: OSError) -> str:
    """Return what is said of bytes the disk does not give back: a bad sector, a file nobody may read."""
    return f"Its bytes cannot be read ({error.strerror})."


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _LogCheck:
    """The log against its tree and itself; each entry is then applied to the scratch catalogue."""

    def __init__(self, check: _Check, tx: Tx, scratch: integrity.Scratch, sizes: integrity.LogSizes) -> None:
        self.report, self.tell, self.tx, self.scratch = check.report, check.tell, tx, scratch
        self.home, self.heads = check.registry.home, sizes.heads
        self.head = next((row for row in sizes.heads if row.id == 1), None)
        self.entries, self.leaves = sizes.entries + 1, sizes.leaves + 1
        self.size = self._decide_size()
        self.believed: dict[tuple[int, int], bytes] = {}  # where a stored hash is wrong or missing: what it should be
        self.last_at = 0
        self.registry_id: Any = None  # what the log's first entry says; None: no entry says
        self.has_erased = False
        self.unknown: set[tuple[str, int]] = set()  # (table, owner id): rows that follow from a text that was erased

    def _decide_size(self) -> int:
        """Take the length two of three witnesses agree on: so the one that was tampered with is the one that is named."""
        said = [self.entries, self.leaves]
        if self.head is not None and isinstance(self.head.size, int):
            said.append(self.head.size)
        size, votes = Counter(said).most_common(1)[0]
        return size if votes > 1 else max(said)

    def run(self) -> None:
        self._check_entries()
        for level in range(1, self.size.bit_length()):
            self._check_level(level)
        for level, position in integrity.stream_nodes_beyond(self.tx, self.size):
            key = {"level": level, "position": position}
            self.report.add(Kind.LOG, _name("log_nodes", key), f"A log of {self.size} entries has no such node.")
        self._check_head()
        if self.entries < self.size:
            self._add_gap(self.entries, self.size)

    # entries

    def _check_entries(self) -> None:
        after, expected = -(2**62), 0
        while True:
            rows, texts = integrity.list_entries(self.tx, after=after, limit=_BATCH_ENTRIES)
            if not rows:
                return
            after = rows[-1].log_index
            first = max(rows[0].log_index, 0)
            leaves = dict(integrity.stream_level(self.tx, 0, first=first, end=after + 1))
            for row in rows:
                if not 0 <= row.log_index < self.size:
                    subject = _name("events", {"log_index": row.log_index})
                    self.report.add(Kind.LOG, subject, f"The log has {self.size} entries, this is none of them.")
                    continue
                if row.log_index > expected:
                    self._add_gap(expected, row.log_index)
                expected = row.log_index + 1
                self.report.checked["log entries"] += 1
                event = self._check_entry(row, texts.get(row.log_index, []), leaves.get(row.log_index))
                if event is not None:
                    self._replay(event)
            self.scratch.end_batch()
            self.tell("log", expected, self.size)

    def _add_gap(self, first: int, end: int) -> None:
        which = f"Entry {first} is" if end == first + 1 else f"Entries {first} to {end - 1} are"
        self.report.add(Kind.LOG, _name("events", {"log_index": first}), f"{which} missing.")

    def _check_entry(self, row: Any, texts: Sequence[Any], node: Any) -> Event | None:
        """Check one entry and return its event, or None if it does not read."""
        index: int = row.log_index

        def add(column: str, sentence: str) -> None:
            self.report.add(Kind.LOG, _name("events", {"log_index": index}, column), sentence)

        if not isinstance(row.leaf, bytes):
            add("leaf", "It is not bytes.")
            return None
        self._check_leaf_hash(index, row, node, add)
        try:
            document = json.loads(row.leaf)
            said = {
                "log_index": document["index"], "at": document["at"], "kind": document["kind"],
                "actor": document["actor"]["id"], "model_id": document["about"]["model_id"],
                "version": document["about"]["version"],
            }  # fmt: skip
            event = decode_leaf(row.leaf, self._check_texts(index, document, texts))
        except (CatalogueDamagedError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            add("leaf", f"It does not read as a log entry ({error}).")
            return None
        for column, right in said.items():
            found = getattr(row, column)
            if not _is_same(found, right):
                add(column, f"It is {_show(found)}, the entry's bytes say {_show(right)}.")
        if event.at < self.last_at:
            add("at", f"The entry's time {event.at} is before that of an earlier one, {self.last_at}.")
        self.last_at = max(self.last_at, event.at)
        return event

    def _check_leaf_hash(self, index: int, row: Any, node: Any, add: Callable[[str, str], None]) -> None:
        """Compare the three places that tell an entry's hash, and name the one that differs from the two others."""
        computed = hash_leaf(row.leaf)
        if row.leaf_hash != computed:
            if row.leaf_hash == node:
                add("leaf", "The entry was changed: its bytes do not hash to what stands beside it and in the tree.")
                self.believed[0, index] = node
                return
            add("leaf_hash", "It is not the hash of the entry's bytes.")
        self._check_node(0, index, computed, node)

    def _check_texts(self, index: int, document: Any, rows: Sequence[Any]) -> list[SaltedText]:
        """Compare the texts beside an entry with their hashes in it; one that does not fit counts as erased.

        Raises what a leaf of the wrong shape raises.
        """
        hashes = [
            value["$text"]
            for effect in document["effects"]
            for values in (effect["before"], effect["after"])
            for _, value in sorted((values or {}).items())
            if isinstance(value, dict)
        ]
        kept = {row.position: row for row in rows}
        texts: list[SaltedText] = []
        for position, right in enumerate(hashes):
            row = kept.pop(position, None)
            sentence = None
            if row is None:
                sentence = "The text beside the log is missing; one that was erased would still have its row."
            elif row.text is not None:
                with suppress(TypeError, AttributeError, UnicodeEncodeError):
                    if hash_text(row.salt, row.text) == right:
                        texts.append(SaltedText(row.salt, row.text))
                        self.report.checked["texts"] += 1
                        continue
                sentence = "It does not hash, with its salt, to what stands in the entry: one of the two was changed."
            if sentence is not None:
                key = {"log_index": index, "position": position}
                self.report.add(Kind.LOG, _name("event_texts", key, "text"), sentence)
            self.has_erased = True
            texts.append(SaltedText(b"", None))
        for position in kept:
            key = {"log_index": index, "position": position}
            self.report.add(Kind.LOG, _name("event_texts", key), "The entry has no such text.")
        return texts

    # the tree

    def _check_level(self, level: int) -> None:
        """Check every node of a level against the two below it, as they are stored: each wrong one is named once."""
        count = self.size >> level
        below = self._level_below(level - 1, count * 2)
        nodes = integrity.stream_level(self.tx, level, end=count)
        node = next(nodes, None)
        left = b""
        for position, found in below:
            if not position & 1:
                left = found
                continue
            parent = position >> 1
            while node is not None and node[0] < parent:
                node = next(nodes, None)
            stored = node[1] if node is not None and node[0] == parent else None
            self._check_node(level, parent, hash_nodes(left, found), stored)
        for _ in nodes:  # ends the cursor
            pass

    def _level_below(self, level: int, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield what is believed of every node of a level: stored, or what it should be where that is known better."""
        expected = 0
        for position, found in integrity.stream_level(self.tx, level, end=count):
            for missing in range(expected, position):
                yield missing, self.believed.get((level, missing), b"")
            expected = position + 1
            yield position, self.believed.get((level, position), found if isinstance(found, bytes) else b"")
        for missing in range(expected, count):
            yield missing, self.believed.get((level, missing), b"")

    def _check_node(self, level: int, position: int, right: bytes, stored: Any) -> None:
        """Compare a node's stored hash with what lies below it; where they differ, the node above tells which is wrong."""
        self.report.checked["tree nodes"] += 1
        if stored == right:
            return
        key = {"level": level, "position": position}
        if stored is not None and self._is_confirmed(level, position, stored):
            first, last = position << level, ((position + 1) << level) - 1
            which = f"Entry {first} was" if first == last else f"Entries {first} to {last} were"
            sentence = f"{which} changed: the tree was built over others."
            subject = _name("events", {"log_index": first if first == last else f"{first}..{last}"}, "leaf")
            self.report.add(Kind.LOG, subject, sentence)
            self.believed[level, position] = stored
            return
        self.believed[level, position] = right
        if stored is None:
            self.report.add(Kind.LOG, _name("log_nodes", key), "The node is missing.")
        else:
            sentence = "It is not the hash of what lies below it."
            self.report.add(Kind.LOG, _name("log_nodes", key, "hash"), sentence)

    def _is_confirmed(self, level: int, position: int, stored: Any) -> bool:
        """Answer whether what stands above a node was made with this very hash: its parent, or the head's frontier."""
        if not isinstance(stored, bytes):
            return False
        parent, beside = (level + 1, position >> 1), (level, position ^ 1)
        if (parent[1] + 1) << parent[0] <= self.size:
            nodes = ledger.get_nodes(self.tx, [parent, beside])
            if len(nodes) < 2:
                return False
            pair = (nodes[beside], stored) if position & 1 else (stored, nodes[beside])
            return nodes[parent] == hash_nodes(*pair)
        return self.head is not None and stored in _split_hashes(self.head.frontier)

    def _check_head(self) -> None:
        for row in self.heads:
            if row.id != 1:
                self.report.add(Kind.LOG, _name("log_head", {"id": row.id}), "The log has one head, with id 1.")
        if self.head is None:
            self.report.add(Kind.LOG, _name("log_head", {"id": 1}), "The log's head is missing.")
            return
        perfect = []
        at = 0
        for level in reversed(range(self.size.bit_length())):
            if self.size >> level & 1:
                perfect.append((level, at >> level))
                at += 1 << level
        stored = ledger.get_nodes(self.tx, perfect)
        hashes = [self.believed.get(node) or stored.get(node) for node in perfect]
        right: dict[str, Any] = {"size": self.size, "last_at": self.last_at}
        with suppress(CatalogueDamagedError):  # a node that is missing was named already
            tree = TreeHead(self.size, tuple(found for found in hashes if found is not None))
            right |= {"root": tree.root, "frontier": tree.to_bytes()}
        if self.registry_id is not None:
            right["registry_id"] = self.registry_id
        for column, value in right.items():
            found = getattr(self.head, column)
            if not _is_same(found, value):
                sentence = f"It is {_show(found)}, the log's entries make {_show(value)}."
                self.report.add(Kind.LOG, _name("log_head", {"id": 1}, column), sentence)
        if self.home is not None and self.head.place is not None:  # None: it was never said
            place = get_place(self.home)
            if not _is_same(self.head.place, place):
                sentence = f"It is {_show(self.head.place)}, this home's files are in {_show(place)}."
                self.report.add(Kind.LOG, _name("log_head", {"id": 1}, "place"), sentence)

    # replaying

    def _replay(self, event: Event) -> None:
        """Check what each effect says was there before, then apply the event to the scratch catalogue."""

        def add(sentence: str) -> None:
            self.report.add(Kind.LOG, _name("events", {"log_index": event.index}, "leaf"), sentence)

        for effect in event.effects:
            if effect.subject is SubjectKind.REGISTRY:
                self.registry_id = (effect.after or {}).get("registry_id")
                continue
            try:
                state = self.scratch.find_state(effect)
            except CatalogueDamagedError as error:
                add(error.message)
                return
            for sentence in self._list_contradictions(event, effect, state):
                add(sentence)
        try:
            self.scratch.apply(event)
        except CatalogueDamagedError as error:
            add(error.message)
        if self.has_erased:
            self._note_unknown(event)

    def _list_contradictions(self, event: Event, effect: Effect, state: Mapping[str, Any] | None) -> Iterator[str]:
        what = _name(effect.subject, effect.key)
        if effect.before is None:
            if state is not None:
                yield f"It adds {what}, which was there already."
            if effect.after is None:
                yield f"It neither adds nor takes away {what}."
        elif state is None:
            yield f"It changes {what}, which was not there."
        else:
            for name, value in effect.before.items():
                if not _is_same(state.get(name), value) and ERASED not in (state.get(name), value):
                    yield f"It says {name} of {what} was {_show(value)} before, it was {_show(state.get(name))}."
        if effect.subject is SubjectKind.EVALUATION and effect.key.get("index") != event.index:
            yield f"It records {what} under another entry's index."
        if effect.subject is SubjectKind.VERSION and effect.before is None and effect.after is not None:
            model_id, number = effect.after.get("model_id"), effect.after.get("number")
            right = self.scratch.count_versions(model_id) + 1 if isinstance(model_id, int) else None
            if number != right:
                yield f"It makes version {_show(number)} of model {_show(model_id)}, whose next number is {right}."

    def _note_unknown(self, event: Event) -> None:
        """Note whose derived rows cannot be known, because the text they were derived from was erased."""
        for effect in event.effects:
            after = effect.after or {}
            if effect.subject is SubjectKind.VERSION and after.get("origin") == ERASED:
                self.unknown |= {("version_params", effect.key["version_id"])}
                self.unknown |= {("version_metrics", effect.key["version_id"])}
            if effect.subject is SubjectKind.EVALUATION and after.get("metrics") == ERASED:
                self.unknown |= {("version_metrics", effect.key["version_id"])}


# ── the catalogue ────────────────────────────────────────────────────────────────────────────────────────────────


_WORDY = {"models": "model", "model_tags": "model", "versions": "version", "version_tags": "version"}
"""The tables whose texts are searched by words, each compared before search_terms: what search_terms calls their owner."""


class _CatalogueCheck:
    """Every cell of the catalogue against the scratch catalogue that the log alone made."""

    def __init__(self, check: _Check, tx: Tx, scratch: integrity.Scratch, log: _LogCheck) -> None:
        self.report, self.tell, self.tx, self.scratch, self.log = check.report, check.tell, tx, scratch, log
        self.unknown_terms: set[tuple[str, int]] = set()  # (subject, id) whose words come from an erased text

    def run(self) -> None:
        for table in integrity.CATALOGUE:
            self._compare(table)

    def _compare(self, table: integrity.TableShape) -> None:
        places = [table.columns.index(name) for name in table.key]

        def key_of(row: Any) -> tuple[Any, ...]:
            return tuple(row[place] for place in places)

        found = integrity.stream_table(self.tx, table)
        right = integrity.stream_table(self.scratch.tx, table)
        for key, present, rebuilt in _side_by_side(found, right, key_of, key_of):
            self.report.checked[table.name] += 1
            if not self.report.checked[table.name] % integrity.BATCH_ROWS:
                self.tell(table.name, self.report.checked[table.name], None)
            if self.log.has_erased:
                self._note_unknown_terms(table, rebuilt)
                if self._is_unknown(table, key):
                    continue
            named = dict(zip(table.key, key, strict=True))
            if present is None:
                self.report.add(Kind.METADATA, _name(table.name, named), "The row is missing: the log makes it.")
            elif rebuilt is None:
                self.report.add(Kind.METADATA, _name(table.name, named), "The log does not make this row.")
            else:
                for column, value, expected in zip(table.columns, present, rebuilt, strict=True):
                    if not _is_same(value, expected) and not (self.log.has_erased and expected == ERASED):
                        sentence = f"It is {_show(value)}, the log makes it {_show(expected)}."
                        self.report.add(Kind.METADATA, _name(table.name, named, column), sentence)

    def _note_unknown_terms(self, table: integrity.TableShape, rebuilt: Any) -> None:
        subject = _WORDY.get(table.name)
        if subject is not None and rebuilt is not None and ERASED in rebuilt:
            self.unknown_terms.add((subject, getattr(rebuilt, table.key[0])))

    def _is_unknown(self, table: integrity.TableShape, key: tuple[Any, ...]) -> bool:
        if table.name == "search_terms":
            return (key[1], key[2]) in self.unknown_terms
        return (table.name, key[0]) in self.log.unknown


def _side_by_side(
    left: Iterable[Any],
    right: Iterable[Any],
    key_of_left: Callable[[Any], tuple[Any, ...]],
    key_of_right: Callable[[Any], tuple[Any, ...]],
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield (key, left, right) of two streams in the order of their keys, None where one has no such key."""
    lefts, rights = iter(left), iter(right)
    one, two = next(lefts, None), next(rights, None)
    while one is not None or two is not None:
        one_key = key_of_left(one) if one is not None else None
        two_key = key_of_right(two) if two is not None else None
        one_rank = None if one_key is None else tuple(map(_rank, one_key))
        two_rank = None if two_key is None else tuple(map(_rank, two_key))
        if one_key is not None and (two_rank is None or (one_rank is not None and one_rank < two_rank)):
            yield one_key, one, None
            one = next(lefts, None)
        elif two_key is not None and (one_rank is None or (two_rank is not None and two_rank < one_rank)):
            yield two_key, None, two
            two = next(rights, None)
        else:
            yield one_key or (), one, two
            one, two = next(lefts, None), next(rights, None)


def _rank(value: Any) -> tuple[int, Any]:
    """Order values of any type as SQLite does (sqlite.org/datatype3.html, 4.1): a damaged key may have a wrong one.

    Code points order as their UTF-8 bytes do, so text needs no encoding.
    """
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, bytes(value)


def _is_same(found: Any, right: Any) -> bool:
    """Compare two cells: a number never equals a text, and SQLite's 0 and 1 are PostgreSQL's false and true."""
    return bool(found == right)


def _split_hashes(stored: Any) -> set[bytes]:
    return {stored[at : at + 32] for at in range(0, len(stored), 32)} if isinstance(stored, bytes) else set()


def _name(table: str, key: Mapping[str, Any], column: str | None = None) -> str:
    """Return where something is: `versions[version_id=7].digest`."""
    named = ", ".join(f"{name}={value if isinstance(value, int) else _show(value)}" for name, value in key.items())
    return f"{table}[{named}]" + (f".{column}" if column else "")


def _show(value: Any) -> str:
    """Return a value for people: short, and no line break or control character in it."""
    shown = value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, int) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"
