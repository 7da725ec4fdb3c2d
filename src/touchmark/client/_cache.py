"""Versions kept on this machine, shared by every process of one user: blobs by digest, and folders made of them.

    ~/.cache/touchmark/            0700 (TOUCHMARK_CACHE)
      lock                         shared while a version is taken into use, exclusive while space is made
      blobs/sha256/<64 hex>        0400, each right when it got its name
      parts/<64 hex>[.lock]        a blob on its way, and who fetches it
      manifests/<64 hex>           what a version is made of
      snapshots/<64 hex>/…         its files: clones of the blobs, hard links or copies, whichever the file system has
      snapshots/<64 hex>.lock      shared with every process that uses it; its time is that of the last use
      snapshots/<64 hex>.new       held by the process that makes it
      resolved/<64 hex>            what a reference meant when it was last used, of which server
      uploads/<64 hex>             notes of uploads that are not finished (_uploads.py)

A snapshot appears by one rename, so a process never sees another's half. Nothing is evicted that a living process uses.
ADR 0020 says why it is so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from touchmark.client._downloads import (
    BlobSource,
    check_room,
    clone_file,
    copy_file,
    fetch_blob,
    has_size,
    hash_file,
    is_same,
    sync_file,
    to_full,
)
from touchmark.client._locks import open_lock, take_lock, try_lock
from touchmark.client._manifests import read_manifest
from touchmark.client._transfer import Meter, Stop, run_jobs
from touchmark.client._types import Files, Resolved, to_resolved
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import InvalidFieldError, TouchmarkError
from touchmark.domain.paths import check_paths
from touchmark.domain.versions import VersionFile

if TYPE_CHECKING:
    from touchmark.client._transfer import Progress

LEFT_SECONDS = 3600.0
"""A snapshot is made within seconds: its folder is swept when it has been half made for this long."""

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) *([KMGT]?)(i?B?)", re.IGNORECASE)

_in_use: dict[tuple[int, str], int] = {}
"""Locks on snapshots this process uses, by process and place: held to its end, since a path may be used as long."""


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """One version in the cache. `references` are those it was asked for by; `used_at` is in microseconds UTC."""

    digest: str
    references: tuple[str, ...]
    size_bytes: int
    file_count: int
    complete: bool
    in_use: bool
    used_at: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was taken away, and what is left."""

    versions: tuple[str, ...]
    freed_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes in the cache that are not what they should be, and whether they were taken away."""

    path: str
    expected: str
    found: str
    removed: bool


def open_cache() -> Cache:
    """Return the cache in TOUCHMARK_CACHE, or in touchmark in the user's cache folder; made 0700 if it is not there.

    Raises InvalidFieldError for a folder that is another user's or that others can write to: what is found in it is taken
    for what was checked.
    """
    base = os.environ.get("TOUCHMARK_CACHE")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchmark"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid"):
        found = folder.stat()
        reason = None
        if found.st_uid != os.geteuid():
            reason = f"{str(folder)!r} belongs to another user: choose a folder that is yours"
        elif found.st_mode & 0o022:
            reason = f"others can write to {str(folder)!r}: choose a folder that is yours alone (chmod 700)"
        if reason is not None:
            raise InvalidFieldError(field="TOUCHMARK_CACHE", reason=reason)
    return Cache(folder)


def find_cache() -> Cache | None:
    """Return the cache if there is one that can be used: for what can do without it."""
    try:
        return open_cache()
    except (OSError, RuntimeError, InvalidFieldError):  # a home that is read-only, or is not there
        return None


def read_limit() -> int | None:
    """Return how many bytes the cache may hold by TOUCHMARK_CACHE_MAX_BYTES, None for as many as there are.

    Raises InvalidFieldError.
    """
    text = os.environ.get("TOUCHMARK_CACHE_MAX_BYTES")
    return parse_size(text, "TOUCHMARK_CACHE_MAX_BYTES") if text else None


def parse_size(text: str, name: str) -> int:
    """Return bytes from `1000`, `20 GB`, `20GiB` or `20G` (a binary unit, too). Raises InvalidFieldError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidFieldError(field=name, reason=f"{text[:50]!r} is no size: write bytes, or 20GiB")
    number, unit, rest = match.groups()
    base = 1000 if rest.lower() == "b" else 1024
    return int(float(number) * base ** " KMGT".index(unit.upper() or " "))


