"""Restore: a backup becomes a registry again, in the same database or another, or nothing is changed.

Into a home: everything is put together in a folder beside it, checked, migrated, and given the home's name in one
rename. Into a database of its own (PostgreSQL): bytes first, each under its digest where it can do no harm, then all rows
in one transaction.

What must not live here: the format of backups (backup.py), SQL.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.digest import parse_digest
from touchmark.domain.errors import (
    BlobNotFoundError,
    CatalogueDamagedError,
    ConflictError,
    CorruptError,
    DigestMismatchError,
    HomeBusyError,
    InvalidDigestError,
    SchemaTooNewError,
)
from touchmark.ops import Progress
from touchmark.ops.backup import Backup, BackupAbout, copy_blob, open_backup
from touchmark.ops.durable import make_folder, sync_folder
from touchmark.ops.fsck import Report, check_registry
from touchmark.ops.setup import check_home, hold_lock, open_registry
from touchmark.storage import integrity, ledger
from touchmark.storage.engine import Database
from touchmark.storage.migrations import HEAD, find_revision, migrate


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """What was restored: from which backup, what fsck says of it, and where the home that was there before lies now."""

    about: BackupAbout
    report: Report
    moved_away: Path | None


def restore_backup(
    source: Path,
    home: Path,
    database_url: str | None = None,
    *,
    blobs: BlobStore | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
) -> RestoreSummary:
    """Restore a backup into an empty place, or with `force` over the same registry; then fsck what came of it.

    Every blob is hashed, the log's root is compared with what backup.json says, an older schema is migrated. With
    `force` a home that is replaced is renamed, not removed; rows in a database of its own are replaced, so stop its
    servers first. What fsck finds is in the summary: damage that was there when the backup was taken comes with it.

    Args:
        source: a folder or archive that `ops.backup.write_backup` wrote.
        home: as for `ops.setup.open_registry`.
        database_url: as there; rows go into this database.
        blobs: as there; bytes go there.
        force: whether a registry of the same id may be replaced.
        on_progress: told how far it has got.

    Raises InvalidFieldError, ConflictError (the target is not empty), HomeBusyError (a server has it open), CorruptError
    and its cases (the backup is damaged), SchemaTooNewError, UnsupportedError, StorageFullError, BusyError, OSError.
    Nothing is restored then.

    """
    home = home.expanduser().absolute()
    tell = on_progress or (lambda _what, _done, _of: None)
    with open_backup(source) as backup:
        if backup.about.schema_revision > HEAD:
            raise SchemaTooNewError(found=backup.about.schema_revision, known=HEAD)
        make_folder(home.parent, 0o777)
        if database_url is None:
            return _restore_home(backup, home, blobs, tell, force=force)
        return _restore_rows(backup, home, database_url, blobs, tell, force=force)


# ── a home with its own database ─────────────────────────────────────────────────────────────────────────────────


def _restore_home(
    backup: Backup, home: Path, blobs: BlobStore | None, tell: Progress, *, force: bool
) -> RestoreSummary:
    check_home(home.parent)
    is_there = _check_home_replaceable(backup.about, home, force=force)
    made = home.parent / f".{home.name}.restoring-{secrets.token_hex(4)}"
    made.mkdir(mode=0o700)
    try:
        _stage_database(backup, made / "registry.db")
        _copy_blobs(backup, made / "registry.db", blobs or LocalBlobStore(made / "blobs"), tell)
        report = _check(made, None, blobs, tell)
        sync_folder(made)
        moved_away = _take_place(made, home) if is_there else None
        if not is_there:
            made.rename(home)  # onto nothing, or an empty folder; fails if something came there meanwhile
        sync_folder(home.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return RestoreSummary(backup.about, report, moved_away)


def _check_home_replaceable(about: BackupAbout, home: Path, *, force: bool) -> bool:
    """Answer whether a home is there that may be replaced. Raises ConflictError, HomeBusyError."""
    try:
        if not any(home.iterdir()):
            return False
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise ConflictError(f"{home} is a file.") from None
    try:
        if not (home / "registry.db").is_file():
            raise CatalogueDamagedError(reason="there is no database")
        with integrity.open_registry_file(home / "registry.db", immutable=False) as file:
            found = file.get_head().registry_id
    except CatalogueDamagedError:
        raise ConflictError(
            f"{home} is not empty and holds no registry that can be read. Move it away first."
        ) from None
    _check_same(about, found, str(home), force=force)
    if integrity.is_in_use(home / "registry.db"):
        raise HomeBusyError(home=str(home))
    return True


def _check_same(about: BackupAbout, found: str, where: str, *, force: bool) -> None:
    if found != about.registry_id:
        raise ConflictError(f"{where} holds another registry ({found}; the backup is of {about.registry_id}).")
    if not force:
        raise ConflictError(f"{where} holds this registry already. Only --force replaces what it holds by the backup.")


def _take_place(made: Path, home: Path) -> Path:
    """Give the restored folder the home's name and the home another one, which is returned."""
    moved_away = home.with_name(f"{home.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")
    with hold_lock(home):  # nobody opens it between the two renames
        if integrity.is_in_use(home / "registry.db"):
            raise HomeBusyError(home=str(home))
        home.rename(moved_away)
        try:
            made.rename(home)
        except BaseException:
            moved_away.rename(home)
            raise
    return moved_away


