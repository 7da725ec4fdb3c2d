"""Registry: database, blobs, clock, limits; built once, handed in, never global."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from touchmark.artifacts.blobs import BlobStore
from touchmark.domain.errors import BusyError, OutcomeUnknownError
from touchmark.storage import ledger
from touchmark.storage.engine import Database, Tx

OUTCOME_SECONDS = 10.0
"""How long a database that was lost while it committed is waited for, to see what became of the change."""
OUTCOME_PAUSE_SECONDS = 0.2


def read_clock() -> int:
    """Return the time in microseconds UTC."""
    return time.time_ns() // 1000


class Registry:
    """What every service is given: where rows and bytes are, and what time it is."""

    def __init__(
        self, database: Database, blobs: BlobStore, *, home: Path | None = None, clock: Callable[[], int] = read_clock
    ) -> None:
        """Join the parts. `home` is the folder of an embedded home; None if the database lies elsewhere."""
        self.database = database
        self.blobs = blobs
        self.home = home
        self.clock = clock

    def read(self) -> AbstractContextManager[Tx]:
        """Open a snapshot: no lock, no change."""
        return self.database.read(self.clock())

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """Open a catalogue write: the log's head is taken first, so checks and effects of two writers cannot interleave."""
        tx: Tx | None = None
        is_done = False
        try:
            with self.database.write(self.clock()) as tx:
                ledger.take_head(tx)
                yield tx
                is_done = True
        except OutcomeUnknownError as unknown:
            if not is_done or tx is None or tx.entry is None or self.database.is_local:
                raise
            if not self._find_outcome(*tx.entry, unknown):
                raise BusyError("The database was lost; nothing was changed. Try again.") from unknown

    def _find_outcome(self, index: int, leaf_hash: bytes, unknown: OutcomeUnknownError) -> bool:
        """Answer whether a transaction whose COMMIT was not answered has written its entry. Raises `unknown` if none tells.

        Whoever has the head sees what became of those that had it before: taking it waits for a backend that still commits.
        """
        end = time.monotonic() + OUTCOME_SECONDS
        while True:
            try:
                with self.database.write(self.clock()) as tx:
                    ledger.take_head(tx)
                    return ledger.is_kept(tx, index, leaf_hash)
            except BusyError:
                if time.monotonic() > end:
                    raise unknown from None
            time.sleep(OUTCOME_PAUSE_SECONDS)

    @contextmanager
    def track(self) -> Iterator[Tx]:
        """Open a write of tracking or byte rows, which are not in the log."""
        with self.database.write(self.clock()) as tx:
            yield tx

    def get_log_size(self) -> int:
        """Return how many entries the log has: as long as it is the same, so is every answer about the catalogue."""
        try:
            with self.database.read_once(self.clock()) as tx:
                return ledger.get_size(tx)
        except BusyError:  # the connection kept since the last request may have been lost meanwhile
            with self.database.read_once(self.clock()) as tx:
                return ledger.get_size(tx)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()
