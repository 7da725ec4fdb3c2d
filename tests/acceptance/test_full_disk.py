"""A disk that fills up under a running server: refused in clear words, nothing half-done, reads go on, no restart needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import touchmark
from tests.parts import skip_without
from tests.served import Served, find_port
from touchmark import errors

DISK_MIB = 48
BALLAST_MIB = 8


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Run a server whose home is a small disk of its own, in a mount namespace that nobody else sees."""
    home = tmp_path / "home"
    home.mkdir()
    tools = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("nsenter")
    if not tools or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        skip_without("a mount namespace: run as root with util-linux")
    script = (
        f'mount -t tmpfs -o size={DISK_MIB}m tmpfs "$0" && head -c {BALLAST_MIB}M /dev/zero > "$0/ballast" && exec "$@"'
    )
    port = find_port()
    command = ["serve", "--home", str(home), "--port", str(port), "--no-log-requests"]
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, str(home), sys.executable, "-m", "touchmark", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    server = Served(process, home, port)
    server.wait_until_ready()
    yield server
    process.kill()
    server.wait()


@pytest.mark.processes
def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(served: Served, tmp_path: Path) -> None:
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        first = tmp_path / "first.bin"
        first.write_bytes(os.urandom(1 << 20))
        registry.register_model(first, "churn")
        registry.set_alias("churn", "champion", 1)
        kept = 1
        refused: list[errors.TouchmarkError] = []
        big = tmp_path / "big.bin"
        for _ in range(20):
            big.write_bytes(os.urandom(6 << 20))
            try:
                kept = registry.register_model(big, "churn").version
            except errors.TouchmarkError as error:
                refused.append(error)
                break
        assert [type(error) for error in refused] == [errors.StorageFullError]

        # Fill what is left with small ones, until the database itself has no room.
        for _ in range(4000):
            try:
                registry.set_tags("churn", {"filler": os.urandom(20_000).hex()})
            except errors.StorageFullError:
                break
        else:
            pytest.fail("the disk never filled up")
        # Names and digests alone: no byte of a model is to be stored, and still there is no room for the row.
        for _ in range(4000):
            try:
                kept = registry.register_model("models:/churn/1", "churn").version
            except errors.StorageFullError:
                break
        else:
            pytest.fail("a full disk took thousands of registrations")
        with pytest.raises(errors.StorageFullError):
            registry.register_model(first, "churn")

        assert registry.resolve("churn@champion").version == 1
        pulled = registry.pull("churn/1", tmp_path / "pulled")
        assert (pulled / "first.bin").read_bytes() == first.read_bytes()
        assert [version.version for version in registry.list_versions("churn")] == list(range(kept, 0, -1))

        subprocess.run(["nsenter", "-t", str(served.process.pid), "-m", "rm", str(served.home / "ballast")], check=True)
        end = time.monotonic() + 20
        while True:
            try:
                again = registry.register_model(first, "churn")
                break
            except errors.TouchmarkError:
                assert time.monotonic() < end, "it did not recover"
                time.sleep(0.2)
        assert (again.version, again.same_bytes_as) == (kept + 1, 1)
