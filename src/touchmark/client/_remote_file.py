"""A blob as a file that is read where it is needed: by ranges over the network.

Nothing is kept on disk here. A reference, and the choice between the cache and the network, are not known here.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from touchmark.client._transfer import Steady
from touchmark.client._transport import AGAIN, Answer, LostError, to_error
from touchmark.domain import errors

if TYPE_CHECKING:
    from touchmark.client._downloads import BlobSource
    from touchmark.domain.versions import VersionFile

FIRST_BYTES = 256 << 10
"""What the first read fetches at least; a file of this size or less comes whole, and is checked."""
AHEAD_BYTES = 4 << 20
"""What is read ahead at most, and kept in memory: it grows to this while the file is read in order."""


class RemoteFile(io.RawIOBase):
    """One blob, read-only and seekable. Close it, or use it in a `with` block; one thread at a time may read it.

    Read from its first byte to its last, in order, it is checked against its digest before the last are handed out
    (DigestMismatchError); what is read here and there cannot be.
    """

    def __init__(self, source: BlobSource, file: VersionFile) -> None:
        """Read a file of `source`. No request is made yet."""
        super().__init__()
        self._source, self._file = source, file
        self.name = file.path
        self._position = 0
        self._window = b""
        self._window_begin = 0
        self._ahead = FIRST_BYTES
        self._hasher, self._hashed = hashlib.sha256(), 0
        self._wrong: errors.DigestMismatchError | None = None

    def readable(self) -> bool:
        """Answer True."""
        return True

    def seekable(self) -> bool:
        """Answer True."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; nothing is read. Raises ValueError for one before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size_bytes}[whence]
        if base + offset < 0:
            message = f"negative seek position {base + offset}"
            raise ValueError(message)
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the bytes read ahead go. Raises DigestMismatchError, ServerUnreachableError."""
        self._checkClosed()
        if self._wrong is not None:
            raise self._wrong
        target = memoryview(buffer).cast("B")
        if not target or self._position >= self._file.size_bytes:
            if self._file.size_bytes == 0:
                self._check()
            return 0
        begin = self._position - self._window_begin
        if not 0 <= begin < len(self._window):
            self._fetch(len(target))
            begin = 0
        found = self._window[begin : begin + len(target)]
        target[: len(found)] = found
        self._position += len(found)
        return len(found)

    def readall(self) -> bytes:
        """Return all from the position on."""
        parts = []
        while part := self.read(AHEAD_BYTES):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection and of what was read ahead."""
        if not self.closed:
            self._window = b""
            self._source.close()
        super().close()

    def _fetch(self, wanted_bytes: int) -> None:
        """Read ahead from the position on."""
        in_order = self._position == self._window_begin + len(self._window)
        self._ahead = min(self._ahead * 2, AHEAD_BYTES) if in_order and self._position else FIRST_BYTES
        end = min(self._position + max(self._ahead, min(wanted_bytes, AHEAD_BYTES)), self._file.size_bytes)
        self._window, self._window_begin = b"", self._position
        window = read_range(self._source, self._file, self._position, end)
        if self._position <= self._hashed < end:
            self._hasher.update(memoryview(window)[self._hashed - self._position :])
            self._hashed = end
            if end == self._file.size_bytes:
                self._check()
        self._window = window

    def _check(self) -> None:
        found = "sha256:" + self._hasher.hexdigest()
        if found != self._file.digest:
            self._wrong = errors.DigestMismatchError(expected=self._file.digest, found=found, path=self._file.path)
            raise self._wrong


def read_range(source: BlobSource, file: VersionFile, begin: int, end: int) -> bytes:
    """Return a file's bytes from `begin` to before `end`, unchecked; all in memory.

    Raises NotFoundError, ServerUnreachableError, UnsupportedError if the server has no ranges.
    """
    attempts = Steady()
    while begin < end:
        try:
            with source.open(file.digest, begin, end) as response:
                if response.status == 206 or (response.status == 200 and (begin, end) == (0, file.size_bytes)):
                    data = response.read(end - begin)
                    if len(data) != end - begin or response.read(1):
                        raise LostError("it sent another range than was asked for", sent=True)
                    return data
                if response.status == 200:
                    message = f"{source.transport.url} gives no parts of files: pull {file.path!r} instead."
                    raise errors.UnsupportedError(message)
                answer = Answer(response.status, response.headers, response.read())
        except LostError as lost:
            attempts.pause(source.transport.unreachable(lost), 0)
            continue
        error = to_error(answer)
        if answer.status not in AGAIN:
            raise error
        attempts.pause(error, 0, answer.headers.get("retry-after"))
    return b""
