"""Files that go straight into the server's bucket: past the server, on after cuts, and through it where there is no way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest

import touchmark
from tests.ceph import Ceph
from tests.client.peer import Peer, Reply, Request
from tests.client.proxy import open_proxy
from tests.faulty import Fault, FaultyProxy, Seen, open_faulty
from tests.served import Served, digest_of, launch, serve
from touchmark.client import _transport
from touchmark.client._transport import Transport
from touchmark.client._uploads import SESSION_BYTES, upload_files

MIB = 1 << 20
SIZE = SESSION_BYTES + 9 * MIB + 5  # three parts
DATA = os.urandom(SIZE)

JSON = {"Content-Type": "application/json"}

on_ceph = [pytest.mark.processes, pytest.mark.ceph]


@pytest.fixture
def faulty(ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with open_faulty(ceph_cluster.endpoint) as proxy:
        for key, value in {**ceph_cluster.environ(), "AWS_ENDPOINT": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield proxy


@pytest.fixture
def served(faulty: FaultyProxy, ceph_cluster: Ceph, home: Path) -> Iterator[Served]:
    with serve(home, "--artifacts", f"s3://{ceph_cluster.make_bucket()}/m", "--presign") as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOUCHMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "weights.bin"
    place.write_bytes(DATA)
    return place


def upload(url: str, repository: str, file: Path, progress: object = None) -> str:
    transport = Transport(url)
    try:
        return upload_files(transport, repository, {file.name: file}, progress)["weights.bin"]  # type: ignore[arg-type]
    finally:
        transport.close()


def url_of(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}"


def list_puts(faulty: FaultyProxy) -> list[Seen]:
    """Return what was put by addresses the client was given."""
    return [seen for seen in faulty.seen if seen.is_signed and seen.method == "PUT"]


def fetch(served: Served, repository: str, digest: str) -> bytes:
    """Return a blob as the server reads it out of the bucket: ranges are not redirected."""
    answer = served.ask("GET", f"/v2/{repository}/blobs/{digest}", headers={"Range": f"bytes=0-{SIZE}"})
    assert answer.status == 206
    return answer.body


def send_two_parts(served: Served, repository: str, file: Path, faulty: FaultyProxy) -> list[Seen]:
    """Upload a file from a process that is killed when two parts are in the bucket; return these."""
    stuck = Fault(reset=0)
    faulty.decide = lambda seen: stuck if seen.is_signed and len(list_puts(faulty)) > 2 else None
    script = f"""
        from pathlib import Path
        from touchmark.client._transport import Transport
        from touchmark.client._uploads import upload_files
        upload_files(Transport({url_of(served)!r}), {repository!r}, {{"weights.bin": Path({str(file)!r})}})
        """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    end = time.monotonic() + 60
    while not faulty.faults and time.monotonic() < end:
        time.sleep(0.02)
    child.kill()
    child.wait()
    time.sleep(1)  # what the proxy took of the first two still goes on to the store
    first = list_puts(faulty)[:2]
    faulty.seen.clear()
    faulty.decide = lambda _seen: None
    return first


class TestBucket:
    pytestmark = on_ceph

    def test_a_large_file_passes_by_the_server(self, served: Served, faulty: FaultyProxy, file: Path) -> None:
        repository = served.new_run()
        reports: list[int] = []
        with open_proxy(served.port) as proxy:
            digest = upload(proxy.url, repository, file, lambda transfer: reports.append(transfer.done_bytes))
            sent_bytes = proxy.up_bytes

        assert digest == digest_of(DATA)
        assert sent_bytes < 10_000
        assert sorted(seen.size_bytes for seen in list_puts(faulty)) == [9 * MIB + 5, 16 * MIB, 16 * MIB]
        assert fetch(served, repository, digest) == DATA
        assert reports[-1] == SIZE
        assert reports == sorted(reports)

    def test_a_model_is_registered_and_pulled_past_the_server(
        self, served: Served, faulty: FaultyProxy, file: Path, tmp_path: Path
    ) -> None:
        with touchmark.connect(url_of(served)) as registry:
            registry.register_model(str(file), "net")
            pulled = registry.pull("models:/net/1", tmp_path / "out")

        assert (pulled / "weights.bin").read_bytes() == DATA
        assert [seen.method for seen in faulty.seen if seen.is_signed].count("GET") >= 1

    def test_a_part_that_is_refused_cut_off_or_garbled_is_sent_again_alone(
        self, served: Served, faulty: FaultyProxy, file: Path
    ) -> None:
        faults = [Fault(503), Fault(reset=0), Fault(flip_up=MIB), Fault(keep_up=5 * MIB), Fault(403, "AccessDenied")]
        faulty.decide = lambda seen: faults.pop() if seen.is_signed and faults and len(list_puts(faulty)) > 2 else None
        repository = served.new_run()
        (file.parent / "weights.bin").write_bytes(DATA * 3)

        digest = upload(url_of(served), repository, file)

        assert faults == []
        assert digest == digest_of(DATA * 3)
        assert served.ask("HEAD", f"/v2/{repository}/blobs/{digest}").headers["content-length"] == str(3 * SIZE)
        assert sum(seen.size_bytes for seen in list_puts(faulty)) <= 3 * SIZE + 5 * 16 * MIB
        assert faulty.faults == 5

    def test_the_next_process_sends_only_what_is_missing(
        self, served: Served, faulty: FaultyProxy, file: Path, tmp_path: Path
    ) -> None:
        repository = served.new_run()
        first = send_two_parts(served, repository, file, faulty)

        digest = upload(url_of(served), repository, file)

        assert len(first) == 2
        assert sum(seen.size_bytes for seen in list_puts(faulty)) == SIZE - sum(seen.size_bytes for seen in first)
        assert fetch(served, repository, digest) == DATA
        assert list((tmp_path / "cache" / "uploads").glob("*")) == []

    def test_what_was_begun_for_a_run_that_is_gone_is_no_obstacle(
        self, served: Served, faulty: FaultyProxy, file: Path
    ) -> None:
        gone, other = served.new_run(), served.new_run()
        send_two_parts(served, gone, file, faulty)
        run_id = gone.removeprefix("runs/")
        assert served.ask("POST", "/api/2.0/mlflow/runs/delete", {"run_id": run_id}, JSON).status == 200

        digest = upload(url_of(served), other, file)

        assert fetch(served, other, digest) == DATA

    def test_a_server_killed_while_it_reads_the_parts_reads_them_again(
        self, served: Served, faulty: FaultyProxy, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is sent twice: the parts lie in the bucket, and the row says what they are to be."""
        monkeypatch.setattr(_transport, "PAUSE_SECONDS", 0.1)  # as it is: a server takes a moment to start
        repository = served.new_run()
        is_dead = threading.Event()

        def kill(seen: Seen) -> None:
            if not is_dead.is_set() and seen.method == "GET" and "-p00002" in seen.path:
                served.process.kill()
                served.process.wait()
                is_dead.set()

        faulty.decide = kill
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(upload, url_of(served), repository, file)
            assert is_dead.wait(60)
            again = launch(served.home, "--presign", port=served.port)
            try:
                again.wait_until_ready()
                digest = sending.result()
                found = fetch(again, repository, digest)
            finally:
                again.process.kill()
                again.wait()

        assert found == DATA
        assert len(list_puts(faulty)) == 3

    def test_a_file_is_sent_again_whole_if_the_bucket_lies_about_it(
        self, served: Served, faulty: FaultyProxy, file: Path
    ) -> None:
        """The store takes a part and hands out another: the server's hash finds it, and the file goes through the server."""
        lies = [Fault(flip_down=MIB)]
        faulty.decide = lambda seen: lies.pop() if lies and seen.method == "GET" and "-p00001" in seen.path else None
        repository = served.new_run()

        digest = upload(url_of(served), repository, file)

        assert lies == []
        assert digest == digest_of(DATA)
        assert fetch(served, repository, digest) == DATA

    def test_a_bucket_that_refuses_every_address_is_passed_by(
        self, served: Served, faulty: FaultyProxy, file: Path, ceph_cluster: Ceph
    ) -> None:
        faulty.decide = lambda seen: Fault(403, "AccessDenied") if seen.is_signed else None
        repository = served.new_run()
        began = time.monotonic()

        digest = upload(url_of(served), repository, file)

        assert time.monotonic() - began < 20
        assert fetch(served, repository, digest) == DATA
        assert len(list_puts(faulty)) <= 16
        bucket = served.home.joinpath("artifacts").read_text().strip().removeprefix("s3://").partition("/")[0]
        kept = [item["path"] for page in obstore.list(open_named(ceph_cluster, bucket)) for item in page]
        assert [key for key in kept if "staging/" in key] == []


