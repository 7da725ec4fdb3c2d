"""Zip archives: the directory from the tail and single members, bounded before anything is inflated.

Source: PKWARE's APPNOTE, as the standard library's `zipfile` reads it (zip64 too). Here: opening and reading within
limits. Not here: what the members mean. Only stored and deflated members are read: `zipfile` does not bound the
output of its bzip2 and lzma decompressors.
"""

from __future__ import annotations

import zipfile
from typing import IO, cast

from touchmark.contents.reading import HEAD_BYTES, BoundedFile, Window
from touchmark.domain.errors import InvalidError, LimitExceededError

DIRECTORY_BYTES = 1024 * 1024
"""The largest central directory read: about 10,000 members of a PyTorch file."""

RATIO = 200
"""Inflated bytes for one stored byte above which a member is called a bomb; a schema of skops reaches 50.

A look at the first bytes of a member is bounded by itself: an array of zeros may well shrink a thousandfold.
"""

_ENCRYPTED = 0x1
_PIECE_BYTES = 64 * 1024


class Archive:
    """An open zip archive of a model; reads through the budget of its file."""

    def __init__(self, file: BoundedFile) -> None:
        """Read the central directory. Raises InvalidError, LimitExceededError."""
        self._budget = file.budget
        try:
            self._zip = zipfile.ZipFile(cast("IO[bytes]", _View(file)))
        except Exception as problem:  # noqa: BLE001 - zipfile raises a dozen kinds for damaged archives
            raise self._explain("its directory", problem) from None
        self.members = self._zip.infolist()

    def read_member(self, info: zipfile.ZipInfo, limit_bytes: int) -> bytes:
        """Return at most `limit_bytes` of a member, inflated. Raises InvalidError, LimitExceededError."""
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidError("a member is encrypted or compressed in a way that is not read here")
        if limit_bytes > HEAD_BYTES and info.file_size > RATIO * max(info.compress_size, 1) + HEAD_BYTES:
            raise InvalidError(f"a member grows more than {RATIO} times when inflated, like a bomb")
        try:
            with self._zip.open(info) as member:
                data = b""
                while len(data) < limit_bytes:
                    # In pieces: asked for much at once, zipfile reads as much of the archive, however little inflates.
                    piece = member.read(min(limit_bytes - len(data), _PIECE_BYTES))
                    if not piece:
                        break
                    data += piece
                return data
        except Exception as problem:  # noqa: BLE001 - see above
            raise self._explain("a member", problem) from None

    def _explain(self, what: str, problem: Exception) -> Exception:
        if isinstance(problem, InvalidError):
            return problem
        return InvalidError(f"{what} cannot be read ({type(problem).__name__})")


class _View:
    """As much of a binary file as `zipfile` asks for."""

    def __init__(self, file: BoundedFile) -> None:
        self._file = file
        self._window = Window(file)
        self._at = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, self._file.size_bytes)[whence]
        if at < 0:
            raise OSError("before the start of the file")
        self._at = at
        return at

    def read(self, length: int = -1) -> bytes:
        left = max(self._file.size_bytes - self._at, 0)
        length = left if length < 0 else min(length, left)
        if length > DIRECTORY_BYTES:
            raise LimitExceededError(what="The directory of an archive", limit=DIRECTORY_BYTES, unit="bytes")
        data = self._window.read(self._at, length)
        self._at += len(data)
        return data
