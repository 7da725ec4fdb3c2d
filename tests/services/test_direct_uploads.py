"""Uploads straight to a real bucket: what lies at a signed address is nobody's word, whatever is done there and when."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore, S3Store

from tests.ceph import Ceph
from tests.services.conftest import open_registry
from touchmark.artifacts import layout
from touchmark.artifacts.bucket import BucketBlobStore
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.access import Principal
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import (
    InvalidFieldError,
    LimitExceededError,
    ManifestNotFoundError,
    RunNotFoundError,
    UnsupportedError,
    UploadNotFoundError,
)
from touchmark.domain.repositories import Repository, parse_repository
from touchmark.registry import Registry
from touchmark.services import direct_uploads, runs
from touchmark.services.blobs import get_blob
from touchmark.services.direct_uploads import (
    DirectUpload,
    MissingPart,
    abort_direct_upload,
    begin_direct_upload,
    finish_direct_upload,
    get_direct_upload,
)
from touchmark.services.uploads import drop_stale_uploads
from touchmark.storage import uploads as rows

KIB = 1 << 10
DATA = os.urandom(250 * KIB)  # of 100 KiB: three parts, the last one shorter
OTHER = os.urandom(100 * KIB)
LIMIT = 1 << 30


@pytest.fixture
def bucket(ceph_cluster: Ceph) -> S3Store:
    return ceph_cluster.open_bucket()


@pytest.fixture
def registry(bucket: S3Store, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(direct_uploads, "PART_BYTES", 100 * KIB)
    opened = open_registry(sqlite_url, BucketBlobStore(bucket))
    yield opened
    opened.close()


@pytest.fixture
def run(registry: Registry, who: Principal) -> Repository:
    return new_run(registry, who)


def new_run(registry: Registry, who: Principal) -> Repository:
    return parse_repository(f"runs/{runs.create_run(registry, who, 0).run_id}")


def begin(registry: Registry, who: Principal, run: Repository, data: bytes = DATA) -> DirectUpload:
    return begin_direct_upload(registry, who, run, digest_of(data), len(data), LIMIT)


def put(part: MissingPart, data: bytes) -> None:
    """Put bytes at a part's address, whatever it is for."""
    urllib.request.urlopen(urllib.request.Request(part.address, data, method="PUT"), timeout=60).close()


def put_all(upload: DirectUpload, data: bytes = DATA) -> None:
    for part in upload.missing:
        put(part, data[part.offset : part.offset + part.size_bytes])


def refuse(address: str, method: str, data: bytes | None = None) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(address, data, method=method), timeout=60)
    caught.value.close()
    return caught.value.code


def list_keys(bucket: S3Store) -> list[str]:
    return sorted(item["path"] for page in obstore.list(bucket) for item in page)


pytestmark = pytest.mark.ceph