def open_named(cluster: Ceph, name: str) -> obstore.store.S3Store:
    """Open a bucket that is there."""
    environ = cluster.environ()
    return obstore.store.S3Store(
        name,
        access_key_id=environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region="default",
        endpoint=cluster.endpoint,
        client_options={"allow_http": True},
    )


class OneRepository:
    """A server that offers addresses nobody can reach, and takes uploads in pieces."""

    def __init__(self, address: str) -> None:
        self.address, self.taken, self.is_there = address, b"", False

    def answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path == "/api/v1/direct-uploads" or (request.method == "GET" and "direct-uploads" in path):
            return Reply(201, self.state())
        if "direct-uploads" in path:
            return Reply(204, b"")
        if request.method == "HEAD":
            return Reply(200 if self.is_there else 404, b"")
        if request.method == "PATCH":
            self.taken += request.body
        if request.method == "PUT":
            self.is_there = True
        headers = {"Location": "/v2/runs/r/blobs/uploads/7", "Touchmark-Upload-Offset": str(len(self.taken))}
        return Reply(201 if request.method == "PUT" else 202, b"", headers)

    def state(self) -> bytes:
        part = f'{{"number":1,"offset":0,"size_bytes":{SIZE},"url":"{self.address}"}}'
        return (
            f'{{"upload_id":"7","digest":"x","size_bytes":{SIZE},"sent_bytes":0,"read_bytes":0,"is_finishing":false,'
            f'"missing":[{part}]}}'
        ).encode()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/key", "http://no-such-host.invalid/key", "file:///etc/passwd", "http://[bad"]
)
def test_a_bucket_out_of_reach_is_no_error(address: str, peer: Peer, file: Path) -> None:
    """Port 9 of this machine is closed; a name below .invalid is nobody's (RFC 6761)."""
    there = OneRepository(address)
    peer.answer = there.answer
    began = time.monotonic()

    upload(peer.url, "runs/r", file)

    assert there.taken == DATA
    assert ("DELETE", "/api/v1/direct-uploads/7") in [(request.method, request.path) for request in peer.requests]
    assert time.monotonic() - began < 25


