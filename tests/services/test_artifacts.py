from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from sqlalchemy import select, update

from touchmark.domain.access import Principal
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.errors import (
    ArtifactNotFoundError,
    BlobNotFoundError,
    InvalidDigestError,
    InvalidError,
    InvalidFieldError,
    InvalidPathError,
    LimitExceededError,
    LoggedModelNotFoundError,
    ManifestNotFoundError,
    RunDeletedError,
    RunNotFoundError,
    VersionNotFoundError,
    VersionPurgedError,
    VersionUnsealedError,
)
from touchmark.domain.tracking import ArtifactEntry, ArtifactOwner
from touchmark.domain.versions import VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services import artifacts, logged_models, models, registration, runs, versions
from touchmark.storage import artifacts as rows
from touchmark.storage import blobs, schema

Statements = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture(params=["run", "logged_model"])
def owner(request: pytest.FixtureRequest, registry: Registry, who: Principal) -> ArtifactOwner:
    if request.param == "run":
        return ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)
    return ArtifactOwner("logged_model", logged_models.create_logged_model(registry, who, "m").model_id)


@pytest.fixture
def run(registry: Registry, who: Principal) -> ArtifactOwner:
    return ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)


def upload(registry: Registry, owner: ArtifactOwner, *contents: bytes) -> list[Digest]:
    """Store bytes through an owner's repository and return their digests."""
    stored = [registry.blobs.put(content) for content in contents]
    with registry.track() as tx:
        for blob in stored:
            blobs.record_blob(tx, owner.repository, blob.digest, blob.size_bytes)
    return [blob.digest for blob in stored]


def paths(registry: Registry, who: Principal, owner: ArtifactOwner, prefix: str | None = None) -> list[str]:
    return [file.path for file in artifacts.list_artifact_files(registry, who, owner, prefix)]


def test_files_are_listed_by_folder_and_flat(registry: Registry, who: Principal, owner: ArtifactOwner) -> None:
    one, two = upload(registry, owner, b"1", b"22")
    made = artifacts.set_artifacts(registry, who, owner, {"model/weights": one, "model/code/a.py": two, "log.txt": one})
    flat = artifacts.list_artifact_files(registry, who, owner)
    assert flat == made
    assert [(file.path, file.size_bytes, file.digest) for file in flat] == [
        ("log.txt", 1, one),
        ("model/code/a.py", 2, two),
        ("model/weights", 1, one),
    ]
    assert artifacts.list_artifacts(registry, who, owner) == [
        ArtifactEntry("log.txt", is_dir=False, size_bytes=1, digest=one),
        ArtifactEntry("model", is_dir=True, size_bytes=3, digest=None),
    ]
    assert artifacts.list_artifacts(registry, who, owner, "model") == [
        ArtifactEntry("model/code", is_dir=True, size_bytes=2, digest=None),
        ArtifactEntry("model/weights", is_dir=False, size_bytes=1, digest=one),
    ]
    assert artifacts.list_artifacts(registry, who, owner, "log.txt") == []
    assert artifacts.list_artifacts(registry, who, owner, "nothing") == []
    assert paths(registry, who, owner, "model") == ["model/code/a.py", "model/weights"]
    assert paths(registry, who, owner, "log.txt") == ["log.txt"]
    assert artifacts.get_artifact(registry, who, owner, "model/weights").digest == one


def test_a_path_written_again_points_at_the_new_bytes(registry: Registry, who: Principal, owner: ArtifactOwner) -> None:
    one, two = upload(registry, owner, b"1", b"22")
    first = artifacts.set_artifacts(registry, who, owner, {"a": one})[0]
    artifacts.set_artifacts(registry, who, owner, {"a": two})
    found = artifacts.get_artifact(registry, who, owner, "a")
    assert (found.digest, found.size_bytes) == (two, 2)
    assert found.updated_at > first.updated_at
    assert paths(registry, who, owner) == ["a"]


