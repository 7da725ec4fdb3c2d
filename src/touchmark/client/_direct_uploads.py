"""One large file straight into the server's bucket, in parts by signed addresses, several at once.

The server says which parts are missing and where to put them, reads them at the end, and only then is there a blob. What
went up is not sent again: after a cut, in the next process too, the server is asked what is missing. A bucket that cannot be
reached from here, or a server that gives out no addresses, is no error: the file then goes through the server.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from touchmark.client._transfer import Steady, Stop, count_workers, run_jobs
from touchmark.client._transport import READ_SECONDS, Attempts, LostError
from touchmark.client._uploads import read_file
from touchmark.domain import errors

if TYPE_CHECKING:
    from touchmark.client._uploads import Note, Sending

WORD = "direct"
"""What a note of such an upload begins with."""
FIRST_ATTEMPTS = 2
"""At a bucket that has taken nothing yet; one that cannot be reached is not waited for any longer."""
SHARED_WORKERS = 2
"""Parts of one file under way while other files move too; else as many as files would be."""
_LOOK_SECONDS = 1.0


class _BucketError(Exception):
    """The bucket took a part not, or there was no answer. No address is in the text: they are signed."""


def send_direct(sending: Sending, note: Note, noted: Sequence[str]) -> bool:
    """Bring a file's blob into its repository, going on with what an earlier process noted; False: send it to the server.

    Raises what the server answers, InvalidPathError for a file that cannot be read.
    """
    direct = _Direct(sending, note)
    if len(noted) == 3 and noted[0] == WORD:
        direct.repository, direct.upload_id = noted[1], noted[2]
    try:
        return direct.send()
    except (_BucketError, errors.UnsupportedError):
        direct.give_up()
        return False


class _Direct:
    """An upload of one file, and how far it is."""

    def __init__(self, sending: Sending, note: Note) -> None:
        self.sending, self.push, self.note = sending, sending.push, note
        self.repository, self.upload_id = self.push.repository, ""
        self.has_sent = self.is_done = False
        self.steady = Steady()
        self._going: dict[int, int] = {}
        self._sent_bytes = self._read_bytes = 0
        self._guard = threading.Lock()

    def send(self) -> bool:
        """Send until the blob is there. Raises _BucketError to give up."""
        failures = 0
        changed_at, read_bytes = time.monotonic(), -1
        while True:
            self.sending.stop.check()
            state = self._look()
            if state is None:
                return False
            if self.is_done:
                self.note.forget()
                return True
            if state["is_finishing"]:
                if state["read_bytes"] != read_bytes:
                    changed_at, read_bytes = time.monotonic(), state["read_bytes"]
                    self._read_bytes = max(self._read_bytes, read_bytes)
                # What was read whole may be copied for long, of which nothing is seen.
                if read_bytes < self.sending.size_bytes and time.monotonic() - changed_at > READ_SECONDS:
                    raise errors.BusyError("The server does not get on with reading what was sent to its bucket.")
                time.sleep(_LOOK_SECONDS)
                continue
            self.has_sent = self.has_sent or state["sent_bytes"] > 0
            self._sent_bytes = state["sent_bytes"]
            try:
                if state["missing"]:
                    self._send_parts(state["missing"])
                elif not self._finish():
                    return False
                elif self.is_done and self.repository == self.push.repository:
                    self.note.forget()
                    return True
            except _BucketError as error:
                failures += 1
                if not self.has_sent and failures >= FIRST_ATTEMPTS:
                    raise
                self._pause(error)

    def give_up(self) -> None:
        """Drop what went up. Other files of this push need not try: what is true of one is true of them."""
        self.push.is_direct = False
        self.note.forget()
        with suppress(errors.TouchmarkError):
            self._ask("DELETE", f"/api/v1/direct-uploads/{self.upload_id}", attempts=1)

    def _pause(self, error: Exception) -> None:
        """Wait before the next attempt. Raises `error` if there is none: neither side has got on for too many."""
        self.steady.pause(error, self._sent_bytes + self._read_bytes)

    def _ask(self, method: str, path: str, body: Any = None, attempts: int = 8) -> Any:
        found = self.push.transport.request(
            method, path, body=body, again=True, attempts=Attempts(None, attempts=attempts)
        )
        return found.json()

    def _look(self) -> Any:
        """Return how far the upload is, of a new one if there is none; None if the server takes none."""
        if self.upload_id:
            try:
                return self._ask("GET", f"/api/v1/direct-uploads/{self.upload_id}")
            except errors.NotFoundError:  # it ended: with the blob, if the answer to the last request was lost
                self.note.forget()
                self.is_done = False
                with suppress(errors.NotFoundError, errors.ConflictError):
                    if self.sending.is_done(self.repository):
                        self.is_done = True
                        return {}
            except errors.InvalidError:  # it was ended for what lay there
                self.note.forget()
            self.steady.pause(_BucketError("The upload ended."), 0)
        self.repository = self.push.repository
        new = {
            "repository": self.repository, "digest": self.sending.digest, "size_bytes": self.sending.size_bytes,
        }  # fmt: skip
        try:
            state = self._ask("POST", "/api/v1/direct-uploads", new)
        except (errors.UnsupportedError, errors.NotFoundError, errors.InvalidError):
            self.push.is_direct = False  # what is wrong with the request is said on /v2
            return None
        self.upload_id = state["upload_id"]
        self.note.write(WORD, self.repository, self.upload_id)
        return state

    def _finish(self) -> bool:
        """Ask for the blob; False if what went up is not it. A lost answer is looked for by the caller."""
        try:
            self._ask("POST", f"/api/v1/direct-uploads/{self.upload_id}/finish", {}, attempts=1)
        except errors.StorageFullError:
            raise
        except (errors.BusyError, errors.UploadNotFoundError) as error:
            self._pause(error)
        except (errors.NotFoundError, errors.ConflictError, errors.DeniedError):
            if self.repository == self.push.repository:
                raise
            # What an earlier process sent it for is gone meanwhile. The upload is of no use to anybody.
            self.note.forget()
            with suppress(errors.TouchmarkError):
                self._ask("DELETE", f"/api/v1/direct-uploads/{self.upload_id}", attempts=1)
            self.upload_id = ""
        except errors.InvalidFieldError as error:
            if error.fields.get("field") == "digest":  # it changed while it was read, or on its way: send it once more
                self.note.forget()
                return False
            self._pause(error)
        else:
            self.is_done = True
        return True

    def _send_parts(self, missing: Sequence[Mapping[str, Any]]) -> None:
        """Send parts, several at once. Raises the first _BucketError, once what was under way has ended."""
        left = list(reversed(missing))
        failed: list[_BucketError] = []
        workers = count_workers() if len(self.push.sizes) == 1 else SHARED_WORKERS

        def work(stop: Stop) -> None:
            while not failed:
                try:
                    part = left.pop()
                except IndexError:
                    return
                stop.check()
                self.sending.stop.check()
                try:
                    self._send_part(part, stop)
                except _BucketError as error:
                    failed.append(error)

        self._going.clear()
        run_jobs([work] * min(workers, len(left)), self.push.elsewhere.interrupt)
        if failed:
            raise failed[0]

    def _send_part(self, part: Mapping[str, Any], stop: Stop) -> None:
        number, begin, end = int(part["number"]), int(part["offset"]), int(part["offset"]) + int(part["size_bytes"])
        read = partial(read_file, self.sending.path, self.sending.file, begin, end, stop=stop)
        try:
            transport, path = self.push.elsewhere.find(part["url"])
        except errors.ServerUnreachableError as error:
            raise _BucketError(error.message) from None
        # RFC 1864: the bucket refuses a part that was garbled on its way, instead of all of them at the end.
        md5 = hashlib.md5(usedforsecurity=False)
        for chunk in read(report=_ignore):
            md5.update(chunk)
        headers = {"Content-Length": str(end - begin), "Content-MD5": base64.b64encode(md5.digest()).decode()}
        try:
            with transport.open("PUT", path, read(report=partial(self._report, number, begin)), headers) as response:
                status = response.status
                response.read()
        except LostError as lost:
            stop.check()
            self.sending.stop.check()
            self._report(number, begin, begin)
            raise _BucketError(f"No answer from the bucket: {lost.reason}.") from None
        if status >= 300:
            self._report(number, begin, begin)
            raise _BucketError(f"The bucket answered {status}.")
        self.has_sent = True

    def _report(self, number: int, begin: int, done: int) -> None:
        with self._guard:
            self._going[number] = done - begin
            total = self._sent_bytes + sum(self._going.values())
        self.push.meter.at(self.sending.path, total)


def _ignore(_done: int) -> None:
    """Take no note."""