# ── a database of its own ────────────────────────────────────────────────────────────────────────────────────────


def _restore_rows(
    backup: Backup, home: Path, database_url: str, blobs: BlobStore | None, tell: Progress, *, force: bool
) -> RestoreSummary:
    target = Database(database_url)
    try:
        is_there = _check_rows_replaceable(backup.about, target, force=force)
        with (
            tempfile.TemporaryDirectory(prefix=f".{home.name}.restoring-", dir=home.parent) as scratch,
            _made_only_if_done(home),
        ):
            staged = Path(scratch) / "registry.db"
            _stage_database(backup, staged)
            _copy_blobs(backup, staged, blobs or LocalBlobStore(home / "blobs"), tell)
            tell("rows", 0, None)
            source = integrity.open_file(staged)
            try:
                migrate(source)
                migrate(target)
                integrity.replace_rows(source, target, clear=is_there)
            finally:
                source.close()
    finally:
        target.close()
    return RestoreSummary(backup.about, _check(home, database_url, blobs, tell), None)


def _check_rows_replaceable(about: BackupAbout, target: Database, *, force: bool) -> bool:
    """Answer whether a registry is there that may be replaced. Raises ConflictError, SchemaTooNewError."""
    revision = find_revision(target)
    if revision is None:
        return False
    if revision > HEAD:
        raise SchemaTooNewError(found=revision, known=HEAD)
    try:
        with target.read(0) as tx:
            found = ledger.get_head(tx)[2]
    except CatalogueDamagedError:  # no head: tables that were made and never used
        return False
    _check_same(about, found, "The database", force=force)
    return True


@contextmanager
def _made_only_if_done(home: Path) -> Iterator[None]:
    """Remove a home that was not there before if what is done in it fails."""
    is_new = not home.exists()
    try:
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(home, ignore_errors=True)
        raise


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stage_database(backup: Backup, staged: Path) -> None:
    """Copy the backup's database and compare its log's head with backup.json. Raises CorruptError."""
    backup.copy_database(staged)
    about = backup.about
    with integrity.open_registry_file(staged) as file:
        head = file.get_head()
    if (head.registry_id, head.log_size, head.log_root.hex()) != (about.registry_id, about.log_size, about.log_root):
        raise CorruptError("The log in the backup's database is not the one that backup.json names: one was changed.")


def _copy_blobs(backup: Backup, staged: Path, target: BlobStore, tell: Progress) -> None:
    with integrity.open_registry_file(staged) as file:
        for done, (name, size_bytes) in enumerate(file.stream_blobs(), 1):
            try:
                digest = parse_digest(name)  # before it becomes part of a path
            except InvalidDigestError:
                message = f"The backup is damaged: a row of its blobs has the digest {name[:100]!r}, which is none."
                raise CorruptError(message) from None
            try:
                copy_blob(backup.stream_blob(digest), target, digest, size_bytes)
            except BlobNotFoundError:
                raise CorruptError(f"The backup is incomplete: it does not hold {digest}.", digest=digest) from None
            except DigestMismatchError as error:
                message = f"The backup is damaged: the bytes it holds under {digest} are others ({error.message})"
                raise DigestMismatchError(message, **error.fields) from None
            tell("blobs", done, backup.about.blob_count)


def _check(home: Path, database_url: str | None, blobs: BlobStore | None, tell: Progress) -> Report:
    # Opening migrates an older schema. Not deep: every blob was hashed while it was copied.
    registry = open_registry(home, database_url, blobs=blobs, is_restored=True)
    try:
        return check_registry(registry, on_progress=tell)
    finally:
        registry.close()