def test_to_know_a_digest_is_not_to_have_its_bytes(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    other = ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)
    mine, theirs = *upload(registry, run, b"mine"), *upload(registry, other, b"theirs")
    never = digest_of(b"never uploaded")
    for digest in (theirs, never):
        with pytest.raises(BlobNotFoundError) as caught:
            artifacts.set_artifacts(registry, who, run, {"a": mine, "z": digest, "b": digest})
        assert caught.value.fields == {"digest": digest}
        assert "'z'" in caught.value.message
    assert paths(registry, who, run) == []


def test_any_number_of_files_takes_a_constant_number_of_statements(
    registry: Registry, who: Principal, run: ArtifactOwner, statements: Statements
) -> None:
    digests = upload(registry, run, *(str(n).encode() for n in range(50)))
    counts = []
    for size in (1, 100, 2_000):
        with statements() as sent:
            artifacts.set_artifacts(
                registry, who, run, {f"{size}/d{n % 40}/f{n}": digests[n % 50] for n in range(size)}
            )
        counts.append(len(sent))
    assert counts == [4, 11, 11]  # many in one folder are described at once, as somebody will register them
    with statements() as sent, registry.read() as tx:
        assert len(rows.list_files(tx, run, "2000")) == 2_000
    assert len(sent) == 1
    with pytest.raises(LimitExceededError):
        artifacts.set_artifacts(registry, who, run, {f"f{n}": digests[0] for n in range(10_001)})
    with pytest.raises(LimitExceededError):
        artifacts.set_artifacts(registry, who, run, {f"{n}/" + "d/" * 400 + "f": digests[0] for n in range(100)})


