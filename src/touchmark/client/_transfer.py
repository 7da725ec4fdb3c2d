"""What every transfer has, whichever way its bytes go: progress, and a few threads that end together.

A file a job. How one file moves is in _uploads.py and _downloads.py. Threads, and what they need, are loaded only where
more than one file moves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from touchmark.client._transport import Attempts

CHUNK_BYTES = 1 << 20
TRANSFER_ATTEMPTS = 8
"""At moving one file, counted anew whenever it got on by PROGRESS_BYTES; with the pauses some 10 seconds, in which a
server restarts."""
PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a transfer is: bytes done of all bytes, and of the one file under way that got on last."""

    path: str
    done_bytes: int
    total_bytes: int
    file_done_bytes: int = 0
    file_bytes: int = 0


Progress = Callable[[Transfer], None]


class StoppedError(Exception):
    """Another file of the same transfer failed, or the user interrupted: this one does not go on."""


class Meter:
    """Tells a progress callback where a transfer is, one call at a time; fewer bytes than before if a file begins again."""

    def __init__(self, progress: Progress | None, sizes: Mapping[str, int]) -> None:
        """Count files by path and size in bytes."""
        self._progress, self._sizes = progress, sizes
        self._total = sum(sizes.values()) if progress is not None else 0
        self._at: dict[str, int] = {}
        self._done = 0
        self._guard = threading.Lock()

    def at(self, path: str, done_bytes: int) -> None:
        """Report so many bytes of a file."""
        if self._progress is None:
            return
        with self._guard:
            size_bytes = self._sizes[path]
            done_bytes = min(done_bytes, size_bytes)
            self._done += done_bytes - self._at.get(path, 0)
            self._at[path] = done_bytes
            self._progress(Transfer(path, self._done, self._total, done_bytes, size_bytes))

    def end(self, path: str) -> None:
        """Report a whole file, moved or found in place."""
        self.at(path, self._sizes.get(path, 0))


class Steady:
    """Attempts at one file. As long as it gets on they begin anew: a file is not given up for being large."""

    def __init__(self) -> None:
        """Begin counting."""
        self._attempts = Attempts(None, attempts=TRANSFER_ATTEMPTS)
        self._best_bytes = 0

    def pause(self, error: Exception, done_bytes: int, retry_after: str | None = None) -> None:
        """Wait before the next attempt; `done_bytes` is how far the file is for good. Raises `error` if there is none."""
        if done_bytes >= self._best_bytes + PROGRESS_BYTES:
            self._attempts, self._best_bytes = Attempts(None, attempts=TRANSFER_ATTEMPTS), done_bytes
        self._attempts.pause(error, retry_after)


def count_workers() -> int:
    """Return how many files move at once: as many as there are processors, from four to eight."""
    return min(8, max(4, os.cpu_count() or 1))


class Stop:
    """Asked by a job between two chunks."""

    def __init__(self) -> None:
        """Begin unset."""
        self._event = threading.Event()

    def set(self) -> None:
        """Tell every job to end."""
        self._event.set()

    def check(self) -> None:
        """Raise StoppedError if jobs are to end."""
        if self._event.is_set():
            raise StoppedError


def run_jobs(jobs: Sequence[Callable[[Stop], None]], interrupt: Callable[[], None] | None = None) -> None:
    """Run all, several at once, and raise the first error after the others have ended.

    The order of the jobs is that in which they begin: give the longest first. `interrupt` is called to wake those that
    wait for the network when there is an error, or Ctrl-C.
    """
    stop = Stop()
    if len(jobs) <= 1:
        for job in jobs:
            job(stop)
        return
    from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(min(len(jobs), count_workers()), "touchmark-transfer") as pool:
        futures: list[Future[None]] = [pool.submit(job, stop) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # all are done, one failed, or this thread was interrupted
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if interrupt is not None and not all(future.done() for future in futures):
                interrupt()
    _raise_first(futures)


def _raise_first(futures: Iterable[object]) -> None:
    from concurrent.futures import Future

    for future in futures:
        assert isinstance(future, Future)  # noqa: S101 - what run_jobs made
        if not future.cancelled() and (error := future.exception()) and not isinstance(error, StoppedError):
            raise error
