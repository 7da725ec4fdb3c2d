"""Files as they stand: what is not an object of a known framework is saved from, and loaded as, a path.

Nothing is opened to be understood, so nothing in the files can run.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from touchmark.domain.errors import InvalidFieldError, InvalidPathError, NothingToRegisterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class FileLoader:
    """Saves a file or a folder byte for byte, and loads any version as the path of its file or folder."""

    name = "files"

    def can_save(self, model: object) -> bool:
        """Answer whether `model` is a path (`str` or `os.PathLike`), existing or not."""
        return isinstance(model, (str, os.PathLike))

    def save(self, model: object, folder: Path) -> None:
        """Put the file, or the folder's files under their relative paths, into `folder`.

        Nothing is skipped, `.git`, `.DS_Store` and `__pycache__` included: what is registered is what is there. Only
        empty folders cannot be kept, a manifest lists files. The path itself may be a symbolic link; one inside the
        folder is refused, as it could bring in a file from anywhere, and so is what is no regular file.

        Files are hard links where the file system allows (a 10 GB model costs nothing), else copies. So `folder` is
        for reading: writing to a file in it, or changing its mode, would change the original.

        Raises InvalidFieldError if there is nothing at the path, or `folder` lies inside it; InvalidPathError;
        NothingToRegisterError for an empty folder.
        """
        if not isinstance(model, (str, os.PathLike)):
            raise InvalidFieldError(field="model", reason="format 'files' takes the path of a file or a folder")
        given = os.fspath(model)
        source = Path(os.fsdecode(given))
        if not source.exists():
            raise InvalidFieldError(field="model", reason=f"there is no file or folder at {os.fsdecode(given)!r}")
        source = source.resolve()
        if not source.is_dir():
            _place(source, folder / source.name, source.name)
            return
        if folder.resolve().is_relative_to(source):
            raise InvalidFieldError(field="folder", reason="it lies inside the folder to be saved")
        paths = list(_list_files(source, ""))  # all of them are checked before the first is placed
        if not paths:
            raise NothingToRegisterError(source=os.fsdecode(given))
        for path in paths:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(source / path, target, path)

    def can_load(self, files: Mapping[str, int]) -> bool:
        """Answer whether there is any file."""
        return bool(files)

    def load(
        self, folder: Path, files: Mapping[str, int], *, allow_pickle: bool, trusted_types: Collection[str] = ()
    ) -> Path:
        """Return the path of the version's only file, whatever its kind, or of its folder if there are several.

        Nothing is read, so `allow_pickle` and `trusted_types` change nothing. Raises InvalidFieldError without files.
        """
        del allow_pickle, trusted_types
        if not files:
            raise InvalidFieldError(field="files", reason="the version has none")
        return folder / next(iter(files)) if len(files) == 1 else folder


def _list_files(source: Path, below: str) -> Iterator[str]:
    with os.scandir(source / below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _list_files(source, f"{path}/")
            else:
                _check_regular(entry.stat(follow_symlinks=False).st_mode, path)
                yield path


def _check_regular(mode: int, path: str) -> None:
    if stat.S_ISLNK(mode):
        reason = "it is a symbolic link, which may lead out of the folder: put the file itself there (cp -RL copies so)"
        raise InvalidPathError(path=path, reason=reason)
    if not stat.S_ISREG(mode):
        raise InvalidPathError(path=path, reason="it is not a regular file")


def _place(source: Path, target: Path, path: str) -> None:
    """Link or copy one file; what is checked is what was placed, so a link swapped in meanwhile is refused too."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # another file system, one without links, or a file of somebody else
        _copy(source, target, path)
        return
    try:
        _check_regular(target.lstat().st_mode, path)
    except InvalidPathError:
        target.unlink()
        raise


def _copy(source: Path, target: Path, path: str) -> None:
    _check_regular(source.lstat().st_mode, path)
    # Never follow a link, never wait for the other end of a pipe; neither flag exists on Windows.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(source, flags), "rb") as reader:
        _check_regular(os.fstat(reader.fileno()).st_mode, path)
        with target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
