"""A bucket that misbehaves: turns away, hangs up, lies, is full. What was acknowledged stays, wrong bytes go nowhere, and it ends."""

from __future__ import annotations

import http.client
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.client import IncompleteRead
from pathlib import Path

import pytest

import touchmark
from tests.ceph import ACCESS_KEY, SECRET_KEY, Ceph
from tests.faulty import Decide, Fault, FaultyProxy, Seen, open_faulty
from tests.served import Answer, Served, digest_of, serve
from touchmark import errors

pytestmark = [pytest.mark.processes, pytest.mark.ceph]

MIB = 1 << 20
DATA = os.urandom(18 * MIB + 3)  # two parts of a multipart upload
SMALL = os.urandom(100_000)
PATIENCE_SECONDS = 100
"""What the slowest refusal may take: a request to the bucket is tried for 30 seconds, and an upload makes a few."""


@pytest.fixture
def faulty(ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with open_faulty(ceph_cluster.endpoint) as proxy:
        for key, value in {**ceph_cluster.environ(), "AWS_ENDPOINT": proxy.endpoint}.items():
            monkeypatch.setenv(key, value)
        yield proxy


@pytest.fixture
def bucket(ceph_cluster: Ceph) -> str:
    return ceph_cluster.make_bucket()


@pytest.fixture
def served(faulty: FaultyProxy, bucket: str, home: Path) -> Iterator[Served]:
    with serve(home, "--artifacts", f"s3://{bucket}/m") as server:
        yield server


def send(served: Served, repository: str, data: bytes) -> Answer:
    link = f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}"
    return ask(served, "POST", link, data)


def ask(served: Served, method: str, path: str, body: bytes | None = None) -> Answer:
    """Ask as patiently as clients do (the fixture's own wait 30 seconds), and read an answer that comes before all was sent."""
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_SECONDS + 20)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            link.request(method, path, body)
        found = link.getresponse()
        return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())
    finally:
        link.close()


def check_tells_nothing(served: Served, faulty: FaultyProxy, bucket: str, body: bytes) -> None:
    """Hold that an error names neither the bucket's address nor who we are there, and is no traceback."""
    text = body.decode()
    for secret in (
        ACCESS_KEY + "/",
        SECRET_KEY,
        bucket,
        faulty.endpoint,
        "127.0.0.1",
        "Traceback",
        "staging/",
        "X-Amz",
    ):
        assert secret not in text
    assert not any("Traceback" in line for line in served.log)


def lasting(*faults: Fault, only: str = ".*") -> Decide:
    """Return what does these faults, each once, to the first requests whose method and path match."""
    left = list(faults)

    def decide(seen: Seen) -> Fault | None:
        return left.pop(0) if left and re.search(only, f"{seen.method} {seen.path}") else None

    return decide


ALWAYS = [
    pytest.param(Fault(503), id="turns away"),
    pytest.param(Fault(500, "InternalError"), id="is broken"),
    pytest.param(Fault(reset=0), id="hangs up"),
]


@pytest.mark.parametrize("fault", ALWAYS)
def test_a_burst_of_refusals_is_waited_out(served: Served, faulty: FaultyProxy, fault: Fault) -> None:
    repository = served.new_run()
    count = 0

    def decide(_seen: Seen) -> Fault | None:
        nonlocal count
        count += 1
        return fault if count % 3 else None  # two of three requests

    faulty.decide = decide
    for data in (SMALL, DATA):
        assert send(served, repository, data).status == 201
        assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(data)}").body == data

    assert faulty.faults > 10


@pytest.mark.parametrize("fault", ALWAYS)
def test_a_store_that_stays_away_is_told_in_time_and_comes_back(
    served: Served, faulty: FaultyProxy, bucket: str, fault: Fault
) -> None:
    repository = served.new_run()
    assert send(served, repository, SMALL).status == 201
    faulty.decide = lambda _seen: fault
    faulty.seen.clear()
    began = time.monotonic()

    with ThreadPoolExecutor(3) as pool:
        put = pool.submit(send, served, repository, DATA)
        got = pool.submit(ask, served, "GET", f"/v2/{repository}/blobs/{digest_of(SMALL)}")
        looked = pool.submit(ask, served, "GET", "/health")
        answers, health = [put.result(), got.result()], looked.result()
    seconds = time.monotonic() - began
    requests = len(faulty.seen)
    versions = ask(served, "GET", "/api/v1/models")
    faulty.decide = lambda _seen: None

    for answer in answers:
        assert (answer.status, answer.headers.get("retry-after")) == (503, "1"), answer
        check_tells_nothing(served, faulty, bucket, answer.body)
    assert health.status == 503
    assert seconds < PATIENCE_SECONDS
    assert requests < 60
    assert versions.status == 200  # what needs no bytes goes on
    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").status == 404
    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(SMALL)}").body == SMALL
    assert send(served, repository, DATA).status == 201
    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA


def test_a_download_that_breaks_off_goes_on_where_it_was(served: Served, faulty: FaultyProxy) -> None:
    repository = served.new_run()
    send(served, repository, DATA)
    cuts = [Fault(reset=3 * MIB), Fault(reset=0), Fault(reset=1), Fault(reset=5 * MIB)]
    faulty.decide = lasting(*cuts, only="^GET .*blobs/sha256/")

    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA
    assert faulty.faults == 4