def test_ten_thousand_files_in_folders_of_their_own_fit(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    (digest,) = upload(registry, run, b"x")
    files = {f"{n}/f": digest for n in range(10_000)}
    assert len(artifacts.set_artifacts(registry, who, run, files)) == 10_000
    with pytest.raises(InvalidPathError):
        artifacts.set_artifacts(registry, who, run, {f"{n}/f": digest for n in range(9_999)} | {"9999": digest})


def test_a_path_is_a_file_or_a_folder_and_never_both(registry: Registry, who: Principal, owner: ArtifactOwner) -> None:
    (digest,) = upload(registry, owner, b"x")
    artifacts.set_artifacts(registry, who, owner, {"a/b/c": digest, "f": digest, "a/b-c": digest})
    for files, path in (
        ({"a": digest}, "a"),
        ({"a/b": digest}, "a/b"),
        ({"f/g": digest}, "f/g"),
        ({"f/g/h": digest}, "f/g/h"),
        ({"a/b/c/d": digest}, "a/b/c/d"),
        ({"new": digest, "new/x": digest}, "new/x"),
        ({"ok": digest, "n/a/b": digest, "n": digest}, "n/a/b"),
    ):
        with pytest.raises(InvalidPathError) as caught:
            artifacts.set_artifacts(registry, who, owner, files)
        assert caught.value.fields["path"] == path
    assert paths(registry, who, owner) == ["a/b-c", "a/b/c", "f"]
    artifacts.set_artifacts(
        registry, who, owner, {"a/b/c": digest, "f.x": digest, "f0": digest, "a0/b": digest, "F": digest}
    )


def test_of_two_writers_one_gets_the_file_and_the_other_no_folder(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    (digest,) = upload(registry, run, b"x")

    def write(path: str) -> bool:
        try:
            artifacts.set_artifacts(registry, who, run, {path: digest})
        except InvalidPathError:
            return False
        return True

    for n in range(5):
        with ThreadPoolExecutor(2) as pool:
            assert sum(pool.map(write, (f"p{n}", f"p{n}/below"))) == 1


def test_bad_paths_and_digests_are_refused_and_nothing_is_written(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    (digest,) = upload(registry, run, b"x")
    wrong: tuple[Any, ...] = (
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/..",
        "a\\b",
        "a\0",
        "\ud800",
        "c:/x",
        "a\u202eb",
        "e\u0301",
        "x" * 300,
        None,
        3,
    )
    for path in wrong:
        with pytest.raises(InvalidPathError):
            artifacts.set_artifacts(registry, who, run, {"good": digest, path: digest})
        with pytest.raises(InvalidPathError):
            artifacts.get_artifact(registry, who, run, path)
        with pytest.raises(InvalidPathError):
            artifacts.delete_artifacts(registry, who, run, path)
        if path:
            with pytest.raises(InvalidPathError):
                artifacts.list_artifacts(registry, who, run, path)
    digests: tuple[Any, ...] = (digest.upper(), digest[7:], "md5:0", "", None, b"x")
    for bad in digests:
        with pytest.raises(InvalidDigestError):
            artifacts.set_artifacts(registry, who, run, {"good": digest, "a": bad})
    assert paths(registry, who, run) == []
    assert artifacts.set_artifacts(registry, who, run, {}) == []


def test_the_longest_path_fits(registry: Registry, who: Principal, owner: ArtifactOwner) -> None:
    (digest,) = upload(registry, owner, b"x")
    path = "/".join(["\U00010348" * 60] * 4 + ["x" * 60])
    assert 1000 < len(path.encode()) <= 1024
    artifacts.set_artifacts(registry, who, owner, {path: digest})
    assert artifacts.get_artifact(registry, who, owner, path).path == path


def test_an_owner_must_exist_and_not_be_deleted(registry: Registry, who: Principal, owner: ArtifactOwner) -> None:
    (digest,) = upload(registry, owner, b"x")
    artifacts.set_artifacts(registry, who, owner, {"a": digest})
    gone: type[Exception]
    if owner.kind == "run":
        runs.delete_run(registry, who, owner.id)
        gone, nobody = RunDeletedError, ArtifactOwner("run", "nobody")
    else:
        logged_models.delete_logged_model(registry, who, owner.id)
        gone, nobody = LoggedModelNotFoundError, ArtifactOwner("logged_model", "m-" + "0" * 32)
    with pytest.raises(gone):
        artifacts.set_artifacts(registry, who, owner, {"b": digest})
    with pytest.raises(gone):
        artifacts.delete_artifacts(registry, who, owner, "a")
    with registry.read() as tx, pytest.raises(gone):
        rows.check_owner(tx, owner)
    assert paths(registry, who, owner) == ["a"]
    with registry.read() as tx, pytest.raises((RunNotFoundError, LoggedModelNotFoundError)):
        rows.check_owner(tx, nobody)
    for call in (
        lambda: artifacts.set_artifacts(registry, who, nobody, {"b": digest}),
        lambda: artifacts.list_artifacts(registry, who, nobody),
        lambda: artifacts.list_artifact_files(registry, who, nobody, "a"),
        lambda: artifacts.get_artifact(registry, who, nobody, "a"),
        lambda: artifacts.delete_artifacts(registry, who, nobody, "a"),
    ):
        with pytest.raises((RunNotFoundError, LoggedModelNotFoundError)):
            call()
    for bad in (ArtifactOwner("model", "x"), ArtifactOwner("run", "../x"), ArtifactOwner("logged_model", "x")):
        with pytest.raises(InvalidFieldError):
            artifacts.list_artifacts(registry, who, bad)


def test_the_files_of_two_owners_are_apart(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    other = ArtifactOwner("run", runs.create_run(registry, who, 0).run_id)
    (digest,) = upload(registry, run, b"x")
    upload(registry, other, b"x")
    artifacts.set_artifacts(registry, who, run, {"a/b": digest})
    artifacts.set_artifacts(registry, who, other, {"a": digest})  # there it is a folder, here a file
    assert artifacts.delete_artifacts(registry, who, other, "a") == 1
    assert paths(registry, who, run) == ["a/b"]
    with pytest.raises(ArtifactNotFoundError):
        artifacts.get_artifact(registry, who, other, "a/b")


def test_a_file_or_a_folder_is_deleted_and_no_neighbour(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    (digest,) = upload(registry, owner, b"x")
    kept = ["a%b/x", "a-b", "a.b/x", "a0", "a_", "aa/x", "A/x", "b"]
    artifacts.set_artifacts(registry, who, owner, dict.fromkeys([*kept, "a/x", "a/y/z", "a/%"], digest))
    assert artifacts.delete_artifacts(registry, who, owner, "a") == 3
    assert paths(registry, who, owner) == sorted(kept)
    assert artifacts.delete_artifacts(registry, who, owner, "a_") == 1
    assert artifacts.delete_artifacts(registry, who, owner, "a%b/x") == 1
    for path in ("a", "%", "_", "a%", "a*"):
        with pytest.raises(ArtifactNotFoundError):
            artifacts.delete_artifacts(registry, who, owner, path)
        assert artifacts.delete_artifacts(registry, who, owner, path, missing_ok=True) == 0
    roots: tuple[Any, ...] = ("", "/", ".", None)
    for root in roots:
        with pytest.raises(InvalidError):
            artifacts.delete_artifacts(registry, who, owner, root)
    assert paths(registry, who, owner) == ["A/x", "a-b", "a.b/x", "a0", "aa/x", "b"]


def test_registration_reads_relative_paths_in_one_statement(
    registry: Registry, who: Principal, run: ArtifactOwner, statements: Statements
) -> None:
    one, two = upload(registry, run, b"1", b"22")
    artifacts.set_artifacts(registry, who, run, {"m/MLmodel": one, "m/data/w": two, "m_x/y": one, "top": two})
    with registry.read() as tx:
        for prefix, expected in (
            ("m", [VersionFile("MLmodel", 1, one), VersionFile("data/w", 2, two)]),
            ("m/data", [VersionFile("w", 2, two)]),
            ("m/data/w", [VersionFile("w", 2, two)]),
            ("top", [VersionFile("top", 2, two)]),
            ("m_", []),
            ("%", []),
            ("", [VersionFile("m/MLmodel", 1, one), VersionFile("m/data/w", 2, two), VersionFile("m_x/y", 1, one), VersionFile("top", 2, two)]),
        ):  # fmt: skip
            with statements() as sent:
                assert rows.list_files(tx, run, prefix) == expected
            assert len(sent) == 1


def test_listings_agree_with_a_plain_set_of_paths(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    (digest,) = upload(registry, run, b"x")
    rng = random.Random(11)
    names = ["a", "b", "a-", "a0", "a.b", "é", "z_", "A", "%x"]
    known: set[str] = set()
    for _ in range(60):
        path = "/".join(rng.choice(names) for _ in range(rng.randint(1, 4)))
        if rng.random() < 0.25:
            gone = {p for p in known if p == path or p.startswith(path + "/")}
            assert artifacts.delete_artifacts(registry, who, run, path, missing_ok=True) == len(gone)
            known -= gone
            continue
        folders = {p[:n] for p in known for n in range(len(p)) if p[n] == "/"}
        mine = {path[:n] for n in range(len(path)) if path[n] == "/"}
        if path in folders or mine & known:
            with pytest.raises(InvalidPathError):
                artifacts.set_artifacts(registry, who, run, {path: digest})
        else:
            artifacts.set_artifacts(registry, who, run, {path: digest})
            known.add(path)
    assert paths(registry, who, run) == sorted(known, key=str.encode)
    for folder in ["", *sorted({p.rpartition("/")[0] for p in known} - {""}), "nothing"]:
        below = [p[len(folder) + 1 if folder else 0 :] for p in known if not folder or p.startswith(folder + "/")]
        expected = {(rest.split("/")[0], "/" in rest) for rest in below}
        found = artifacts.list_artifacts(registry, who, run, folder or None)
        assert {(e.path.rpartition("/")[2], e.is_dir) for e in found} == expected
        assert len(found) == len(expected)


def test_a_deletion_of_the_run_leaves_its_blobs(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    (digest,) = upload(registry, run, b"x")
    artifacts.set_artifacts(registry, who, run, {"a": digest})
    artifacts.delete_artifacts(registry, who, run, "a")
    assert registry.blobs.read(digest) == b"x"


# ── bytes on their way in ────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_stored_and_listed_in_one_call_and_may_be_written_again(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    first = artifacts.put_artifact(registry, who, owner, "a/b", b"first", experiment_id=0)
    second = artifacts.put_artifact(registry, who, owner, "a/b", b"second!")

    assert (first.digest, first.size_bytes) == (digest_of(b"first"), 5)
    assert artifacts.list_artifact_files(registry, who, owner) == [second]
    assert b"".join(artifacts.open_artifact(registry, who, owner, "a/b", experiment_id=0).stream()) == b"second!"
    artifacts.set_artifacts(registry, who, owner, {"old": first.digest})  # the bytes are still the owner's


def test_an_upload_that_is_left_stores_nothing(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    with artifacts.open_artifact_upload(registry, who, run, "a") as upload:
        upload.write(b"x" * 100_000)

    assert paths(registry, who, run) == []
    assert list(registry.blobs.list_blobs()) == []


def test_nothing_is_opened_for_an_owner_that_is_not_there(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    nobody = ArtifactOwner(owner.kind, "nobody" if owner.kind == "run" else "m-" + "0" * 32)
    missing = (RunNotFoundError, LoggedModelNotFoundError)
    for wrong, experiment_id in ((nobody, None), (owner, 1)):
        with pytest.raises(missing):
            artifacts.open_artifact_upload(registry, who, wrong, "a", experiment_id=experiment_id)
        with pytest.raises(missing):
            artifacts.put_artifact(registry, who, wrong, "a", b"x", experiment_id=experiment_id)
        with pytest.raises(missing):
            artifacts.delete_artifacts(registry, who, wrong, "a", missing_ok=True, experiment_id=experiment_id)
    artifacts.put_artifact(registry, who, owner, "a", b"x")
    for read in (artifacts.list_artifacts, artifacts.open_artifact):
        with pytest.raises(missing):
            read(registry, who, owner, "a", experiment_id=1)
    assert [blob.digest for blob in registry.blobs.list_blobs()] == [digest_of(b"x")]


def test_an_owner_that_is_deleted_while_a_file_comes_does_not_get_it(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    with artifacts.open_artifact_upload(registry, who, run, "a") as upload:
        upload.write(b"x")
        runs.delete_run(registry, who, run.id)
        with pytest.raises(RunDeletedError):
            upload.commit()

    assert paths(registry, who, run) == []


def test_a_file_that_would_be_a_folder_is_refused_when_it_is_stored(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    artifacts.put_artifact(registry, who, owner, "a/b", b"x")
    for path in ("a", "a/b/c"):
        with pytest.raises(InvalidPathError):
            artifacts.put_artifact(registry, who, owner, path, b"y")
    with pytest.raises(InvalidPathError, match="folder"):
        artifacts.open_artifact(registry, who, owner, "a")
    with pytest.raises(ArtifactNotFoundError):
        artifacts.open_artifact(registry, who, owner, "a/c")
    assert paths(registry, who, owner) == ["a/b"]


def test_a_finished_run_and_a_ready_model_still_take_files_and_the_version_does_not_change(
    registry: Registry, who: Principal, owner: ArtifactOwner
) -> None:
    artifacts.put_artifact(registry, who, owner, "m/w", b"sealed")
    if owner.kind == "run":
        runs.update_run(registry, who, owner.id, status="FINISHED")
        source = f"runs:/{owner.id}/m"
    else:
        logged_models.finish_logged_model(registry, who, owner.id)
        source = f"models:/{owner.id}"
    version = registration.register_version(registry, who, "net", source)

    artifacts.put_artifact(registry, who, owner, "m/w", b"changed")
    artifacts.delete_artifacts(registry, who, owner, "m/w")
    artifacts.put_artifact(registry, who, owner, "m/new", b"more")

    path = "w" if owner.kind == "run" else "m/w"
    assert version.digest is not None
    found = artifacts.get_sealed_file(registry, who, version.digest, path)
    assert b"".join(found.stream()) == b"sealed"


# ── sealed versions, by digest ───────────────────────────────────────────────────────────────────────────────────


def seal(registry: Registry, who: Principal, owner: ArtifactOwner, name: str = "net", **files: bytes) -> Digest:
    for path, data in files.items():
        artifacts.put_artifact(registry, who, owner, f"m/{path.replace('__', '/')}", data)
    version = registration.register_version(registry, who, name, f"runs:/{owner.id}/m")
    assert version.digest is not None
    return version.digest


def test_sealed_files_are_listed_and_read_by_digest(registry: Registry, who: Principal, run: ArtifactOwner) -> None:
    digest = seal(registry, who, run, top=b"1", data__a=b"22", data__deep__b=b"333", data_x=b"4")

    assert [(e.path, e.is_dir, e.size_bytes) for e in artifacts.list_sealed_files(registry, who, digest)] == [
        ("data", True, 5),
        ("data_x", False, 1),
        ("top", False, 1),
    ]
    assert [e.path for e in artifacts.list_sealed_files(registry, who, digest, "data")] == ["data/a", "data/deep"]
    assert artifacts.list_sealed_files(registry, who, digest, "top") == []
    assert artifacts.list_sealed_files(registry, who, digest, "nothing") == []
    assert b"".join(artifacts.get_sealed_file(registry, who, digest, "data/deep/b").stream()) == b"333"
    assert b"".join(artifacts.get_version_file(registry, who, "net", 1, "data/a").stream()) == b"22"
    with pytest.raises(ArtifactNotFoundError):
        artifacts.get_sealed_file(registry, who, digest, "data/c")
    for read in (
        lambda: artifacts.get_sealed_file(registry, who, digest, "data"),
        lambda: artifacts.get_sealed_file(registry, who, digest, "../x"),
        lambda: artifacts.list_sealed_files(registry, who, digest, "../x"),
        lambda: artifacts.get_version_file(registry, who, "net", 1, "data/deep"),
    ):
        with pytest.raises(InvalidPathError):
            read()


def test_only_what_a_version_was_sealed_with_can_be_read_by_digest(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    model = logged_models.create_logged_model(registry, who, "m")
    artifacts.put_artifact(registry, who, ArtifactOwner("logged_model", model.model_id), "w", b"never registered")
    logged_models.finish_logged_model(registry, who, model.model_id)  # its manifest is recorded, for nobody to read yet
    with registry.read() as tx:
        prepared = tx.scalar(select(schema.manifests.c.digest))
    for digest in (prepared, digest_of(b"no manifest"), digest_of(b"never registered")):
        with pytest.raises(ManifestNotFoundError):
            artifacts.list_sealed_files(registry, who, digest)
        with pytest.raises(ManifestNotFoundError):
            artifacts.get_sealed_file(registry, who, digest, "w")

    sealed = registration.register_version(registry, who, "net", f"models:/{model.model_id}").digest

    assert sealed == prepared
    assert [e.path for e in artifacts.list_sealed_files(registry, who, prepared)] == ["w"]


def test_a_deleted_version_is_still_read_by_its_digest_and_not_by_its_number(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    digest = seal(registry, who, run, w=b"x")
    versions.delete_version(registry, who, "net", 1)
    runs.delete_run(registry, who, run.id)

    assert b"".join(artifacts.get_sealed_file(registry, who, digest, "w").stream()) == b"x"
    with pytest.raises(VersionNotFoundError):
        artifacts.get_version_file(registry, who, "net", 1, "w")


def test_purged_bytes_are_said_to_be_purged_unless_another_version_has_them(
    registry: Registry, who: Principal, run: ArtifactOwner
) -> None:
    digest = seal(registry, who, run, w=b"x")
    seal(registry, who, run, "copy", w=b"x")

    def purge(number: int) -> None:  # nothing purges yet
        with registry.track() as tx:
            tx.run(
                update(schema.versions).where(schema.versions.c.version_id == number).values(state=VersionState.PURGED)
            )

    with registry.read() as tx:
        first, second = sorted(tx.connection.execute(select(schema.versions.c.version_id)).scalars())
    purge(first)
    assert [e.path for e in artifacts.list_sealed_files(registry, who, digest)] == ["w"]
    purge(second)
    with pytest.raises(VersionPurgedError):
        artifacts.list_sealed_files(registry, who, digest)
    with pytest.raises(VersionPurgedError):
        artifacts.get_sealed_file(registry, who, digest, "w")
    with pytest.raises(VersionPurgedError):
        artifacts.get_version_file(registry, who, "net", 1, "w")


def test_an_unsealed_version_has_no_file_to_send(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "net")
    registration.register_address(registry, who, "net", "s3://far/away", reference=None, reason="It is far away.")

    with pytest.raises(VersionUnsealedError, match="far away"):
        artifacts.get_version_file(registry, who, "net", 1, "w")