class Cache:
    """One folder of cached versions."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that was checked."""
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._parts = folder / "parts"
        self._manifests = folder / "manifests"
        self._snapshots = folder / "snapshots"
        self._resolved = folder / "resolved"

    # ── what is here ──

    def find_blob(self, file: VersionFile) -> Path | None:
        """Return the place of a blob that is here whole (its bytes were checked when it came)."""
        place = self._blobs / file.digest[7:]
        return place if has_size(place, file) else None

    def copy_blob(self, file: VersionFile, part: Path) -> bool:
        """Write a blob's bytes into a new file, checked once more; False if they are not here or not right."""
        place = self.find_blob(file)
        if place is None:
            return False
        try:
            copy_file(place, part)
        except FileNotFoundError:  # evicted just now
            return False
        if hash_file(part) == file.digest:
            return True
        part.unlink()
        return False

    def find_manifest(self, digest: str) -> Files | None:
        """Return the files of a manifest that is here; None for one that is not, or is damaged."""
        try:
            return read_manifest((self._manifests / digest[7:]).read_bytes(), digest)
        except (OSError, TouchmarkError):
            return None

    def find_resolved(self, server: str, reference: str) -> Resolved | None:
        """Return what a reference meant on a server when it was last loaded here."""
        try:
            found = json.loads((self._resolved / _key(server, reference)).read_text(encoding="utf-8"))
            if (found["server"], found["reference"]) != (server, reference):
                return None
            return to_resolved(found["resolved"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def note_resolved(self, server: str, references: Iterable[str], found: Resolved) -> None:
        """Remember what references mean."""
        _make(self._resolved)
        known = {each.name: getattr(found, each.name) for each in fields(found)}
        for reference in references:
            words = json.dumps({"server": server, "reference": reference, "resolved": known})
            _write(self._resolved / _key(server, reference), words.encode())

    # ── taking in ──

    def open_snapshot(
        self,
        source: BlobSource,
        digest: str,
        manifest: bytes | None,
        files: Sequence[VersionFile],
        progress: Progress | None,
    ) -> Path:
        """Return a folder with a manifest's files, fetched as far as they are not here and checked as they came.

        It stays as long as this process does. `manifest` is None if it is here. Raises DigestMismatchError,
        NotFoundError, ServerUnreachableError, StorageFullError, OfflineError.
        """
        check_paths([file.path for file in files])
        for folder in (self._blobs.parent, self._blobs, self._parts, self._manifests, self._snapshots):
            _make(folder)
        snapshot = self._snapshots / digest[7:]
        # While this lock is held nobody evicts; afterwards the snapshot's own says that its blobs are needed.
        with open_lock(self.folder / "lock", shared=True):
            self._use(snapshot)
            if manifest is not None:
                _write(self._manifests / digest[7:], manifest)
        if not _is_whole(snapshot, files):
            try:
                self._fetch(source, files, progress)
                with open_lock(snapshot.with_name(snapshot.name + ".new")):
                    if not _is_whole(snapshot, files):  # else another process made it meanwhile, and may be using it
                        self._build(snapshot, files)
            except OSError as error:
                raise to_full(error, self.folder) from None
            if (limit := read_limit()) is not None:
                self.prune(limit)
        return snapshot

    def _use(self, snapshot: Path) -> None:
        lock = snapshot.with_name(snapshot.name + ".lock")
        key = (os.getpid(), str(lock))
        if key not in _in_use:
            _in_use[key] = take_lock(lock, shared=True)
        os.utime(lock)

    def _fetch(self, source: BlobSource, files: Sequence[VersionFile], progress: Progress | None) -> None:
        meter = Meter(progress, {file.path: file.size_bytes for file in files})
        groups: dict[str, list[VersionFile]] = {}
        for file in sorted(files, key=lambda file: -file.size_bytes):
            groups.setdefault(file.digest, []).append(file)
        missing = [group[0] for group in groups.values() if self.find_blob(group[0]) is None]
        needed = sum(file.size_bytes for file in missing)
        with suppress(OSError):
            needed -= sum((self._parts / file.digest[7:]).stat().st_size for file in missing)
        check_room(self.folder, needed)
        run_jobs([partial(self._fetch_one, source, group, meter) for group in groups.values()], source.interrupt)

    def _fetch_one(self, source: BlobSource, group: Sequence[VersionFile], meter: Meter, stop: Stop) -> None:
        """Bring one blob here. A second process waits for the first, and finds it."""
        file, blob, part = group[0], self._blobs / group[0].digest[7:], self._parts / group[0].digest[7:]
        with open_lock(part.with_name(part.name + ".lock"), check=stop.check):
            # It was checked when it came. It is read again, since a snapshot made of it may be used for long.
            if not is_same(blob, file, stop.check):
                fetch_blob(source, file, part, partial(meter.at, file.path), stop.check)
                part.chmod(0o400)
                part.replace(blob)
        for each in group:
            meter.end(each.path)

    def _build(self, snapshot: Path, files: Sequence[VersionFile]) -> None:
        staging = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=".new-"))
        try:
            for file in files:
                place = staging / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _place(self._blobs / file.digest[7:], place)
            if snapshot.is_dir():  # damaged: it goes aside, then away
                self._take_away(snapshot)
            staging.replace(snapshot)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _take_away(self, snapshot: Path) -> None:
        """Remove a snapshot, at once for whoever looks for it."""
        aside = Path(tempfile.mkdtemp(dir=snapshot.parent, prefix=".old-"))
        with suppress(FileNotFoundError):
            snapshot.replace(aside / "snapshot")
        shutil.rmtree(aside, ignore_errors=True)

    # ── upkeep ──

    def list_versions(self) -> list[CachedVersion]:
        """Return what is here, what was used last first."""
        names = self._list_references()
        found = []
        for digest, listed in self._list_manifests():
            snapshot = self._snapshots / digest[7:]
            found.append(
                CachedVersion(
                    digest,
                    tuple(sorted(names.get(digest, ()))),
                    sum(file.size_bytes for file in listed.files),
                    len(listed.files),
                    complete=_is_whole(snapshot, listed.files),
                    in_use=self._is_in_use(digest),
                    used_at=self._used_at(digest),
                )
            )
        return sorted(found, key=lambda each: -each.used_at)

    def count_bytes(self) -> int:
        """Return how many bytes blobs and what is on its way take; snapshots made of links and clones take none."""
        return sum(sum(_list_sizes(folder).values()) for folder in (self._blobs, self._parts))

    def prune(self, limit_bytes: int) -> Pruned:
        """Evict versions until at most so many bytes are left, the one whose last use is longest ago first.

        What a living process uses stays, and so does what it fetches; what belongs to no version goes in any case.
        """
        if not self.folder.is_dir() or self.count_bytes() <= limit_bytes:
            return Pruned((), 0, self.count_bytes())
        evicted: list[str] = []
        with open_lock(self.folder / "lock", keep=True):
            before = self.count_bytes()
            kept = dict(self._list_manifests())
            idle = sorted((digest for digest in kept if not self._is_in_use(digest)), key=self._used_at)
            self._sweep(kept.values())
            while self.count_bytes() > limit_bytes and idle:
                digest = idle.pop(0)
                if self._evict(digest):
                    evicted.append(digest)
                    del kept[digest]
                    self._sweep(kept.values())
            self._forget_resolved(kept.keys())
            self._clear_up()
            left = self.count_bytes()
        return Pruned(tuple(evicted), before - left, left)

    def verify(self) -> Iterator[Damage]:
        """Hash every byte, yield what is wrong and take it away, so that it is fetched again when it is next needed.

        A snapshot that a living process uses stays in its place.
        """
        for digest, listed in list(self._list_manifests()):
            snapshot = self._snapshots / digest[7:]
            for file in listed.files:
                place = snapshot / file.path
                if place.exists() and not is_same(place, file):
                    found = _hash_or_nothing(place)
                    with open_lock(self.folder / "lock", keep=True):
                        removed = not self._is_in_use(digest)
                        if removed:
                            self._take_away(snapshot)
                    yield Damage(f"snapshots/{digest[7:]}/{file.path}", file.digest, found, removed)
                    if removed:
                        break
        for name in sorted(_list_sizes(self._blobs)):
            place = self._blobs / name
            found = _hash_or_nothing(place)
            if found and found != f"sha256:{name}":
                place.unlink(missing_ok=True)
                yield Damage(f"blobs/sha256/{name}", f"sha256:{name}", found, removed=True)
        for name in sorted(_list_sizes(self._manifests)):
            place = self._manifests / name
            with suppress(FileNotFoundError):
                if (found := digest_of(place.read_bytes())) != f"sha256:{name}":
                    place.unlink(missing_ok=True)
                    yield Damage(f"manifests/{name}", f"sha256:{name}", found, removed=True)

    def _list_manifests(self) -> Iterator[tuple[str, Files]]:
        for name in sorted(_list_sizes(self._manifests)):
            if (found := self.find_manifest(f"sha256:{name}")) is not None:
                yield found.digest, found

    def _list_references(self) -> dict[str, set[str]]:
        names: dict[str, set[str]] = {}
        for name in _list_sizes(self._resolved):
            with suppress(OSError, ValueError, TypeError, KeyError):
                found = json.loads((self._resolved / name).read_text(encoding="utf-8"))
                if "@sha256:" not in found["reference"]:
                    names.setdefault(found["resolved"]["digest"], set()).add(found["reference"])
        return names

    def _forget_resolved(self, kept: Iterable[str]) -> None:
        digests = set(kept)
        for name in _list_sizes(self._resolved):
            with suppress(OSError, ValueError, TypeError, KeyError):
                found = json.loads((self._resolved / name).read_text(encoding="utf-8"))
                if found["resolved"]["digest"] not in digests:
                    (self._resolved / name).unlink(missing_ok=True)

    def _clear_up(self) -> None:
        """Remove what killed processes left: snapshots half made, or half taken away."""
        with suppress(FileNotFoundError):
            for place in self._snapshots.iterdir():
                with suppress(FileNotFoundError):
                    if place.name.startswith((".new-", ".old-")) and place.stat().st_mtime < time.time() - LEFT_SECONDS:
                        shutil.rmtree(place, ignore_errors=True)

    def _used_at(self, digest: str) -> int:
        for place in (self._snapshots / f"{digest[7:]}.lock", self._manifests / digest[7:]):
            with suppress(OSError):
                return place.stat().st_mtime_ns // 1000
        return 0

    def _is_in_use(self, digest: str) -> bool:
        lock = self._snapshots / f"{digest[7:]}.lock"
        if not lock.exists():
            return False
        held = try_lock(lock)
        if held is None:
            return True
        os.close(held)
        return False

    def _evict(self, digest: str) -> bool:
        """Take one version away, unless it came into use."""
        lock = self._snapshots / f"{digest[7:]}.lock"
        held = try_lock(lock)
        if held is None:
            return False
        try:
            self._take_away(self._snapshots / digest[7:])
            (self._manifests / digest[7:]).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(held)
        return True

    def _sweep(self, kept: Iterable[Files]) -> None:
        """Remove blobs and parts of no version, but for those somebody fetches."""
        wanted = {file.digest[7:] for listed in kept for file in listed.files}
        for name in _list_sizes(self._blobs).keys() - wanted:
            (self._blobs / name).unlink(missing_ok=True)
        for name in _list_sizes(self._parts).keys() - wanted:
            if name.endswith(".lock"):
                continue
            lock = self._parts / f"{name}.lock"
            held = try_lock(lock)
            if held is not None:
                (self._parts / name).unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                os.close(held)


def _key(server: str, reference: str) -> str:
    return hashlib.sha256(f"{server}\n{reference}".encode()).hexdigest()


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)


def _write(place: Path, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    new = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
    try:
        new.write_bytes(content)
        new.replace(place)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise to_full(error, place.parent) from None


def _list_sizes(folder: Path) -> dict[str, int]:
    """Return the files of a folder by name with their sizes in bytes; none if it is not there."""
    sizes: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    return sizes


def _hash_or_nothing(place: Path) -> str:
    try:
        return hash_file(place)
    except OSError:
        return ""


def _is_whole(snapshot: Path, files: Sequence[VersionFile]) -> bool:
    return snapshot.is_dir() and all(has_size(snapshot / file.path, file) for file in files)


def _place(blob: Path, place: Path) -> None:
    """Give a blob's bytes a name in a snapshot.

    A clone comes first: what is written to it by mistake does not reach the blob, as it would through a hard link.
    """
    if not clone_file(blob, place):
        place.unlink(missing_ok=True)
        try:
            os.link(blob, place)
            return
        except OSError:  # another file system, one without hard links, or one with too many to this file
            shutil.copyfile(blob, place)
    sync_file(place)
    place.chmod(0o400)