def test_parts_put_into_the_bucket_become_a_blob_and_leave_nothing(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    upload = begin(registry, who, run)
    sizes = [(part.number, part.offset, part.size_bytes) for part in upload.missing]
    put_all(upload)

    stored = finish_direct_upload(registry, who, upload.upload_id)

    assert sizes == [(1, 0, 100 * KIB), (2, 100 * KIB, 100 * KIB), (3, 200 * KIB, 50 * KIB)]
    assert stored is not None
    assert (stored.digest, stored.size_bytes) == (digest_of(DATA), len(DATA))
    assert b"".join(get_blob(registry, who, run, digest_of(DATA)).stream()) == DATA
    assert list_keys(bucket) == [layout.blob_key(digest_of(DATA))]
    with pytest.raises(UploadNotFoundError):
        finish_direct_upload(registry, who, upload.upload_id)


def test_who_goes_on_is_given_what_is_missing_and_a_part_cut_short_is(
    registry: Registry, who: Principal, run: Repository
) -> None:
    upload = begin(registry, who, run)
    put(upload.missing[0], DATA[: 100 * KIB])
    put(upload.missing[1], DATA[100 * KIB : 150 * KIB])

    found = get_direct_upload(registry, who, upload.upload_id)
    with pytest.raises(InvalidFieldError, match="part 2 is not there"):
        finish_direct_upload(registry, who, upload.upload_id)
    put_all(found)

    assert [part.number for part in found.missing] == [2, 3]
    assert (found.sent_bytes, found.is_finishing) == (100 * KIB, False)
    assert finish_direct_upload(registry, who, upload.upload_id) is not None


def test_addresses_are_given_some_at_a_time(
    registry: Registry, who: Principal, run: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_uploads, "ADDRESSES_LIMIT", 2)
    upload = begin(registry, who, run)
    put_all(upload)
    rest = get_direct_upload(registry, who, upload.upload_id)

    assert [[part.number for part in each.missing] for each in (upload, rest)] == [[1, 2], [3]]


def test_more_bytes_than_were_announced_end_the_upload_as_soon_as_somebody_looks(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    for look in (get_direct_upload, finish_direct_upload):
        upload = begin(registry, who, run)
        put_all(upload)
        put(upload.missing[2], OTHER)

        with pytest.raises(InvalidFieldError, match="part 3 has 102400 bytes and may have 51200"):
            look(registry, who, upload.upload_id)

        assert list_keys(bucket) == []
        with pytest.raises(UploadNotFoundError):
            get_direct_upload(registry, who, upload.upload_id)


def test_other_bytes_than_were_announced_are_stored_nowhere(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    upload = begin(registry, who, run)
    put_all(upload)
    put(upload.missing[1], OTHER)

    with pytest.raises(InvalidFieldError) as caught:
        finish_direct_upload(registry, who, upload.upload_id)

    assert caught.value.fields["field"] == "digest"
    assert list_keys(bucket) == []
    with pytest.raises(UploadNotFoundError):
        get_direct_upload(registry, who, upload.upload_id)


def test_a_part_replaced_after_it_was_hashed_does_not_come_into_the_blob(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(registry, who, run)
    put_all(upload)
    copy = obstore.copy
    replaced: list[str] = []

    def replace_then_copy(store: S3Store, source: str, target: str) -> None:
        for part in upload.missing:  # all is hashed: this is the last request before the blob has its name
            put(part, OTHER)
        replaced.append(source)
        copy(store, source, target)

    monkeypatch.setattr(obstore, "copy", replace_then_copy)
    stored = finish_direct_upload(registry, who, upload.upload_id)

    assert len(replaced) == 1
    assert not replaced[0].startswith(layout.parts_prefix(upload.upload_id))
    assert stored is not None
    assert registry.blobs.check(stored.digest) == len(DATA)
    assert list_keys(bucket) == [layout.blob_key(digest_of(DATA))]


def test_parts_replaced_all_the_time_become_the_right_blob_or_none(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    for _ in range(10):
        upload = begin(registry, who, run)
        put_all(upload)
        stop = threading.Event()
        first, last = upload.missing[0], upload.missing[2]

        def replace(stop: threading.Event = stop, first: MissingPart = first, last: MissingPart = last) -> None:
            while not stop.is_set():
                put(first, OTHER)
                put(last, OTHER[: 50 * KIB])
                put(first, DATA[: 100 * KIB])
                put(last, DATA[200 * KIB :])

        with ThreadPoolExecutor(1) as pool:
            replacing = pool.submit(replace)
            try:
                with contextlib.suppress(InvalidFieldError):
                    finish_direct_upload(registry, who, upload.upload_id)
            finally:
                stop.set()
            replacing.result()
        for blob in registry.blobs.list_blobs():
            assert registry.blobs.check(blob.digest) == len(DATA)
            registry.blobs.delete(blob.digest)


def test_an_address_writes_one_part_reads_nothing_and_expires(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    upload = begin(registry, who, run)
    address = upload.missing[0].address
    brief = registry.blobs.sign_part(upload.upload_id, 1, 1)
    assert brief is not None
    key = layout.blob_key(digest_of(DATA))

    assert refuse(address, "GET") == 403
    assert refuse(address, "DELETE") == 403
    assert refuse(address.replace("-p00001", "-p00002"), "PUT", OTHER) == 403
    assert refuse(address.replace(layout.sent_part_key(upload.upload_id, 1), key), "PUT", OTHER) == 403
    assert refuse(address.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"), "PUT", OTHER) == 403
    threading.Event().wait(2.5)
    assert refuse(brief, "PUT", OTHER) == 403
    assert list_keys(bucket) == []


def test_an_address_used_after_the_end_changes_no_blob_and_is_swept(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    upload = begin(registry, who, run)
    put_all(upload)
    finish_direct_upload(registry, who, upload.upload_id)

    put(upload.missing[0], OTHER)
    threading.Event().wait(1.5)  # Ceph's times are of whole seconds
    swept = registry.blobs.sweep_staging(0)

    assert swept == 1
    assert registry.blobs.check(digest_of(DATA)) == len(DATA)
    assert list_keys(bucket) == [layout.blob_key(digest_of(DATA))]


def test_an_upload_given_up_or_left_alone_leaves_nothing(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    given_up, left = begin(registry, who, run), begin(registry, who, run)
    put_all(given_up)
    put_all(left)

    abort_direct_upload(registry, who, given_up.upload_id)
    assert len(list_keys(bucket)) == 3
    assert drop_stale_uploads(registry, who, registry.clock() + 1_000_000) == 1

    assert list_keys(bucket) == []
    for upload in (given_up, left):
        with pytest.raises(UploadNotFoundError):
            finish_direct_upload(registry, who, upload.upload_id)


def test_two_who_finish_at_once_make_one_blob(
    registry: Registry, who: Principal, run: Repository, bucket: S3Store
) -> None:
    upload = begin(registry, who, run)
    put_all(upload)

    def finish(_number: int) -> object:
        try:
            return finish_direct_upload(registry, who, upload.upload_id)
        except UploadNotFoundError:
            return None

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(finish, range(4)))

    assert sum(answer is not None for answer in answers) == 1
    assert list_keys(bucket) == [layout.blob_key(digest_of(DATA))]


def test_an_upload_that_another_server_finishes_is_read_once(
    registry: Registry,
    who: Principal,
    run: Repository,
    bucket: S3Store,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct_uploads, "BEAT_SECONDS", 0.05)
    elsewhere = open_registry(sqlite_url, BucketBlobStore(bucket))
    upload = begin(registry, who, run)
    put_all(upload)
    read, go_on = list[int](), threading.Event()
    stream = registry.blobs.stream_sent_part

    def stream_slowly(upload_id: str, number: int) -> object:
        read.append(number)
        if number == 3:
            go_on.wait(60)
        return stream(upload_id, number)

    monkeypatch.setattr(registry.blobs, "stream_sent_part", stream_slowly)
    try:
        with ThreadPoolExecutor(1) as pool:
            finishing = pool.submit(finish_direct_upload, registry, who, upload.upload_id)
            try:
                state = wait_until(elsewhere, who, upload, read_bytes=200 * KIB)
                answer = finish_direct_upload(elsewhere, who, upload.upload_id)
            finally:
                go_on.set()
            stored = finishing.result()
    finally:
        elsewhere.close()

    assert (state.is_finishing, state.missing, answer) == (True, [], None)
    assert stored is not None
    assert stored.digest == digest_of(DATA)
    assert read == [1, 2, 3]


def wait_until(registry: Registry, who: Principal, upload: DirectUpload, read_bytes: int) -> DirectUpload:
    end = time.monotonic() + 60
    while (state := get_direct_upload(registry, who, upload.upload_id)).read_bytes != read_bytes:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def test_who_is_not_heard_of_while_reading_is_not_waited_for_and_gives_up(
    registry: Registry, who: Principal, run: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_uploads, "BEAT_SECONDS", 0.05)
    upload = begin(registry, who, run)
    put_all(upload)
    go_on = threading.Event()
    stream = registry.blobs.stream_sent_part

    def stream_slowly(upload_id: str, number: int) -> object:
        if number == 2:
            go_on.wait(60)
        return stream(upload_id, number)

    monkeypatch.setattr(registry.blobs, "stream_sent_part", stream_slowly)
    with ThreadPoolExecutor(1) as pool:
        finishing = pool.submit(finish_direct_upload, registry, who, upload.upload_id)
        try:
            wait_until(registry, who, upload, read_bytes=100 * KIB)
            with registry.track() as tx, monkeypatch.context() as patch:
                assert not rows.claim(tx, upload.upload_id)
                patch.setattr(rows, "CLAIM_SECONDS", -1)  # as if nothing had been heard for long
                assert rows.claim(tx, upload.upload_id)
            time.sleep(0.5)  # ten times as long as until the first is heard of again
        finally:
            go_on.set()
        assert finishing.result() is None
    assert finish_direct_upload(registry, who, upload.upload_id) is None  # the other, until it is not heard of either
    monkeypatch.setattr(rows, "CLAIM_SECONDS", 0)
    stored = finish_direct_upload(registry, who, upload.upload_id)

    assert stored is not None
    assert stored.digest == digest_of(DATA)


def test_who_could_not_finish_leaves_the_turn_to_others(registry: Registry, who: Principal, run: Repository) -> None:
    upload = begin(registry, who, run)
    for part in upload.missing[1:]:
        put(part, DATA[part.offset : part.offset + part.size_bytes])
    with pytest.raises(InvalidFieldError, match="part 1 is not there"):
        finish_direct_upload(registry, who, upload.upload_id)
    put(upload.missing[0], DATA[: 100 * KIB])

    stored = finish_direct_upload(registry, who, upload.upload_id)

    assert stored is not None


def test_nothing_is_begun_that_could_not_be_finished(registry: Registry, who: Principal, run: Repository) -> None:
    digest = digest_of(DATA)
    with pytest.raises(LimitExceededError):
        begin_direct_upload(registry, who, run, digest, 101, 100)
    with pytest.raises(InvalidFieldError):
        begin_direct_upload(registry, who, run, digest, 0, 100)
    for path, error in ((f"runs/{'0' * 32}", RunNotFoundError), ("m/99", ManifestNotFoundError)):
        with pytest.raises(error):
            begin_direct_upload(registry, who, parse_repository(path), digest, 5, 100)
    with pytest.raises(UploadNotFoundError):
        get_direct_upload(registry, who, "../x")


def test_parts_are_never_so_many_that_a_store_takes_no_more() -> None:
    parts = direct_uploads._list_parts((5 << 40) + 1)

    assert len(parts) <= 10_000
    assert sum(length for _number, _offset, length in parts) == (5 << 40) + 1


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_store_without_addresses_says_so(kind: str, who: Principal, sqlite_url: str, tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "blobs") if kind == "folder" else BucketBlobStore(MemoryStore())
    registry = open_registry(sqlite_url, blobs)
    try:
        with pytest.raises(UnsupportedError, match="upload on /v2"):
            begin(registry, who, new_run(registry, who))
    finally:
        registry.close()
