"""The contract of a blob store, tried on every store; below it, what only a disk or only a bucket can do wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore, ObjectStore, S3Store

from tests.ceph import Ceph
from tests.parts import skip_without
from touchmark.artifacts import bucket as bucket_module
from touchmark.artifacts import layout
from touchmark.artifacts.blobs import BlobStore, StoredBlob, stream_checked
from touchmark.artifacts.bucket import BucketBlobStore
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.digest import Digest, digest_of, hex_of
from touchmark.domain.errors import (
    BlobNotFoundError,
    BusyError,
    DigestMismatchError,
    LimitExceededError,
    StorageFullError,
)

MIB = 1 << 20
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3_000))  # 96,000 bytes, no two alike
ABSENT = digest_of(b"never stored")
SESSION = "5e" * 32


@dataclass
class OpenedStore:
    """A store, and the way behind its back."""

    store: BlobStore
    overwrite: Callable[[str, bytes], None]
    list_keys: Callable[[], list[str]]
    reopen: Callable[[], BlobStore]

    def damage(self, digest: Digest, data: bytes) -> None:
        self.overwrite(layout.blob_key(digest), data)

    def list_staging(self) -> list[str]:
        return [key for key in self.list_keys() if key.startswith("staging/")]


def open_local(root: Path) -> OpenedStore:
    def overwrite(key: str, data: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def list_keys() -> list[str]:
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    return OpenedStore(LocalBlobStore(root), overwrite, list_keys, lambda: LocalBlobStore(root))


def open_memory() -> OpenedStore:
    return open_in(MemoryStore())


def open_in(bucket: ObjectStore) -> OpenedStore:
    def overwrite(key: str, data: bytes) -> None:
        obstore.put(bucket, key, data)

    def list_keys() -> list[str]:
        return sorted(item["path"] for page in obstore.list(bucket) for item in page)

    return OpenedStore(BucketBlobStore(bucket), overwrite, list_keys, lambda: BucketBlobStore(bucket))


@pytest.fixture(params=["local", "memory", pytest.param("ceph", marks=pytest.mark.ceph), "azure"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> OpenedStore:
    if request.param == "local":
        return open_local(tmp_path / "store")
    if request.param == "memory":
        return open_memory()
    place = "ceph_cluster" if request.param == "ceph" else "azure_stand_in"
    return open_in(request.getfixturevalue(place).open_bucket())


@pytest.fixture
def store(opened: OpenedStore) -> BlobStore:
    return opened.store


def write(store: BlobStore, data: bytes, chunk_bytes: int = 7_000) -> StoredBlob:
    with store.open_writer() as writer:
        for start in range(0, len(data), chunk_bytes):
            writer.write(data[start : start + chunk_bytes])
        return writer.commit()


class TestBlobStore:
    """Every store keeps these."""

    @pytest.mark.parametrize("size_bytes", [0, 1, 6_999, 7_000, 96_000])
    def test_a_blob_written_in_chunks_is_read_back_whole(self, store: BlobStore, size_bytes: int) -> None:
        data = DATA[:size_bytes]

        stored = write(store, data)

        assert stored == StoredBlob(digest_of(data), size_bytes)
        assert store.read(stored.digest) == data
        assert store.find_size(stored.digest) == size_bytes
        assert store.check(stored.digest) == size_bytes

    def test_a_blob_of_many_megabytes_is_the_same_in_chunks_of_any_size(self, store: BlobStore) -> None:
        data = os.urandom(9 * MIB + 13)

        written = {write(store, data, chunk_bytes) for chunk_bytes in (50_000, MIB, 5 * MIB, len(data))}

        assert written == {StoredBlob(digest_of(data), len(data))}
        assert store.check(digest_of(data)) == len(data)

    def test_a_small_blob_is_put_in_one_call(self, store: BlobStore) -> None:
        assert store.put(b"small") == StoredBlob(digest_of(b"small"), 5)
        assert store.put(b"") == StoredBlob(digest_of(b""), 0)
        assert store.read(digest_of(b"small")) == b"small"

    def test_a_blob_written_twice_is_stored_once(self, opened: OpenedStore) -> None:
        first = write(opened.store, DATA)
        second = write(opened.store, DATA)
        third = opened.store.put(DATA)

        assert first == second == third
        assert opened.list_keys() == [layout.blob_key(first.digest)]

    def test_the_writer_counts_what_it_was_given(self, store: BlobStore) -> None:
        with store.open_writer() as writer:
            writer.write(b"four")
            writer.write(memoryview(b"three"))
            writer.write(bytearray(b""))

            assert writer.size_bytes == 9
            assert writer.commit() == StoredBlob(digest_of(b"fourthree"), 9)

    @pytest.mark.parametrize("size_bytes", [100, 5 * MIB])
    def test_the_caller_may_reuse_its_buffer_after_each_write(self, store: BlobStore, size_bytes: int) -> None:
        buffer = bytearray(size_bytes)
        expected = hashlib.sha256()
        with store.open_writer() as writer:
            for letter in (1, 2, 3):
                buffer[:] = bytes([letter]) * size_bytes
                expected.update(buffer)
                writer.write(memoryview(buffer))
                buffer[:] = bytes(size_bytes)
            stored = writer.commit()

        assert hex_of(stored.digest) == expected.hexdigest()
        assert store.check(stored.digest) == 3 * size_bytes

    def test_leaving_without_commit_leaves_nothing(self, opened: OpenedStore) -> None:
        with opened.store.open_writer() as writer:
            writer.write(DATA)
        with pytest.raises(KeyError), opened.store.open_writer() as writer:
            writer.write(DATA)
            raise KeyError

        assert opened.list_keys() == []

    def test_a_writer_takes_nothing_after_its_end(self, store: BlobStore) -> None:
        with store.open_writer() as writer:
            writer.commit()
            with pytest.raises(ValueError, match="over"):
                writer.write(b"late")
            with pytest.raises(ValueError, match="over"):
                writer.commit()
            writer.close()

    def test_a_wrong_digest_stores_nothing(self, opened: OpenedStore) -> None:
        with opened.store.open_writer() as writer:
            writer.write(DATA)
            with pytest.raises(DigestMismatchError) as caught:
                writer.commit(expected=ABSENT)

        assert caught.value.fields["expected"] == ABSENT
        assert caught.value.fields["found"] == digest_of(DATA)
        assert opened.list_keys() == []

    @pytest.mark.parametrize("difference", [-1, 1])
    def test_a_wrong_size_stores_nothing(self, opened: OpenedStore, difference: int) -> None:
        with opened.store.open_writer() as writer:
            writer.write(DATA)
            with pytest.raises(DigestMismatchError):
                writer.commit(expected_size_bytes=len(DATA) + difference)

        assert opened.list_keys() == []

    def test_the_right_digest_and_size_are_accepted(self, store: BlobStore) -> None:
        with store.open_writer() as writer:
            writer.write(DATA)

            assert writer.commit(digest_of(DATA), len(DATA)).digest == digest_of(DATA)

    @pytest.mark.parametrize("offset", [0, 1, 1_000, 95_999, 96_000, 96_001, 10**12])
    @pytest.mark.parametrize("length", [None, 0, 1, 999, 95_999, 96_000, 96_001, 10**12])
    def test_a_range_is_what_a_file_would_give(self, store: BlobStore, offset: int, length: int | None) -> None:
        digest = store.put(DATA).digest
        expected = DATA[offset:] if length is None else DATA[offset : offset + length]

        assert store.read(digest, offset, length) == expected
        assert b"".join(store.stream(digest, offset, length, chunk_bytes=4_096)) == expected

    @pytest.mark.parametrize("wrong", [{"offset": -1}, {"length": -1}, {"chunk_bytes": 0}])
    def test_a_negative_range_is_a_programming_error(self, store: BlobStore, wrong: dict[str, int]) -> None:
        digest = store.put(DATA).digest

        with pytest.raises(ValueError, match="negative"):
            store.stream(digest, **wrong)

    def test_a_stream_yields_chunks_of_the_size_asked_and_none_empty(self, store: BlobStore) -> None:
        digest = store.put(DATA).digest

        chunks = list(store.stream(digest, chunk_bytes=10_000))

        # "About": what a network hands over at once ends where it ends.
        assert all(0 < len(chunk) <= 10_000 for chunk in chunks)
        assert len(chunks) < 30
        assert list(store.stream(store.put(b"").digest)) == []

    def test_a_missing_blob_is_said_before_the_first_chunk(self, store: BlobStore) -> None:
        for ask in (
            lambda: store.read(ABSENT),
            lambda: store.read(ABSENT, 5, 0),
            lambda: store.stream(ABSENT),
            lambda: store.stream(ABSENT, 1, 2),
            lambda: stream_checked(store, ABSENT),
            lambda: store.check(ABSENT),
        ):
            with pytest.raises(BlobNotFoundError) as caught:
                ask()
            assert caught.value.fields["digest"] == ABSENT
        assert store.find_size(ABSENT) is None
        assert store.find_path(ABSENT) is None
        assert store.delete(ABSENT) is False

    def test_a_local_path_holds_the_bytes_or_there_is_none(self, store: BlobStore) -> None:
        path = store.find_path(store.put(DATA).digest)

        assert path is None if isinstance(store, BucketBlobStore) else path is not None and path.read_bytes() == DATA

    def test_blobs_are_listed_in_order_without_strangers(self, opened: OpenedStore) -> None:
        stored = sorted((opened.store.put(b"%d" % number) for number in range(40)), key=lambda blob: blob.digest)
        hexadecimal = hex_of(stored[0].digest)
        opened.overwrite("blobs/sha256/README", b"a stranger")
        opened.overwrite("blobs/sha256/00/short", b"a stranger")
        opened.overwrite(f"blobs/sha256/zz/{hexadecimal}", b"in the wrong shard")

        assert list(opened.store.list_blobs()) == stored

    def test_a_deleted_blob_is_gone_and_can_be_stored_again(self, store: BlobStore) -> None:
        digest = store.put(DATA).digest

        assert store.delete(digest) is True
        assert store.find_size(digest) is None
        assert store.delete(digest) is False
        assert write(store, DATA).digest == digest
        assert store.check(digest) == len(DATA)

    @pytest.mark.parametrize("damaged", [DATA[:-1], DATA + b"x", b"", b"X" + DATA[1:]])
    def test_check_finds_every_kind_of_damage(self, opened: OpenedStore, damaged: bytes) -> None:
        digest = opened.store.put(DATA).digest
        opened.damage(digest, damaged)

        with pytest.raises(DigestMismatchError) as caught:
            opened.store.check(digest)

        assert caught.value.fields["found"] == digest_of(damaged)

    @pytest.mark.parametrize("upload", [write, lambda store, data: store.put(data)], ids=["writer", "put"])
    @pytest.mark.parametrize(
        "damaged",
        [DATA[:-1], b"", DATA + b"x", b"X" + DATA[1:], DATA[:-1] + b"X"],
        ids=["short", "empty", "long", "first byte", "last byte"],
    )
    def test_a_damaged_blob_is_healed_by_storing_it_again(
        self, opened: OpenedStore, upload: Callable[[BlobStore, bytes], StoredBlob], damaged: bytes
    ) -> None:
        digest = opened.store.put(DATA).digest
        opened.damage(digest, damaged)

        upload(opened.store, DATA)

        assert opened.store.check(digest) == len(DATA)
        assert opened.list_keys() == [layout.blob_key(digest)]

    def test_a_large_blob_that_rotted_in_its_middle_is_healed(self, opened: OpenedStore) -> None:
        data = os.urandom(3 * MIB + 5)
        digest = write(opened.store, data).digest
        opened.damage(digest, data[: 2 * MIB] + bytes([data[2 * MIB] ^ 1]) + data[2 * MIB + 1 :])

        write(opened.store, data)

        assert opened.store.check(digest) == len(data)
        assert opened.list_keys() == [layout.blob_key(digest)]

    def test_who_reads_a_damaged_blob_while_it_is_healed_sees_one_of_the_two(self, opened: OpenedStore) -> None:
        damaged = b"X" + DATA[1:]
        digest = opened.store.put(DATA).digest
        opened.damage(digest, damaged)
        reading = opened.store.stream(digest, chunk_bytes=10_000)
        first = next(reading)

        opened.store.put(DATA)

        assert first + b"".join(reading) in (damaged, DATA)
        assert opened.store.read(digest) == DATA

    def test_parts_are_kept_apart_from_blobs_until_they_are_dropped(self, opened: OpenedStore) -> None:
        kept = {}
        for upload_id, data in (("a1", DATA), ("a1", b""), ("a1", DATA), ("a", b"other")):
            with opened.store.open_part_writer(upload_id) as writer:
                writer.write(data)
                stored = writer.commit()
            assert stored == StoredBlob(digest_of(data), len(data))
            kept[upload_id, stored.digest] = data

        assert list(opened.store.list_blobs()) == []
        assert opened.list_keys() == sorted(layout.part_key(*part) for part in kept)
        for part, data in kept.items():
            assert b"".join(opened.store.stream_part(*part)) == data
        with pytest.raises(BlobNotFoundError):
            opened.store.stream_part("a", digest_of(DATA))

        opened.store.drop_parts("a")
        opened.store.drop_parts("never begun")

        assert opened.list_keys() == sorted(layout.part_key(*part) for part in kept if part[0] == "a1")
        time.sleep(0.01)
        assert opened.store.sweep_staging(0) == 2

    def test_a_part_that_is_not_committed_or_not_what_was_expected_leaves_nothing(self, opened: OpenedStore) -> None:
        with opened.store.open_part_writer("a") as writer:
            writer.write(DATA)
        with opened.store.open_part_writer("a") as writer, pytest.raises(DigestMismatchError):
            writer.write(DATA)
            writer.commit(expected=ABSENT)

        assert opened.list_keys() == []

    def test_a_checked_stream_gives_a_sound_blob_whole(self, store: BlobStore) -> None:
        digest = store.put(DATA).digest

        assert b"".join(stream_checked(store, digest, len(DATA), chunk_bytes=1_000)) == DATA
        assert b"".join(stream_checked(store, digest)) == DATA
        assert list(stream_checked(store, store.put(b"").digest, 0)) == []

    @pytest.mark.parametrize(
        "damaged", [b"X" + DATA[1:], DATA[:-1] + b"X", DATA[:-1], DATA[:-1_000], DATA + b"X", DATA * 2, b""]
    )
    @pytest.mark.parametrize("chunk_bytes", [1_000, 7_000, MIB])
    @pytest.mark.parametrize("size_bytes", [None, len(DATA)])
    def test_a_checked_stream_of_a_damaged_blob_is_cut_before_its_end(
        self, opened: OpenedStore, damaged: bytes, chunk_bytes: int, size_bytes: int | None
    ) -> None:
        digest = opened.store.put(DATA).digest
        opened.damage(digest, damaged)
        sent = bytearray()

        with pytest.raises(DigestMismatchError):
            for chunk in stream_checked(opened.store, digest, size_bytes, chunk_bytes):
                sent += chunk

        assert len(sent) < max(len(damaged), 1)
        if size_bytes is not None:
            assert len(sent) < size_bytes

    def test_many_threads_may_store_one_blob_at_once(self, opened: OpenedStore) -> None:
        data = os.urandom(3 * MIB)
        barrier = threading.Barrier(8)
        stored: list[StoredBlob] = []

        def upload() -> None:
            barrier.wait()
            stored.append(write(opened.store, data, 300_000))

        threads = [threading.Thread(target=upload) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert stored == [StoredBlob(digest_of(data), len(data))] * 8
        assert opened.list_keys() == [layout.blob_key(digest_of(data))]
        assert opened.store.check(digest_of(data)) == len(data)

    def test_twenty_keys_and_sixteen_writers_have_one_winner_each(self, opened: OpenedStore) -> None:
        """Each writer stores all twenty, half of them in one call, and each begins at another one."""
        datas = [b"%d" % number * 20_000 for number in range(20)]
        gate = threading.Barrier(16)

        def store_all(first: int) -> list[StoredBlob]:
            gate.wait()
            mine = opened.reopen() if first % 2 else opened.store
            stored = []
            for step in range(20):
                data = datas[(first + step) % 20]
                stored.append(write(mine, data) if (first + step) % 4 < 2 else mine.put(data))
            return stored

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(store_all, range(16)))

        expected = sorted((StoredBlob(digest_of(data), len(data)) for data in datas), key=lambda blob: blob.digest)
        assert all(sorted(answer, key=lambda blob: blob.digest) == expected for answer in answers)
        assert list(opened.store.list_blobs()) == expected
        assert opened.list_keys() == [layout.blob_key(blob.digest) for blob in expected]
        assert all(opened.store.check(blob.digest) == blob.size_bytes for blob in expected)

    def test_storing_and_deleting_one_blob_at_once_never_shows_half_of_it(self, opened: OpenedStore) -> None:
        digest = digest_of(DATA)
        stop = threading.Event()
        seen: set[int | None] = set()
        failures: list[BaseException] = []

        def repeat(act: Callable[[], object]) -> None:
            while not stop.is_set():
                try:
                    act()
                except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                    failures.append(error)
                    return

        def look() -> None:
            with contextlib.suppress(BlobNotFoundError):
                seen.add(opened.store.check(digest))

        def upload() -> None:
            with contextlib.suppress(BusyError):  # a bucket notices that the blob was deleted under the commit
                write(opened.store, DATA)

        acts = (upload, lambda: opened.store.delete(digest), look)
        threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        end = time.monotonic() + 20  # over a network a look seldom meets the moments between
        while not seen and not failures and time.monotonic() < end:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()

        assert failures == []
        assert seen == {len(DATA)}
        assert opened.list_staging() == []

    def test_old_uploads_are_swept_and_young_ones_left(self, opened: OpenedStore) -> None:
        kept = opened.store.put(DATA)
        opened.overwrite(layout.new_staging_key(), b"left over")
        opened.overwrite(layout.new_staging_key(), b"left over")

        assert opened.store.sweep_staging(3_600) == 0
        time.sleep(0.01)
        assert opened.store.sweep_staging(0) == 2
        assert opened.store.sweep_staging(0) == 0
        assert list(opened.store.list_blobs()) == [kept]

    def test_asking_whether_it_can_be_written_leaves_nothing(self, opened: OpenedStore) -> None:
        opened.store.check_writable()

        assert opened.list_keys() == []
        opened.store.close()


class TestSessions:
    """Bytes that come in order, in several requests: every store keeps these."""

    def test_pieces_become_one_blob(self, opened: OpenedStore) -> None:
        store = opened.store
        for start, end in ((0, 10_000), (10_000, 10_001), (10_001, len(DATA))):
            with store.open_appender(SESSION, start) as appender:
                appender.write(DATA[start:end])
                assert appender.commit() == appender.size_bytes == end
        stored = store.finish_session(SESSION, len(DATA), digest_of(DATA))

        assert stored == StoredBlob(digest_of(DATA), len(DATA))
        assert store.read(stored.digest) == DATA
        assert store.check(stored.digest) == len(DATA)
        assert opened.list_staging() == []

    def test_one_request_may_commit_more_than_once(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            for start in range(0, len(DATA), 20_000):
                appender.write(DATA[start : start + 20_000])
                appender.commit()

        assert opened.store.finish_session(SESSION, len(DATA), digest_of(DATA)).size_bytes == len(DATA)

    def test_what_lies_beyond_where_a_request_begins_is_dropped(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA[:5_000])
            appender.commit()
            appender.write(
                b"of a request that was cut" * MIB
            )  # more than what comes instead, and more than is gathered
        with opened.store.open_appender(SESSION, 5_000) as appender:
            appender.write(DATA[5_000:])
            appender.commit()
        stored = opened.store.finish_session(SESSION, len(DATA), digest_of(DATA))

        assert stored == StoredBlob(digest_of(DATA), len(DATA))
        assert opened.store.read(stored.digest) == DATA

    def test_another_process_goes_on_where_one_ended(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA[:5_000])
            appender.commit()
        other = opened.reopen()
        with other.open_appender(SESSION, 5_000) as appender:
            appender.write(DATA[5_000:])
            appender.commit()

        assert other.finish_session(SESSION, len(DATA), digest_of(DATA)).digest == digest_of(DATA)
        assert opened.store.read(digest_of(DATA)) == DATA

    def test_a_wrong_digest_leaves_the_session(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA)
            appender.commit()
        with pytest.raises(DigestMismatchError):
            opened.store.finish_session(SESSION, len(DATA), ABSENT)
        assert opened.store.find_size(digest_of(DATA)) is None

        assert opened.store.finish_session(SESSION, len(DATA), digest_of(DATA)).size_bytes == len(DATA)

    def test_nothing_goes_on_after_more_than_there_is(self, opened: OpenedStore) -> None:
        for offset in (1, 10_000):
            with pytest.raises(BlobNotFoundError):
                opened.store.open_appender(SESSION, offset)
        with pytest.raises(BlobNotFoundError):
            opened.store.finish_session(SESSION, 1, ABSENT)
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA[:100])
            appender.commit()
        with pytest.raises(BlobNotFoundError):
            opened.store.open_appender(SESSION, 101)

    def test_a_session_dropped_leaves_nothing(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA)
            appender.commit()
        opened.store.drop_session(SESSION)
        opened.store.drop_session(SESSION)

        assert opened.list_keys() == []

    def test_bytes_that_are_stored_already_are_stored_once(self, opened: OpenedStore) -> None:
        opened.store.put(DATA)
        with opened.store.open_appender(SESSION, 0) as appender:
            appender.write(DATA)
            appender.commit()

        assert opened.store.finish_session(SESSION, len(DATA), digest_of(DATA)).digest == digest_of(DATA)
        assert opened.list_keys() == [layout.blob_key(digest_of(DATA))]

    def test_an_empty_session_is_an_empty_blob(self, opened: OpenedStore) -> None:
        with opened.store.open_appender(SESSION, 0) as appender:
            assert appender.commit() == 0

        assert opened.store.finish_session(SESSION, 0, digest_of(b"")).size_bytes == 0


# ── only on a disk ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def local(root: Path) -> LocalBlobStore:
    return LocalBlobStore(root)


def run_python(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_folders_and_files_are_for_their_owner_alone(root: Path, local: LocalBlobStore) -> None:
    digest = local.put(DATA).digest
    with local.open_writer() as writer:
        writer.write(DATA)
        modes = {path.relative_to(root).as_posix(): path.stat().st_mode & 0o7777 for path in root.rglob("*")}

    shard = layout.shard_key(digest)
    staged = next(key for key in modes if key.startswith("staging/"))
    assert root.stat().st_mode & 0o7777 == 0o700
    assert modes == {
        "blobs": 0o700, "blobs/sha256": 0o700, shard: 0o700, "staging": 0o700,
        layout.blob_key(digest): 0o400, staged: 0o600,
    }  # fmt: skip


@dataclass
class DiskCalls:
    """What was asked of the disk, in order, relative to the store."""

    calls: list[str]


@pytest.fixture
def disk(root: Path, local: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> DiskCalls:
    recorded = DiskCalls([])
    fsync, link = os.fsync, os.link

    def recording_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        recorded.calls.append(f"fsync {path.relative_to(root).as_posix()}")
        fsync(descriptor)

    def recording_link(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        link(source, target, follow_symlinks=follow_symlinks)
        recorded.calls.append(f"link {target.relative_to(root).as_posix()}")

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    return recorded


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="a descriptor's path is read from /proc")


@needs_proc
def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    local: LocalBlobStore, disk: DiskCalls
) -> None:
    digest = write(local, DATA).digest

    staged, *rest = disk.calls
    assert staged.startswith("fsync staging/")
    assert rest == [f"link {layout.blob_key(digest)}", "fsync blobs/sha256", f"fsync {layout.shard_key(digest)}"]


@needs_proc
def test_one_request_at_a_time_sends_to_a_session(local: LocalBlobStore) -> None:
    with local.open_appender(SESSION, 0) as appender:
        appender.write(DATA)
        with pytest.raises(BusyError, match="Another request"):
            local.open_appender(SESSION, 0)
        with pytest.raises(BusyError, match="Another request"):
            local.finish_session(SESSION, 0, ABSENT)
        appender.commit()
    assert local.finish_session(SESSION, len(DATA), digest_of(DATA)).size_bytes == len(DATA)


def test_a_finished_session_is_read_no_second_time_and_keeps_no_other_name(
    local: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local.open_appender(SESSION, 0) as appender:
        appender.write(DATA)
        appender.commit()
    monkeypatch.setattr(Path, "open", None)  # what reads it again
    local.finish_session(SESSION, len(DATA), digest_of(DATA))

    path = local.find_path(digest_of(DATA))
    assert path is not None
    assert path.stat().st_nlink == 1
    assert path.stat().st_mode & 0o777 == 0o400


def test_a_part_and_its_name_are_on_the_disk_before_the_answer(local: LocalBlobStore, disk: DiskCalls) -> None:
    with local.open_part_writer("a") as writer:
        writer.write(DATA)
        writer.commit()

    staged, folder = disk.calls
    assert staged.startswith("fsync staging/")
    assert folder == "fsync staging"


@needs_proc
def test_what_a_session_has_is_on_the_disk_before_the_answer(local: LocalBlobStore, disk: DiskCalls) -> None:
    with local.open_appender(SESSION, 0) as appender:
        appender.write(DATA)
        appender.commit()

    assert disk.calls == [f"fsync {layout.session_key(SESSION)}", "fsync staging"]


@needs_proc
def test_a_finished_session_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    root: Path, local: LocalBlobStore, disk: DiskCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local.open_appender(SESSION, 0) as appender:
        appender.write(DATA)
        appender.commit()
    replace = os.replace

    def recording_replace(source: Path, target: Path) -> None:
        replace(source, target)
        disk.calls.append(f"rename {Path(target).relative_to(root).as_posix()}")

    monkeypatch.setattr(os, "replace", recording_replace)
    disk.calls.clear()

    digest = local.finish_session(SESSION, len(DATA), digest_of(DATA)).digest

    assert disk.calls == [
        f"fsync {layout.session_key(SESSION)}",
        f"rename {layout.blob_key(digest)}",
        "fsync blobs/sha256",
        f"fsync {layout.shard_key(digest)}",
    ]


@needs_proc
def test_bytes_that_heal_a_blob_are_on_the_disk_before_they_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_local(tmp_path / "store")
    digest = opened.store.put(DATA).digest
    opened.damage(digest, b"X" + DATA[1:])
    fail_fsync(monkeypatch, errno.EDQUOT, of_folder=False)

    with pytest.raises(StorageFullError):
        write(opened.store, DATA)

    assert opened.store.read(digest) == b"X" + DATA[1:]
    assert opened.list_staging() == []
    write(opened.store, DATA)
    assert opened.store.read(digest) == DATA


@needs_proc
def test_a_blob_that_is_there_already_costs_one_fsync_of_its_folder(local: LocalBlobStore, disk: DiskCalls) -> None:
    digest = write(local, DATA).digest
    disk.calls.clear()

    write(local, DATA)
    local.put(DATA)

    assert disk.calls == [f"fsync {layout.shard_key(digest)}"] * 2


@needs_proc
def test_a_shard_made_by_another_process_is_fsynced_once_by_this_one(root: Path, disk: DiskCalls) -> None:
    digest = digest_of(DATA)
    (root / layout.shard_key(digest)).mkdir()  # another process made it and has not come to its fsync
    second = LocalBlobStore(root)
    disk.calls.clear()

    write(second, DATA)

    assert disk.calls[-2:] == ["fsync blobs/sha256", f"fsync {layout.shard_key(digest)}"]


def fail_fsync(monkeypatch: pytest.MonkeyPatch, number: int, *, of_folder: bool) -> None:
    """Make the next fsync of a file (or of a folder) fail once, as a disk would: the one after it succeeds."""
    fsync = os.fsync
    waiting = [number]

    def failing(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
        if waiting and is_folder == of_folder:
            raise OSError(waiting.pop(), os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


@needs_proc
@pytest.mark.parametrize("of_folder", [False, True])
def test_a_failed_fsync_is_never_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, of_folder: bool
) -> None:
    opened = open_local(tmp_path / "store")
    known = opened.store.put(b"stored before")
    fail_fsync(monkeypatch, errno.EIO, of_folder=of_folder)
    early = opened.store.open_writer()
    early.write(b"begun before the disk failed")

    with pytest.raises(BusyError, match="failed to keep written bytes"):
        write(opened.store, DATA)

    for refused in (
        lambda: write(opened.store, DATA),
        lambda: opened.store.put(b"stored before"),
        lambda: opened.store.delete(known.digest),
        opened.store.check_writable,
        early.commit,
    ):
        with pytest.raises(BusyError, match="until this server is restarted"):
            refused()
    assert opened.list_staging() == []
    assert opened.store.read(known.digest) == b"stored before"
    if not of_folder:
        assert opened.store.find_size(digest_of(DATA)) is None


@needs_proc
def test_a_disk_found_full_only_by_fsync_is_full_and_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_local(tmp_path / "store")
    fail_fsync(monkeypatch, errno.EDQUOT, of_folder=False)

    with pytest.raises(StorageFullError):
        write(opened.store, DATA)

    assert opened.list_keys() == []
    assert write(opened.store, DATA).digest == digest_of(DATA)


def test_a_real_fsync_error_of_the_kernel_refuses_the_upload(root: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        skip_without("strace: install the package strace")
    script = """
        import sys
        from touchmark.artifacts.local import LocalBlobStore
        from touchmark.domain.errors import BusyError
        store = LocalBlobStore(sys.argv[1])
        for attempt in range(2):
            try:
                store.put(b"bytes")
            except BusyError as error:
                print("refused")
        """
    LocalBlobStore(root)  # so that the child opens it with two fsyncs, and its third is the file's
    inject = ("-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=3")

    done = run_python(script, root, prefix=(strace, *inject))

    if "ptrace" in done.stderr.lower():
        skip_without("the right to trace a child (ptrace)")
    assert (done.stdout, done.stderr) == ("refused\nrefused\n", "")
    assert [path for path in root.rglob("*") if path.is_file()] == []


FILL_THE_DISK = """
    import os, resource, sys
    from pathlib import Path
    from touchmark.artifacts.local import LocalBlobStore
    from touchmark.domain.errors import StorageFullError
    root = Path(sys.argv[1])
    store = LocalBlobStore(root)
    kept = store.put(b"small")
    limit = sys.argv[2]
    if limit != "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    for chunk_bytes in (10_000, 3_000_000):
        try:
            with store.open_writer() as writer:
                for _ in range(16_000_000 // chunk_bytes):
                    writer.write(bytes(chunk_bytes))
                writer.commit()
        except StorageFullError:
            print("full")
    print(len(os.listdir(root / "staging")), len(list(store.list_blobs())), store.put(b"again").size_bytes)
    """


def test_a_file_size_limit_is_told_as_a_full_storage(root: Path) -> None:
    done = run_python(FILL_THE_DISK, root, 4_000_000)

    assert (done.stdout, done.stderr) == ("full\nfull\n0 1 5\n", "")


def test_a_full_disk_is_told_and_leaves_no_upload_behind(root: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        skip_without("the right to mount a small tmpfs: run as root, with unshare")
    root.mkdir()
    mount = 'mount -t tmpfs -o size=8m touchmark "$0" && exec "$@"'  # in a mount namespace: gone with the child

    done = run_python(FILL_THE_DISK, root, "disk", prefix=(unshare, "-m", "sh", "-c", mount, str(root)))

    if "mount" in done.stderr:
        skip_without("the right to mount a small tmpfs (refused in this container)")
    assert (done.stdout, done.stderr) == ("full\nfull\n0 1 5\n", "")


def test_a_killed_upload_leaves_only_a_staging_file_that_can_be_swept(tmp_path: Path) -> None:
    opened = open_local(tmp_path / "store")
    script = """
        import sys, time
        from touchmark.artifacts.local import LocalBlobStore
        writer = LocalBlobStore(sys.argv[1]).open_writer()
        for _ in range(5):
            writer.write(bytes(1 << 20))
        print("written", flush=True)
        time.sleep(60)
        """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL

    assert len(opened.list_keys()) == len(opened.list_staging()) == 1
    assert list(opened.store.list_blobs()) == []
    assert opened.store.sweep_staging(3_600) == 0
    time.sleep(0.01)
    assert opened.store.sweep_staging(0) == 1
    assert opened.list_keys() == []


def test_an_upload_swept_while_it_runs_fails_and_may_be_sent_again(local: LocalBlobStore) -> None:
    with local.open_writer() as writer:
        writer.write(DATA)
        time.sleep(0.01)
        assert local.sweep_staging(0) == 1
        with pytest.raises(BusyError, match="send it again"):
            writer.commit()

    assert list(local.list_blobs()) == []
    assert write(local, DATA).size_bytes == len(DATA)


def test_four_processes_may_store_the_same_blobs_at_once(tmp_path: Path) -> None:
    opened = open_local(tmp_path / "store")
    script = """
        import sys
        from touchmark.artifacts.local import LocalBlobStore
        store = LocalBlobStore(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(150):
            with store.open_writer() as writer:
                writer.write(b"%d" % number * 1000)
                print(writer.commit().digest)
        """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "store")]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0].split() for child in children]

    assert [child.returncode for child in children] == [0] * 4
    assert answers == [[digest_of(b"%d" % number * 1000) for number in range(150)]] * 4
    assert sorted(answers[0]) == [blob.digest for blob in opened.store.list_blobs()]
    assert all(opened.store.check(blob.digest) == blob.size_bytes for blob in opened.store.list_blobs())
    assert opened.list_staging() == []


def test_a_symbolic_link_or_a_folder_among_the_blobs_is_no_blob(tmp_path: Path, local: LocalBlobStore) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    linked, folder = digest_of(DATA), digest_of(b"folder")
    (local.root / layout.shard_key(linked)).mkdir()
    (local.root / layout.blob_key(linked)).symlink_to(secret)
    (local.root / layout.blob_key(folder)).mkdir(parents=True)

    for digest in (linked, folder):
        assert local.find_size(digest) is None
        assert local.find_path(digest) is None
        with pytest.raises(BlobNotFoundError):
            local.read(digest)
    assert list(local.list_blobs()) == []
    local.put(DATA)  # replaces the link, not what it points at
    assert not (local.root / layout.blob_key(linked)).is_symlink()
    assert secret.read_bytes() == DATA


def list_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


@needs_proc
def test_a_stream_nobody_reads_to_its_end_leaves_no_file_open(local: LocalBlobStore) -> None:
    digest = local.put(DATA).digest
    before = list_descriptors()

    local.stream(digest)
    local.stream(digest).close()
    next(local.stream(digest, chunk_bytes=10))
    stream_checked(local, digest)
    next(stream_checked(local, digest, chunk_bytes=10))

    assert list_descriptors() == before


def test_memory_stays_flat_while_256_mib_are_written_and_streamed(root: Path) -> None:
    script = """
        import resource, sys
        from touchmark.artifacts.blobs import stream_checked
        from touchmark.artifacts.local import LocalBlobStore
        store = LocalBlobStore(sys.argv[1])
        def move(mebibytes):
            with store.open_writer() as writer:
                for number in range(mebibytes * 16):
                    writer.write(number.to_bytes(4) * (1 << 14))
                blob = writer.commit()
            assert sum(map(len, stream_checked(store, blob.digest, blob.size_bytes))) == mebibytes << 20
        move(16)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        move(256)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """

    done = run_python(script, root)

    assert done.stderr == ""
    assert int(done.stdout) <= 8  # MiB


@pytest.mark.parametrize("chunk_bytes", [100_000, MIB, 3 * MIB])
def test_the_hash_is_right_however_late_its_thread_runs(local: LocalBlobStore, chunk_bytes: int) -> None:
    data = os.urandom(12 * MIB)
    with local.open_writer() as writer:
        for start in range(0, len(data), chunk_bytes):
            writer.write(data[start : start + chunk_bytes])
            if writer._hasher is not None and start < 4 * MIB:
                writer._hasher.submit(time.sleep, 0.02)

        assert writer.commit().digest == digest_of(data)


def test_a_store_is_opened_where_many_folders_are_missing(tmp_path: Path) -> None:
    store = LocalBlobStore(str(tmp_path / "a" / "b" / "c"))

    assert store.put(b"x").size_bytes == 1
    assert LocalBlobStore(tmp_path / "a" / "b" / "c").read(digest_of(b"x")) == b"x"


# ── only in a bucket ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blob_too_large_for_the_buckets_own_copy_is_copied_through() -> None:
    bucket = MemoryStore()
    store = BucketBlobStore(bucket, max_copy_bytes=1_000)

    stored = write(store, DATA)

    assert store.check(stored.digest) == len(DATA)
    assert [item["path"] for page in obstore.list(bucket) for item in page] == [layout.blob_key(stored.digest)]


@pytest.mark.ceph
def test_parts_grow_with_a_blob_of_a_known_size_and_one_that_is_too_large_is_refused_while_it_comes(
    ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 5 * MIB)
    monkeypatch.setattr(bucket_module, "_PARTS_LIMIT", 3)
    bucket = ceph_cluster.open_bucket()
    store = BucketBlobStore(bucket)
    data = DATA * 205  # 18.8 MiB: four parts of 5 MiB, or three that are larger
    chunks = [data[start : start + MIB] for start in range(0, len(data), MIB)]

    with store.open_writer(len(data)) as writer:
        for chunk in chunks:
            writer.write(chunk)
        stored = writer.commit()
    staged = list[int]()
    with pytest.raises(LimitExceededError, match="may be at most 15728640 bytes"), store.open_writer() as writer:
        for chunk in chunks:
            writer.write(chunk)
            staged.append(writer.size_bytes)

    assert store.check(stored.digest) == len(data)
    assert staged[-1] == 15 * MIB
    assert [item["path"] for page in obstore.list(bucket) for item in page] == [layout.blob_key(stored.digest)]


@pytest.mark.ceph
@pytest.mark.parametrize(
    ("size_bytes", "parts"), [(16 * MIB, 3), (15 * MIB, 3), (14 * MIB, 3), (11 * MIB, 3), (6 * MIB, 2)]
)
def test_an_object_has_no_more_parts_than_a_bucket_takes(
    size_bytes: int, parts: int, ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "_PART_BYTES", 5 * MIB)
    monkeypatch.setattr(bucket_module, "_PARTS_LIMIT", 3)
    bucket = ceph_cluster.open_bucket()

    writing = bucket_module._open_upload(bucket, "staging/x", size_bytes)
    writing.write(bytes(size_bytes))
    writing.close()

    tag = obstore.head(bucket, "staging/x")["e_tag"]  # of several parts: their number at the end, as in Amazon S3
    assert tag is not None
    assert tag.strip('"').endswith(f"-{parts}")


def test_an_upload_whose_staging_object_was_swept_fails_and_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryStore()
    store = BucketBlobStore(bucket)
    copy = obstore.copy

    def sweep_then_copy(bucket_: MemoryStore, source: str, target: str) -> None:
        obstore.delete(bucket_, source)
        copy(bucket_, source, target)

    monkeypatch.setattr(obstore, "copy", sweep_then_copy)

    with pytest.raises(BusyError, match="nothing was changed"):
        write(store, DATA)

    assert list(obstore.list(bucket)) == []


def test_a_blob_that_changes_while_it_is_copied_through_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryStore()
    store = BucketBlobStore(bucket, max_copy_bytes=1_000)
    get = obstore.get

    def damage_then_get(bucket_: MemoryStore, key: str) -> obstore.GetResult:
        obstore.put(bucket_, key, b"X" + DATA[1:])
        return get(bucket_, key)

    monkeypatch.setattr(obstore, "get", damage_then_get)

    with pytest.raises(DigestMismatchError):
        write(store, DATA)

    assert list(obstore.list(bucket)) == []


def test_a_bucket_that_says_it_copied_and_did_not_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BucketBlobStore(MemoryStore())
    monkeypatch.setattr(obstore, "copy", lambda *_: None)

    with pytest.raises(BusyError, match="does not hold"):
        write(store, DATA)


def test_a_bucket_that_does_not_answer_is_a_reason_to_try_again() -> None:
    store = BucketBlobStore(
        S3Store(
            "models",
            endpoint="http://127.0.0.1:9",  # the discard port: nobody listens
            access_key_id="nobody",
            secret_access_key="nothing",
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
    )

    for ask in (
        lambda: store.find_size(ABSENT),
        lambda: store.read(ABSENT),
        lambda: store.read(ABSENT, 5, 5),
        lambda: store.put(DATA),
        lambda: write(store, DATA),
        lambda: list(store.list_blobs()),
        lambda: store.delete(ABSENT),
        lambda: store.sweep_staging(0),
        store.check_writable,
    ):
        with pytest.raises(BusyError) as caught:
            ask()
        assert "\n" not in caught.value.message
        assert "nothing" not in caught.value.message.replace("nothing was changed", "")


@pytest.mark.parametrize("kind", ["memory", pytest.param("ceph", marks=pytest.mark.ceph), "azure"])
def test_of_many_registries_that_claim_a_place_at_once_one_has_it(kind: str, request: pytest.FixtureRequest) -> None:
    place = {"ceph": "ceph_cluster", "azure": "azure_stand_in"}.get(kind)
    bucket = MemoryStore() if place is None else request.getfixturevalue(place).open_bucket()
    gate = threading.Barrier(12)

    def claim(number: int) -> str:
        gate.wait()
        return BucketBlobStore(bucket).claim(f"registry-{number}")

    with ThreadPoolExecutor(12) as pool:
        owners = set(pool.map(claim, range(12)))

    assert len(owners) == 1
    assert BucketBlobStore(bucket).claim("a late one") in owners
