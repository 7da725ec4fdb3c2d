from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.errors import (
    ArtifactNotFoundError,
    BlobMissingError,
    InvalidDigestError,
    InvalidError,
    InvalidFieldError,
    InvalidPathError,
    LimitExceededError,
    LoggedModelNotFoundError,
    RunDeletedError,
    RunNotFoundError,
)
from touchmark.domain.tracking import ArtifactEntry, ArtifactOwner
from touchmark.domain.versions import VersionFile
from touchmark.registry import Registry
from touchmark.services import artifacts, logged_models, runs
from touchmark.storage import artifacts as rows
from touchmark.storage import blobs

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
        with pytest.raises(BlobMissingError) as caught:
            artifacts.set_artifacts(registry, who, run, {"a": mine, "z": digest, "b": digest})
        assert caught.value.fields == {"digest": digest, "path": "z"}
    assert paths(registry, who, run) == []


def test_any_number_of_files_takes_four_statements(
    registry: Registry, who: Principal, run: ArtifactOwner, statements: Statements
) -> None:
    digests = upload(registry, run, *(str(n).encode() for n in range(50)))
    counts = []
    for size in (1, 2_000):
        with statements() as sent:
            artifacts.set_artifacts(
                registry, who, run, {f"{size}/d{n % 40}/f{n}": digests[n % 50] for n in range(size)}
            )
        counts.append(len(sent))
    assert counts == [4, 4]
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