def test_a_download_that_cannot_go_on_ends_short(served: Served, faulty: FaultyProxy) -> None:
    repository = served.new_run()
    send(served, repository, DATA)
    count = 0

    def decide(seen: Seen) -> Fault | None:
        nonlocal count
        if seen.method != "GET" or "blobs/sha256/" not in seen.path:
            return None
        count += 1
        return Fault(reset=3 * MIB) if count == 1 else Fault(reset=0)

    faulty.decide = decide

    with suppress(IncompleteRead, ConnectionError):  # or the store hung up before there was anything to hand on
        assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").status == 503
    assert 1 < count < 60


@pytest.mark.parametrize("place", [0, 9 * MIB, len(DATA) - 1])
def test_bytes_that_changed_on_their_way_out_of_the_store_are_delivered_to_nobody(
    served: Served, faulty: FaultyProxy, place: int, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(DATA)
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        registry.register_model(str(tmp_path / "model.bin"), "net")
        lie = Fault(flip_down=place)
        faulty.decide = lambda seen: lie if seen.method == "GET" and "blobs/sha256/" in seen.path else None
        found = registry.resolve("models:/net/1")
        with pytest.raises((IncompleteRead, ConnectionError, AssertionError)):
            whole = ask(served, "GET", f"/v2/m/{found.model_id}/blobs/{digest_of(DATA)}")
            assert whole.status == 200
        # A lie told once only (here: about what a range does not reach) is found, and what is missing is asked for again.
        with suppress(errors.CorruptError, errors.BusyError):
            registry.pull("models:/net/1", tmp_path / "first")
        got = tmp_path / "first" / "model.bin"
        assert not got.exists() or got.read_bytes() == DATA
        faulty.decide = lambda _seen: None
        pulled = registry.pull("models:/net/1", tmp_path / "out")

    assert (pulled / "model.bin").read_bytes() == DATA


@pytest.mark.parametrize("lie", [Fault(flip_up=5), Fault(keep_up=40_000)], ids=["garbled", "cut short"])
@pytest.mark.parametrize("data", [SMALL, DATA], ids=["one request", "multipart"])
def test_bytes_that_change_on_their_way_into_the_store_are_not_acknowledged(
    served: Served, faulty: FaultyProxy, lie: Fault, data: bytes
) -> None:
    repository = served.new_run()
    faulty.decide = lambda seen: lie if seen.method == "PUT" and seen.size_bytes > 50_000 else None

    answer = send(served, repository, data)
    lied = faulty.faults
    faulty.decide = lambda _seen: None

    assert lied > 0
    assert answer.status == 503, answer
    assert ask(served, "HEAD", f"/v2/{repository}/blobs/{digest_of(data)}").status == 404
    assert send(served, repository, data).status == 201
    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(data)}").body == data


def fail_writes(fault: Fault, seen: Seen) -> Fault | None:
    return fault if seen.method in {"PUT", "POST"} else None


def test_a_full_store_is_told_as_such_and_takes_more_when_there_is_room(
    served: Served, faulty: FaultyProxy, bucket: str, ceph_cluster: Ceph
) -> None:
    repository = served.new_run()
    assert send(served, repository, SMALL).status == 201
    full = [Fault(507, "XMinioStorageFull"), Fault(403, "QuotaExceeded")]
    for fault in full:
        faulty.decide = partial(fail_writes, fault)
        answer = send(served, repository, DATA)
        assert answer.status == 507, answer
        check_tells_nothing(served, faulty, bucket, answer.body)
    faulty.decide = lambda _seen: None

    ceph_cluster.set_quota(bucket, 10 * MIB)
    try:
        refused = send(served, repository, DATA)
        session = ask(served, "POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        piece = ask(served, "PATCH", session, DATA)
        kept = ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(SMALL)}")
    finally:
        ceph_cluster.set_quota(bucket, None)

    assert (refused.status, piece.status) == (507, 507)
    check_tells_nothing(served, faulty, bucket, refused.body)
    assert kept.body == SMALL
    assert send(served, repository, DATA).status == 201
    assert ask(served, "GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA


def test_memory_stays_flat_while_a_store_turns_uploads_away(served: Served, faulty: FaultyProxy) -> None:
    repository = served.new_run()
    datas = [bytes([number]) * (64 * MIB) for number in range(4)]
    send(served, repository, datas[0][: 32 * MIB])
    before = read_peak(served)
    count = 0

    def decide(_seen: Seen) -> Fault | None:
        nonlocal count
        count += 1
        return Fault(503) if count % 2 else None

    faulty.decide = decide

    def send_again(data: bytes) -> int:
        # Three refusals in a row and a busy machine may be all the time that one attempt has.
        statuses = (send(served, repository, data).status for _ in range(5))
        return next((status for status in statuses if status != 503), 503)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send_again, datas))

    assert answers == [201] * 4
    assert faulty.faults > 10
    # (in flight + 1) parts of 16 MiB each, twice: a part that is sent again is held meanwhile.
    assert read_peak(served) - before < 4 * 2 * 4 * 16 * MIB


def read_peak(served: Served) -> int:
    """Return the most memory the server has had, in bytes."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
