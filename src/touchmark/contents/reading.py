"""Bounded reading of one file of a model, and the budgets all files of a model share.

Here: FileEntry, ReadAt, the budgets, an adaptive window. Not here: any format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from touchmark.domain.errors import InvalidError, LimitExceededError

ReadAt = Callable[[str, int, int], bytes]
"""(path, offset, length in bytes) -> bytes; may be shorter at the end of the file."""

HEAD_BYTES = 4096
"""What is read of every file that is looked at, to recognise it."""

TOTAL_BYTES = 32 * 1024 * 1024
"""What is read of one model, all files together."""

TOTAL_READS = 4096
"""Calls of `read_at` for one model: on a bucket each is a request of some 20 ms, so bytes alone do not bound time."""

TOTAL_STEPS = 500_000
"""Protobuf fields walked for one model: about one microsecond each, whatever few bytes they take."""

_WINDOW_BYTES = 64 * 1024


@dataclass(frozen=True)
class FileEntry:
    """A file of a model: its path inside the model (`/` between parts) and its size."""

    path: str
    size_bytes: int


class Budget:
    """What may still be read of one model.

    `failure` is the exception `read_at` raised, if it did: it must escape, even past code that swallows OSError.
    """

    def __init__(self, read_at: ReadAt) -> None:
        """Start with the full budget."""
        self._read_at = read_at
        self._bytes_left = TOTAL_BYTES
        self._reads_left = TOTAL_READS
        self._steps_left = TOTAL_STEPS
        self.is_spent = False
        self.failure: BaseException | None = None

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read at most `length` bytes. Raises LimitExceededError, and whatever `read_at` raises."""
        if length > self._bytes_left:
            self.is_spent = True
            raise LimitExceededError(what="What is read of one model", limit=TOTAL_BYTES, unit="bytes")
        if self._reads_left <= 0:
            self.is_spent = True
            raise LimitExceededError(what="What is read of one model", limit=TOTAL_READS, unit="separate reads")
        self._reads_left -= 1
        try:
            data = self._read_at(path, offset, length)
        except BaseException as failure:
            self.failure = failure
            raise
        data = bytes(data[:length])
        self._bytes_left -= len(data)
        return data

    def take_step(self) -> None:
        """Count one field walked. Raises LimitExceededError."""
        self._steps_left -= 1
        if self._steps_left < 0:
            self.is_spent = True
            raise LimitExceededError(what="What is walked of one model", limit=TOTAL_STEPS, unit="fields")


class BoundedFile:
    """One file of a model, read through the model's budget; what was read to recognise it is not read again."""

    def __init__(self, entry: FileEntry, budget: Budget) -> None:
        """Read nothing yet."""
        self.path = entry.path
        self.size_bytes = max(entry.size_bytes, 0)
        self.budget = budget
        self.head = b""

    def read_head(self) -> bytes:
        """Read and keep the first HEAD_BYTES (fewer in a short file)."""
        if not self.head and self.size_bytes:
            self.head = self.budget.read(self.path, 0, min(HEAD_BYTES, self.size_bytes))
        return self.head

    def read(self, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at `offset`; shorter at the end of the file, never past its stated size."""
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return b""
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        return self.budget.read(self.path, offset, length)

    def read_exactly(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes. Raises InvalidError if the file ends before."""
        data = self.read(offset, length)
        if len(data) < length:
            raise InvalidError(f"it ends at byte {offset + len(data)}, in the middle of something")
        return data


class Window:
    """Small reads at rising offsets, few calls: doubles while reading on, starts small again after a jump.

    So skipping over a thousand big tensors costs 4 KiB each, and a run of small fields costs one call for 64 KiB.
    """

    def __init__(self, file: BoundedFile) -> None:
        """Start with the file's head, if it was read."""
        self._file = file
        self._start = 0
        self._data = file.head
        self._size = HEAD_BYTES

    def read(self, offset: int, length: int) -> bytes:
        """Read at most `length` bytes at `offset`; shorter at the end of the file."""
        inside = offset - self._start
        if inside < 0 or inside + length > len(self._data):
            follows = 0 <= inside <= len(self._data) + HEAD_BYTES
            self._size = min(self._size * 2, _WINDOW_BYTES) if follows else HEAD_BYTES
            self._data = self._file.read(offset, max(length, self._size))
            self._start, inside = offset, 0
        return self._data[inside : inside + length]
