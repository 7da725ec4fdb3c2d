"""Uploads in parts, on both databases and both stores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.access import Principal
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    InvalidFieldError,
    InvalidPathError,
    LimitExceededError,
    LoggedModelNotFoundError,
    RunDeletedError,
    RunNotFoundError,
    UploadNotFoundError,
)
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner
from touchmark.registry import Registry
from touchmark.services import artifacts, logged_models, runs, sessions, uploads
from touchmark.services.uploads import NamedPart
from touchmark.storage import uploads as rows

LIMIT = 1 << 30
MIB = 1 << 20
DATA = os.urandom(3 * MIB + 7)
PARTS = [DATA[:MIB], DATA[MIB : 2 * MIB], DATA[2 * MIB :]]


@pytest.fixture(params=["run", "logged_model"])
def owner(request: pytest.FixtureRequest, registry: Registry, who: Principal) -> ArtifactOwner:
    if request.param == "run":
        return ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)
    return ArtifactOwner("logged_model", logged_models.create_logged_model(registry, who, "m").model_id)


@pytest.fixture
def run(registry: Registry, who: Principal) -> ArtifactOwner:
    return ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)


def put(registry: Registry, who: Principal, upload_id: str, number: int, data: bytes, limit: int = LIMIT) -> NamedPart:
    with uploads.open_part(registry, who, upload_id, number, limit) as part:
        part.write(data)
        return NamedPart(number, f'"{part.commit().digest}"')


def begin(registry: Registry, who: Principal, owner: ArtifactOwner) -> tuple[str, list[NamedPart]]:
    """Begin an upload of DATA to `d/f` and send its parts, the last first."""
    upload_id = uploads.create_upload(registry, who, owner, "d/f")
    parts = [put(registry, who, upload_id, number, PARTS[number - 1]) for number in (3, 1, 2)]
    return upload_id, sorted(parts, key=lambda part: part.number)


def complete(
    registry: Registry, who: Principal, owner: ArtifactOwner, upload_id: str, parts: Sequence[NamedPart]
) -> None:
    uploads.complete_upload(registry, who, owner, "d/f", upload_id, parts, LIMIT)


def read(registry: Registry, who: Principal, owner: ArtifactOwner) -> bytes:
    return b"".join(artifacts.open_artifact(registry, who, owner, "d/f").stream())


def list_staging(registry: Registry) -> list[str]:
    assert isinstance(registry.blobs, LocalBlobStore)
    return sorted(path.name for path in (registry.blobs.root / "staging").iterdir())


def test_a_file_sent_in_parts_out_of_order_counts_once_it_is_complete(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    upload_id, parts = begin(registry, who, owner)
    with pytest.raises(ArtifactNotFoundError):
        read(registry, who, owner)
    assert list(registry.blobs.list_blobs()) == []

    complete(registry, who, owner, upload_id, parts)

    assert read(registry, who, owner) == DATA
    (file,) = artifacts.list_artifact_files(registry, who, owner)
    assert (file.path, file.digest, file.size_bytes) == ("d/f", digest_of(DATA), len(DATA))
    if isinstance(registry.blobs, LocalBlobStore):
        assert list_staging(registry) == []


def test_a_request_to_complete_that_is_sent_again_finds_it_done(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    upload_id, parts = begin(registry, who, run)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(complete, registry, who, run, upload_id, parts) for _ in range(4)]:
            done.result()
    artifacts.put_artifact(registry, who, run, "d/f", b"newer")

    complete(registry, who, run, upload_id, parts)
    uploads.abort_upload(registry, who, run, "d/f", upload_id)

    assert read(registry, who, run) == b"newer"
    with pytest.raises(UploadNotFoundError):
        put(registry, who, upload_id, 1, b"late")


def test_a_part_sent_again_replaces_the_one_before(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    upload_id, parts = begin(registry, who, run)
    newer = put(registry, who, upload_id, 2, b"newer")
    with pytest.raises(InvalidFieldError, match="part 2 was uploaded again"):
        complete(registry, who, run, upload_id, parts)

    complete(registry, who, run, upload_id, [parts[0], newer, parts[2]])

    assert read(registry, who, run) == PARTS[0] + b"newer" + PARTS[2]


def test_the_same_bytes_may_be_several_parts(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    upload_id = uploads.create_upload(registry, who, run, "d/f")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda number: put(registry, who, upload_id, number, bytes(1000)), range(1, 9)))

    complete(registry, who, run, upload_id, parts)

    assert read(registry, who, run) == bytes(8000)


def test_parts_must_be_named_once_in_order_and_be_there(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    upload_id, (one, two, three) = begin(registry, who, run)
    for wrong in (
        [],
        [one, three, two],
        [one, one],
        [one, two, three, NamedPart(4, None)],
        [NamedPart(0, None), one],
        [NamedPart(-1, None)],
        [one, NamedPart(2, three.etag)],
        [one, NamedPart(2, "md5")],
    ):
        with pytest.raises(InvalidFieldError):
            complete(registry, who, run, upload_id, wrong)
    assert artifacts.list_artifacts(registry, who, run) == []

    complete(registry, who, run, upload_id, [NamedPart(1, None), three])  # parts that are not named are left out

    assert read(registry, who, run) == PARTS[0] + PARTS[2]


def test_an_upload_is_for_one_owner_and_one_path(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    other = ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)
    upload_id, parts = begin(registry, who, run)
    for owner, path in ((other, "d/f"), (run, "d/g"), (run, "f")):
        with pytest.raises(UploadNotFoundError):
            uploads.complete_upload(registry, who, owner, path, upload_id, parts, LIMIT)
        with pytest.raises(UploadNotFoundError):
            uploads.abort_upload(registry, who, owner, path, upload_id)

    complete(registry, who, run, upload_id, parts)

    assert read(registry, who, run) == DATA


@pytest.mark.parametrize("upload_id", ["", "x", "0" * 64, "../" + "0" * 61, "0" * 63 + "\n", "A" * 64, "é" * 64])
def test_an_upload_that_never_began_is_told(
    registry: Registry, who: Principal, run: ArtifactOwner, upload_id: str
) -> None:
    with pytest.raises(UploadNotFoundError):
        uploads.open_part(registry, who, upload_id, 1, LIMIT)
    with pytest.raises(UploadNotFoundError):
        complete(registry, who, run, upload_id, [NamedPart(1, None)])


@pytest.mark.parametrize("number", [-1, 0, 10_001])
def test_parts_are_numbered_from_one(registry: Registry, who: Principal, run: ArtifactOwner, number: int) -> None:
    upload_id = uploads.create_upload(registry, who, run, "d/f")
    with pytest.raises(InvalidFieldError):
        uploads.open_part(registry, who, upload_id, number, LIMIT)


def test_an_upload_begins_only_where_its_file_could_be_written(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    for path in ("", "../x", "a\0"):
        with pytest.raises(InvalidPathError):
            uploads.create_upload(registry, who, owner, path)
    with pytest.raises((RunNotFoundError, LoggedModelNotFoundError)):
        uploads.create_upload(registry, who, owner, "f", experiment_id=1)
    if owner.kind == "run":
        runs.delete_run(registry, who, owner.id)
    else:
        logged_models.delete_logged_model(registry, who, owner.id)
    with pytest.raises((RunDeletedError, LoggedModelNotFoundError)):
        uploads.create_upload(registry, who, owner, "f")


def test_an_owner_deleted_before_the_end_does_not_get_the_file(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    upload_id, parts = begin(registry, who, run)
    runs.delete_run(registry, who, run.id)
    with pytest.raises(RunDeletedError):
        complete(registry, who, run, upload_id, parts)
    assert artifacts.list_artifacts(registry, who, run) == []
    assert list(registry.blobs.list_blobs()) == []


def test_a_path_that_became_a_folder_refuses_the_file_and_the_parts_stay(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    upload_id, parts = begin(registry, who, run)
    artifacts.put_artifact(registry, who, run, "d/f/x", b"x")
    with pytest.raises(InvalidPathError):
        complete(registry, who, run, upload_id, parts)

    artifacts.delete_artifacts(registry, who, run, "d/f")
    complete(registry, who, run, upload_id, parts)

    assert read(registry, who, run) == DATA


def test_an_upload_may_not_grow_beyond_its_limit(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    upload_id = uploads.create_upload(registry, who, run, "d/f")
    one = put(registry, who, upload_id, 1, b"12345", limit=8)
    with uploads.open_part(registry, who, upload_id, 2, 8) as part:
        assert part.left_bytes == 3
    with uploads.open_part(registry, who, upload_id, 1, 8) as part:  # in the place of the first
        assert part.left_bytes == 8
    with pytest.raises(LimitExceededError):
        uploads.open_part(registry, who, upload_id, 2, 5)
    with pytest.raises(LimitExceededError):
        uploads.complete_upload(registry, who, run, "d/f", upload_id, [one], 4)


def test_an_aborted_upload_leaves_nothing(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    upload_id, parts = begin(registry, who, run)
    late = uploads.open_part(registry, who, upload_id, 4, LIMIT)
    late.write(b"late")

    uploads.abort_upload(registry, who, run, "d/f", upload_id)
    uploads.abort_upload(registry, who, run, "d/f", upload_id)

    with pytest.raises(UploadNotFoundError):
        late.commit()
    with pytest.raises(UploadNotFoundError):
        complete(registry, who, run, upload_id, parts)
    assert registry.blobs.sweep_staging(-1) == 0
    assert artifacts.list_artifacts(registry, who, run) == []


def test_a_part_that_is_lost_or_damaged_does_not_become_part_of_a_file(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    if not isinstance(registry.blobs, LocalBlobStore):
        pytest.skip("the files of a local store are reached behind its back")
    upload_id, parts = begin(registry, who, run)
    file = registry.blobs.root / "staging" / list_staging(registry)[0]
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DigestMismatchError):
        complete(registry, who, run, upload_id, parts)
    file.unlink()
    with pytest.raises(UploadNotFoundError):
        complete(registry, who, run, upload_id, parts)
    assert list(registry.blobs.list_blobs()) == []

    file.write_bytes(data)
    complete(registry, who, run, upload_id, parts)

    assert read(registry, who, run) == DATA


def test_stale_uploads_are_dropped_and_young_ones_left(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    old, parts = begin(registry, who, run)
    done, _ = begin(registry, who, run)
    complete(registry, who, run, done, parts)
    begun_at = registry.clock()
    young, parts = begin(registry, who, run)

    assert uploads.drop_stale_uploads(registry, who, begun_at) == 2
    assert uploads.drop_stale_uploads(registry, who, begun_at) == 0

    for upload_id in (old, done):
        with pytest.raises(UploadNotFoundError):
            complete(registry, who, run, upload_id, parts)
    complete(registry, who, run, young, parts)
    assert read(registry, who, run) == DATA


def test_what_a_part_costs_does_not_grow_with_their_number(
    registry: Registry, who: Principal, run: ArtifactOwner, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    upload_id = uploads.create_upload(registry, who, run, "d/f")
    counts, parts = [], []
    for number in range(1, 12):
        with statements() as sent:
            parts.append(put(registry, who, upload_id, number, str(number).encode()))
        counts.append(len(sent))
    assert set(counts) == {counts[0]}
    with statements() as sent:
        complete(registry, who, run, upload_id, parts)
    assert len(sent) <= 16


def test_the_id_of_another_kind_of_upload_takes_no_parts(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    session = sessions.begin_session(registry, who, parse_repository(run.repository))
    direct = "d" * 64
    with registry.track() as tx:
        rows.create_direct(tx, direct, run.repository, digest_of(DATA), len(DATA))

    for upload_id in (session, direct):
        with pytest.raises(UploadNotFoundError):
            put(registry, who, upload_id, 1, DATA)
        with pytest.raises(UploadNotFoundError):
            complete(registry, who, run, upload_id, [])


def test_who_asks_to_complete_while_another_does_waits_for_that_one(
    registry: Registry, who: Principal, run: ArtifactOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id, parts = begin(registry, who, run)
    joined, go = [], threading.Event()
    open_writer = registry.blobs.open_writer

    def slow_writer(size_bytes: int | None = None) -> object:
        joined.append(1)
        go.wait(10)
        return open_writer(size_bytes)

    monkeypatch.setattr(registry.blobs, "open_writer", slow_writer)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(complete, registry, who, run, upload_id, parts) for _ in range(3)]
        go.set()
        for one in asked:
            one.result()

    assert joined == [1]
    assert read(registry, who, run) == DATA
