"""Waiting versions, on both databases: who fetches one, how far it is, how the wait ends."""

from __future__ import annotations

import pytest

from touchmark.domain.access import SYSTEM, Principal
from touchmark.domain.addresses import ImportRules, parse_import_prefix
from touchmark.domain.errors import InvalidSourceError
from touchmark.domain.versions import ImportProgress, ModelVersion, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services import sealing, versions
from touchmark.services.registration import register_version

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
