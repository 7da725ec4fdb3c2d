"""Pulled files kept between loads: blobs by digest, and one folder a manifest made of hard links to them.

    ~/.cache/touchmark/            0700 (TOUCHMARK_CACHE)
      blobs/sha256/<64 hex>        read-only
      snapshots/<64 hex>/…         the files of one manifest

A snapshot appears by one rename, so two processes that load the same model do not see each other's half.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from touchmark.client._transfer import Progress, Transfer, download_blob, is_same
from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.paths import check_paths
from touchmark.domain.versions import VersionFile

if TYPE_CHECKING:
    from touchmark.client._transport import Transport


def cache_folder() -> Path:
    """Return TOUCHMARK_CACHE, or touchmark in the user's cache folder; made 0700 if it is not there.

    Raises InvalidFieldError for a folder others can write to: what is found in it is taken for what was checked.
    """
    base = os.environ.get("TOUCHMARK_CACHE")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchmark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid"):
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            reason = f"others can write to {str(folder)!r}: choose a folder that is yours alone (chmod 700)"
            raise InvalidFieldError(field="TOUCHMARK_CACHE", reason=reason)
    return folder


def open_snapshot(
    transport: Transport, repository: str, digest: str, files: tuple[VersionFile, ...], progress: Progress | None = None
) -> Path:
    """Return a folder with a manifest's files, fetched as far as they are not here and checked as they came.

    Raises DigestMismatchError, NotFoundError, ServerUnreachableError.
    """
    check_paths([file.path for file in files])
    cache = cache_folder()
    snapshot = cache / "snapshots" / digest.removeprefix("sha256:")
    if snapshot.is_dir() and all(_is_here(snapshot / file.path, file) for file in files):
        return snapshot
    blobs = cache / "blobs" / "sha256"
    for folder in (blobs, snapshot.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    total, done = sum(file.size_bytes for file in files), 0
    for file in files:
        blob = blobs / file.digest.removeprefix("sha256:")
        # What was fetched was checked then; a file of another size was damaged since, one of the same is read again.
        if not is_same(blob, file):
            start = done

            def report(got: int, path: str = file.path, start: int = start) -> None:
                if progress is not None:
                    progress(Transfer(path, start + got, total))

            download_blob(transport, repository, file, blob, report)
            blob.chmod(0o400)
        done += file.size_bytes
    staging = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=".new-"))
    try:
        for file in files:
            place = staging / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            _place(blobs / file.digest.removeprefix("sha256:"), place)
        if snapshot.is_dir():  # damaged: it goes aside, then away
            aside = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=".old-"))
            snapshot.replace(aside / "snapshot")
            shutil.rmtree(aside, ignore_errors=True)
        try:
            staging.replace(snapshot)
        except OSError:
            if not snapshot.is_dir():  # another process was faster: its snapshot is as good
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return snapshot


def _is_here(place: Path, file: VersionFile) -> bool:
    try:
        return place.lstat().st_size == file.size_bytes
    except OSError:
        return False


def _place(blob: Path, place: Path) -> None:
    try:
        os.link(blob, place)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(blob, place)
