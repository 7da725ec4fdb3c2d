"""Names and small files that a power cut leaves alone: fsync of the file before it has its name, of the folder after.

Without the first a file may have its name and hold zeros, without the second it may have no name. Blobs have their own way
(artifacts/local.py); so has the database. What must not live here: what is written.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one may make names in a folder without being allowed to read it
        os.sync()
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder and the missing ones above it, each name durably. Raises OSError, FileExistsError if it is a file."""
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        try:
            each.mkdir(mode if each is folder else 0o777)
        except FileExistsError:
            if not each.is_dir():
                raise
        else:
            sync_folder(each.parent)


def write_file(place: Path, content: bytes) -> None:
    """Write a small file, 0600, whole or not at all, under a name that stays. Raises OSError."""
    new = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with open(new, "xb", opener=_open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
