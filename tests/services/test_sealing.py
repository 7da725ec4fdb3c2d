"""Waiting versions, on both databases: who fetches one, how far it is, how the wait ends."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from touchmark.domain.access import SYSTEM, Principal
from touchmark.domain.addresses import ImportRules, parse_import_prefix
from touchmark.domain.errors import (
    BlobMissingError,
    InvalidSourceError,
    VersionNotReadyError,
    VersionUnsealedError,
)
from touchmark.domain.versions import ImportProgress, ModelVersion, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services import aliases, sealing, versions
from touchmark.services.registration import register_version
from touchmark.storage import schema

RULES = ImportRules((parse_import_prefix("s3://models/a"),))
HALF = ImportProgress(done_bytes=3, total_bytes=10, done_files=1, total_files=2)


@pytest.fixture
def waiting(registry: Registry, who: Principal) -> ModelVersion:
    return register_version(registry, who, "risk", "s3://models/a/net", imports=RULES, tags={"a": "b"})


def store(registry: Registry, path: str, data: bytes) -> VersionFile:
    blob = registry.blobs.put(data)
    return VersionFile(path, blob.size_bytes, blob.digest)


def test_an_address_on_the_list_waits_and_others_are_unsealed_or_refused(registry: Registry, who: Principal) -> None:
    listed = register_version(registry, who, "risk", "s3://models/a/net", imports=RULES)
    other = register_version(registry, who, "risk", "s3://models/b", imports=RULES)

    assert (listed.state, listed.status_message) == (VersionState.PENDING, "Its files are being imported.")
    assert (other.state, other.sealed) == (VersionState.READY, False)
    assert "on no list" in str(other.status_message)
    for rules in (ImportRules(), ImportRules(RULES.prefixes, allow_unsealed=False)):
        with pytest.raises(InvalidSourceError, match="import_from"):
            register_version(registry, who, "risk", "s3://models/b", imports=rules)


def test_one_holder_has_a_version_until_its_lease_ends_or_is_given_back(
    registry: Registry, waiting: ModelVersion
) -> None:
    claimed = sealing.claim_pending(registry, SYSTEM, "one")

    assert claimed is not None
    assert claimed.version_id == waiting.version_id
    assert sealing.claim_pending(registry, SYSTEM, "two") is None
    assert not sealing.note_progress(registry, SYSTEM, waiting.version_id, "two", HALF)
    assert sealing.note_progress(registry, SYSTEM, waiting.version_id, "one", HALF)
    sealing.release(registry, SYSTEM, waiting.version_id, "two")
    assert sealing.claim_pending(registry, SYSTEM, "two") is None
    sealing.release(registry, SYSTEM, waiting.version_id, "one")
    assert sealing.claim_pending(registry, SYSTEM, "two") is not None


def test_progress_is_told_while_a_version_waits_and_files_that_came_are_known(
    registry: Registry, who: Principal, waiting: ModelVersion
) -> None:
    files = [(store(registry, "a.bin", b"one"), '"etag"'), (store(registry, "b.bin", b"two"), None)]

    assert versions.get_version(registry, who, "risk", 1).importing is None
    sealing.note_progress(registry, SYSTEM, waiting.version_id, "one", HALF, files[:1])
    sealing.note_progress(registry, SYSTEM, waiting.version_id, "one", HALF, files)

    assert versions.get_version(registry, who, "risk", 1).importing == HALF
    assert sealing.list_fetched(registry, SYSTEM, waiting.version_id) == {
        file.path: (file, mark) for file, mark in files
    }


def test_a_sealed_version_forgets_how_it_came(registry: Registry, who: Principal, waiting: ModelVersion) -> None:
    file = store(registry, "a.bin", b"one")
    sealing.note_progress(registry, SYSTEM, waiting.version_id, "one", HALF, [(file, None)])

    sealed = sealing.seal_version(
        registry, SYSTEM, waiting.version_id, [file], run=None, logged_model=None, experiment=None,
        imported={"from": "s3://models/a", "revision": "r"},
    )  # fmt: skip

    assert (sealed.sealed, sealed.file_count, sealed.tags) == (True, 1, {"a": "b"})
    assert sealed.origin["imported"] == {"from": "s3://models/a", "revision": "r"}
    assert sealing.list_fetched(registry, SYSTEM, waiting.version_id) == {}
    assert versions.get_version(registry, who, "risk", 1).importing is None


@pytest.mark.parametrize(("listed", "refuses", "state"), [
    (False, False, VersionState.READY), (False, True, VersionState.FAILED),
    (True, False, VersionState.FAILED), (True, True, VersionState.FAILED),
])  # fmt: skip
def test_a_version_of_which_something_was_readable_fails(
    registry: Registry, waiting: ModelVersion, *, listed: bool, refuses: bool, state: VersionState
) -> None:
    if listed:
        sealing.note_progress(registry, SYSTEM, waiting.version_id, "one", HALF)

    ended = sealing.give_up(registry, SYSTEM, waiting.version_id, "because", failed=refuses)

    assert (ended.state, ended.sealed, ended.status_message) == (state, False, "because")
    assert sealing.claim_pending(registry, SYSTEM, "one") is None


def test_no_alias_points_at_a_version_that_waits_or_failed(
    registry: Registry, who: Principal, waiting: ModelVersion
) -> None:
    with pytest.raises(VersionNotReadyError):
        aliases.set_alias(registry, who, "risk", "champion", 1)
    sealing.give_up(registry, SYSTEM, waiting.version_id, "because", failed=True)
    with pytest.raises(VersionNotReadyError):
        aliases.set_alias(registry, who, "risk", "champion", 1)

    assert aliases.list_aliases(registry, who, "risk") == []


def test_a_version_is_sealed_once_and_never_when_it_is_deleted(
    registry: Registry, who: Principal, waiting: ModelVersion
) -> None:
    other = register_version(registry, who, "risk", "s3://models/a/other", imports=RULES)
    versions.delete_version(registry, who, "risk", other.version)
    first, second = store(registry, "a.bin", b"one"), store(registry, "a.bin", b"two")

    sealed = seal(registry, waiting, first)

    assert sealed.sealed
    assert seal(registry, waiting, second).digest == sealed.digest
    assert versions.list_files(registry, who, "risk", 1).files == (first,)
    assert not seal(registry, other, first).sealed


def test_an_unsealed_version_never_looks_sealed(registry: Registry, who: Principal) -> None:
    made = register_version(registry, who, "risk", "s3://models/b", imports=RULES)

    assert (made.sealed, made.digest, made.content_digest, made.size_bytes) == (False, None, None, None)
    assert versions.resolve(registry, who, "models:/risk/1").digest is None
    with pytest.raises(VersionUnsealedError):
        versions.list_files(registry, who, "risk", 1)
    with pytest.raises(VersionUnsealedError):
        register_version(registry, who, "copied", "models:/risk/1")


def test_a_version_is_not_sealed_with_files_whose_bytes_are_not_stored(
    registry: Registry, who: Principal, waiting: ModelVersion
) -> None:
    file = store(registry, "a.bin", b"one")
    seal(registry, waiting, file)
    other = register_version(registry, who, "risk", "s3://models/a/other", imports=RULES)
    with registry.track() as tx:
        tx.run(update(schema.blobs).where(schema.blobs.c.digest == file.digest).values(state="purged"))

    for attempt in (
        lambda: seal(registry, other, store(registry, "renamed.bin", b"one")),
        lambda: register_version(registry, who, "copied", "models:/risk/1"),
    ):
        with pytest.raises(BlobMissingError):
            attempt()

    assert versions.get_version(registry, who, "risk", 2).state is VersionState.PENDING


def seal(registry: Registry, version: ModelVersion, file: VersionFile) -> ModelVersion:
    return sealing.seal_version(
        registry, SYSTEM, version.version_id, [file], run=None, logged_model=None, experiment=None, imported={}
    )