def test_our_token_is_not_sent_to_a_bucket(peer: Peer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = OneRepository(f"{peer.url}/bucket/key?signed")
    arrived: list[Request] = []

    def answer(request: Request) -> Reply:
        if request.path.startswith("/bucket/"):
            arrived.append(request)
            return Reply(403, b"")
        return there.answer(request)

    peer.answer = answer
    transport = Transport(peer.url, token="secret")
    upload_files(transport, "runs/r", {file.name: file})
    transport.close()

    assert there.taken == DATA
    assert len(arrived) == 2
    assert all("authorization" not in request.headers for request in arrived)


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_that_gives_no_addresses_is_asked_once(status: int, peer: Peer, tmp_path: Path) -> None:
    there = OneRepository("http://127.0.0.1:9/")
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        if "direct-uploads" in request.path:
            asked.append(request)
            return Reply(status, b"{}")
        return there.answer(request)

    peer.answer = answer
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(name.encode() + bytes(SIZE))
    transport = Transport(peer.url)
    first = tmp_path / "a.bin"
    upload_files(transport, "runs/r", {"a.bin": first, "b.bin": tmp_path / "b.bin"}, is_new=True)
    transport.close()

    assert 1 <= len(asked) <= 2  # two files may ask at once
    assert {request.method for request in asked} == {"POST"}
