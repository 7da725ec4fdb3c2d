"""Locks that processes of one machine share: a file, locked with flock(2), that goes away with its last holder.

The kernel lets go of a lock when its process dies, so nothing has to be cleaned up after one. Each open of the file is a
lock of its own, so threads of one process exclude each other, too. Where there is no flock (Windows, some network file
systems) nothing is locked.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
POLL_SECONDS = 0.02
LONGEST_POLL_SECONDS = 0.25


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Return the file descriptor that holds the lock, or None if another holds it. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, shared=shared)
            # Who held it before may have taken the file away: then this is a lock on nothing.
            found, named = os.fstat(descriptor), path.stat()
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            os.close(descriptor)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        if (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino):
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def take_lock(path: Path, *, shared: bool = False, check: Callable[[], None] | None = None) -> int:
    """Wait for a lock and return its file descriptor; `check` is called while waiting and may raise to give up.

    It is asked for again and again rather than waited for in the kernel, so that a thread can be told to stop.
    """
    pause = POLL_SECONDS
    while (descriptor := try_lock(path, shared=shared)) is None:
        if check is not None:
            check()
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
    return descriptor


@contextmanager
def open_lock(
    path: Path, *, shared: bool = False, keep: bool = False, check: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock for as long as the block runs; its file goes with an exclusive one unless `keep`."""
    descriptor = take_lock(path, shared=shared, check=check)
    try:
        yield
    finally:
        if not shared and not keep:
            with suppress(OSError):  # its folder may have gone
                path.unlink()
        os.close(descriptor)
