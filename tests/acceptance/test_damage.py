"""Bytes that rot, requests that break off, clients that dawdle: told in clear words, and nobody else is harmed.

An upload that is cut or whose bytes are wrong is in test_serve.py, a disk that is full in test_full_disk.py, damaged rows
in test_fsck.py.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import touchmark
from tests.served import Served, digest_of, serve, wait_for
from touchmark import errors
from touchmark.client._downloads import STAGING
from touchmark.ops.fsck import Kind, check_registry, open_for_check

pytestmark = pytest.mark.processes

MIB = 1 << 20
SMALL, LARGE = 1000, 5 * MIB  # within the first chunk of an answer, and beyond it
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    with serve(home) as running:
        yield running


@pytest.fixture
def registry(served: Served) -> Iterator[touchmark.Registry]:
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as opened:
        yield opened


def register(registry: touchmark.Registry, folder: Path, name: str, size_bytes: int) -> tuple[Path, str]:
    """Register one file of random bytes; return it, and its digest."""
    file = folder / f"{name}.bin"
    file.write_bytes(os.urandom(MIB) * (size_bytes // MIB) + os.urandom(size_bytes % MIB))
    registry.register_model(file, name)
    return file, str(registry.list_files(f"{name}/1").files[0].digest)


def find_blob(served: Served, digest: str) -> Path:
    """Return the file a blob lies in, made writable."""
    (file,) = [file for file in served.list_blob_files() if file.name == digest.removeprefix("sha256:")]
    file.chmod(0o600)
    return file


# ── bytes that rotted ────────────────────────────────────────────────────────────────────────────────────────────


def flip_a_bit(file: Path, position: int) -> None:
    with file.open("r+b") as stored:
        stored.seek(position)
        (byte,) = stored.read(1)
        stored.seek(position)
        stored.write(bytes([byte ^ 1]))


HARMS: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "emptied": lambda file: os.truncate(file, 0),
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "cut by a byte": lambda file: os.truncate(file, file.stat().st_size - 1),
    "grown": lambda file: os.truncate(file, file.stat().st_size + 1),
    "first bit flipped": lambda file: flip_a_bit(file, 0),
    "last bit flipped": lambda file: flip_a_bit(file, file.stat().st_size - 1),
}


@pytest.mark.parametrize("size_bytes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.timeout(200)
def test_damaged_bytes_are_never_given_out_and_named_by_fsck(
    served: Served, registry: touchmark.Registry, tmp_path: Path, size_bytes: int
) -> None:
    sound, _digest = register(registry, tmp_path, "sound", size_bytes)
    harmed: dict[str, str] = {}
    # A client tries six seconds to get a large file that is damaged.
    for number, what in enumerate(HARMS if size_bytes == SMALL else ("cut in half", "grown", "last bit flipped")):
        harm = HARMS[what]
        file, digest = register(registry, tmp_path, f"m{number}", size_bytes)
        harm(find_blob(served, digest))
        harmed[digest] = what

        told: Exception | None = None
        try:
            registry.pull(f"m{number}/1", tmp_path / "pulled")
        except (errors.DigestMismatchError, errors.BlobNotFoundError, errors.ServerUnreachableError) as error:
            told = error
        if told is None:  # what the blob should hold is all there, with something behind it: a range gives just that
            assert what == "grown"
            pulled = tmp_path / "pulled" / file.name
            assert pulled.read_bytes() == file.read_bytes()
            pulled.unlink()
        elif isinstance(told, errors.ServerUnreachableError):  # the answer had begun: it was cut short
            assert size_bytes == LARGE, what
            assert "damaged" in str(told), what
            assert "Is the server running" not in str(told), what
        files = [file for file in (tmp_path / "pulled").rglob("*") if file.is_file()]
        assert [file for file in files if STAGING not in file.parts] == [], (
            what
        )  # parts wait there for the next attempt

    pulled = registry.pull("sound/1", tmp_path / "pulled")
    assert (pulled / sound.name).read_bytes() == sound.read_bytes()
    served.stop()
    opened = open_for_check(served.home)
    report = check_registry(opened, deep=True)
    opened.close()
    assert report.exit_code == 4
    assert {finding.subject: finding.kind for finding in report.findings} == dict.fromkeys(harmed, Kind.BYTES)


@pytest.mark.parametrize("what", ["deleted", "emptied", "cut in half", "grown"])
def test_who_still_has_the_file_heals_a_blob_of_the_wrong_size_by_registering_it(
    served: Served, registry: touchmark.Registry, tmp_path: Path, what: str
) -> None:
    file, digest = register(registry, tmp_path, "net", SMALL)
    HARMS[what](find_blob(served, digest))

    again = registry.register_model(file, "net")

    assert again.same_bytes_as == 1
    for number in (1, 2):
        pulled = registry.pull(f"net/{number}", tmp_path / str(number))
        assert (pulled / file.name).read_bytes() == file.read_bytes()


def test_a_damaged_copy_on_the_clients_disk_is_fetched_anew(registry: touchmark.Registry, tmp_path: Path) -> None:
    file, _digest = register(registry, tmp_path, "net", LARGE)
    pulled = registry.pull("net/1", tmp_path / "pulled") / file.name
    flip_a_bit(pulled, LARGE // 2)

    with pytest.raises(errors.InvalidFieldError, match="something else"):
        registry.pull("net/1", tmp_path / "pulled")
    registry.pull("net/1", tmp_path / "pulled", force=True)

    assert pulled.read_bytes() == file.read_bytes()


# ── requests that break off ──────────────────────────────────────────────────────────────────────────────────────


def test_a_registration_that_is_cut_registers_nothing(
    served: Served, registry: touchmark.Registry, tmp_path: Path
) -> None:
    file, _digest = register(registry, tmp_path, "net", SMALL)
    source = registry.log_model(file, "net").uri
    before = registry.get_log_head()
    body = f'{{"source": "{source}"}}'.encode()
    for sent in (0, 1, len(body) // 2, len(body) - 1):
        head = f"POST /api/v1/models/net/versions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        served.connect(head, body[:sent]).close()
    half = served.connect()
    half.sendall(b"POST /api/v1/models/net/versions HTT")
    half.close()

    # Asked for afterwards on the same writer queue, so whatever those requests did has happened.
    answer = served.ask("POST", "/api/v1/models/net/versions", body, JSON)

    assert (answer.status, answer.json()["version"]) == (201, 2)
    assert registry.get_log_head()["size"] == before["size"] + 1


def test_a_model_whose_upload_is_cut_in_half_cannot_be_registered(
    served: Served, registry: touchmark.Registry, tmp_path: Path
) -> None:
    kept, _digest = register(registry, tmp_path, "net", SMALL)
    model = served.ask("POST", "/api/v1/logged-models", {"name": "half"}).json()
    repository = f"logged-models/{model['model_id']}"
    data = os.urandom(2 * MIB)
    digest = digest_of(data)
    head = f"POST /v2/{repository}/blobs/uploads/?digest={digest} HTTP/1.1\r\nContent-Length: {len(data)}"
    stored = served.list_blob_files()
    with closing(served.connect(head, data[: len(data) // 2])):
        wait_for(lambda: len(served.list_blob_files()) == len(stored) + 1)
    wait_for(lambda: served.list_blob_files() == stored)

    listed = served.ask(
        "PUT", f"/api/v1/logged-models/{model['model_id']}/artifacts", {"files": {"w.bin": digest}}, JSON
    )
    with pytest.raises(errors.LoggedModelNotReadyError):
        registry.register_model(f"models:/{model['model_id']}", "net")

    assert (listed.status, listed.json()["code"]) == (404, "blob_not_found")
    assert [version.version for version in registry.list_versions("net")] == [1]
    assert (registry.pull("net/1", tmp_path / "pulled") / kept.name).read_bytes() == kept.read_bytes()


# ── clients that dawdle ──────────────────────────────────────────────────────────────────────────────────────────


def test_forty_readers_of_a_kilobyte_a_second_stop_nobody(
    served: Served, registry: touchmark.Registry, tmp_path: Path
) -> None:
    file, digest = register(registry, tmp_path, "big", 32 * MIB)
    small, _digest = register(registry, tmp_path, "small", SMALL)
    repository = f"m/{registry.resolve('big/1').model_id}"
    links = [served.connect(f"GET /v2/{repository}/blobs/{digest} HTTP/1.1") for _ in range(40)]
    stopping = threading.Event()

    def dawdle() -> None:
        while not stopping.wait(1):
            for link in links:
                assert link.recv(1000)

    reader = threading.Thread(target=dawdle)
    reader.start()
    try:
        time.sleep(1.5)  # all that can be buffered on the way is full: the server waits for the readers
        start = time.monotonic()
        assert registry.resolve("big/1").version == 1
        assert registry.register_model(small, "small").version == 2
        assert (registry.pull("big/1", tmp_path / "pulled") / file.name).read_bytes() == file.read_bytes()
        taken = time.monotonic() - start
    finally:
        stopping.set()
        reader.join()
        for link in links:
            link.close()

    assert taken < 10  # 0.2 s; behind a reader of a kilobyte a second it would take hours


def test_what_a_stalled_reader_costs_does_not_grow_with_the_file(
    served: Served, registry: touchmark.Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _file, digest = register(registry, tmp_path, "big", 192 * MIB)
    repository = f"m/{registry.resolve('big/1').model_id}"
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    links = [served.connect(f"GET /v2/{repository}/blobs/{digest} HTTP/1.1") for _ in range(4)]
    for link in links:
        assert link.recv(1000)
    time.sleep(2)
    grown = process.memory_info().rss - before
    for link in links:
        link.close()
    with capsys.disabled():
        print(f"\n4 stalled readers of 192 MiB: {grown / MIB:.0f} MiB")

    assert grown < 128 * MIB  # of 768: a few chunks each. granian before 2.8 took the whole file for each of them
    answer = served.ask("GET", f"/v2/{repository}/blobs/{digest}", headers={"Range": "bytes=0-9"})
    assert (answer.status, len(answer.body)) == (206, 10)
