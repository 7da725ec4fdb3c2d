"""An upload that is cut goes on where it was: a connection reset at any byte, a server that is killed."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.served import Served, serve
from touchmark.services.sessions import CHECKPOINT_BYTES

MIB = 1 << 20
CUTS = 20


def begin(served: Served) -> str:
    """Begin an upload into a new run's repository, and return its address."""
    return served.ask("POST", f"/v2/{served.new_run()}/blobs/uploads/").headers["location"]


def find_offset(served: Served, location: str) -> int:
    return int(served.ask("GET", location).headers["touchmark-upload-offset"])


def send_until(served: Served, location: str, data: bytes, start: int, stop: int) -> None:
    """PATCH all from `start`, and reset the connection when `stop` was handed to the network."""
    with served.connect(f"PATCH {location} HTTP/1.1\r\nContent-Length: {len(data) - start}") as link:
        for at in range(start, stop, MIB):
            link.sendall(data[at : min(at + MIB, stop)])
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST


def cut_and_resume(home: Path, size_bytes: int) -> float:
    """Upload a file CUTS times, each reset at another byte and gone on with; return how often a byte was sent on average."""
    luck = random.Random(4)
    data = b"".join(luck.randbytes(min(64 * MIB, size_bytes - start)) for start in range(0, size_bytes, 64 * MIB))
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    sent = whole = 0
    with serve(home, "--no-log-requests") as served:
        for cut in range(CUTS):
            location = begin(served)
            stop = random.Random(cut).randrange(1, len(data))
            send_until(served, location, data, 0, stop)
            offset = find_offset(served, location)
            assert offset <= stop
            patched = served.ask("PATCH", location, data[offset:])
            assert patched.headers["touchmark-upload-offset"] == str(len(data))
            stored = served.ask("PUT", f"{location}?digest={digest}")
            assert stored.status == 201, stored.body
            sent, whole = sent + stop + len(data) - offset, whole + len(data)
        read = served.ask("GET", stored.headers["location"])
        assert hashlib.sha256(read.body).hexdigest() == digest.removeprefix("sha256:")
    return sent / whole


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_cuts_at_random_bytes_cost_little_of_what_was_sent(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = cut_and_resume(home, 64 * MIB)
    with capsys.disabled():
        print(f"\n{CUTS} cuts of 64 MiB: {times:.3f} times the bytes were sent (bar 1.05, of larger files)")

    assert times <= 1.1


@pytest.mark.processes
def test_a_killed_server_keeps_what_was_sent_but_for_one_checkpoint(home: Path) -> None:
    size_bytes = CHECKPOINT_BYTES * 2 + 10 * MIB
    data = random.Random(5).randbytes(size_bytes)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with serve(home, "--no-log-requests") as served:
        location = begin(served)
        with served.connect(f"PATCH {location} HTTP/1.1\r\nContent-Length: {size_bytes + 1}", data):
            while find_offset(served, location) < CHECKPOINT_BYTES * 2:
                pass
            served.process.send_signal(signal.SIGKILL)
            served.process.wait()
    with serve(home, "--no-log-requests") as served:
        offset = find_offset(served, location)
        assert size_bytes - offset <= CHECKPOINT_BYTES
        assert served.ask("PATCH", location, data[offset:]).status == 202
        stored = served.ask("PUT", f"{location}?digest={digest}")
        assert stored.status == 201, stored.body
