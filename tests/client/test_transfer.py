"""Bytes that move: checked on this side, whole or not there, and never outside the folder they were asked for in."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import touchmark
from tests.client.peer import Peer, Reply, Request, build_manifest, digest_of, serve_version, to_problem
from touchmark import errors
from touchmark.client._transfer import Transfer
from touchmark.client._transport import Transport
from touchmark.client._uploads import list_local_files, upload_files

FILES = {"MLmodel": b"flavors: {}\n", "data/weights.bin": bytes(range(256)) * 20_000, "data/empty": b""}
REFERENCE = "models:/churn/1"


BOOKS = {".touchmark-pull/version", ".touchmark-pull/lock"}
"""What says that a pull is not finished; it holds no byte of the version."""


def list_tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but those, parts of files too."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {path: place.read_bytes() for path, place in found.items() if path not in BOOKS}


def pull(peer: Peer, target: Path, reference: str = REFERENCE, **options: Any) -> Path:
    """Pull from a peer."""
    with touchmark.connect(peer.url) as registry:
        return registry.pull(reference, target, **options)


# ── down ──


def test_a_version_is_written_as_it_was_sealed(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)

    assert pull(peer, tmp_path / "a" / "b") == tmp_path / "a" / "b"

    assert list_tree(tmp_path / "a" / "b") == FILES


def test_a_second_pull_fetches_nothing_that_is_there_and_right(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    pull(peer, tmp_path)
    (tmp_path / "data/weights.bin").write_bytes(bytes(len(FILES["data/weights.bin"])))  # same size, other bytes
    (tmp_path / "mine.txt").write_text("not of this version")
    peer.requests.clear()

    pull(peer, tmp_path, force=True)

    assert list_tree(tmp_path) == {**FILES, "mine.txt": b"not of this version"}
    blobs = [request.path for request in peer.requests if "/blobs/" in request.path]
    assert blobs == [f"/v2/m/7/blobs/{digest_of(FILES['data/weights.bin'])}"]


def test_wrong_bytes_are_refused_and_nothing_of_them_is_left(peer: Peer, tmp_path: Path) -> None:
    right = FILES["data/weights.bin"]
    for wrong in (right[:-1] + b"x", right + b"more", b"", right[:-1]):
        peer.answer = serve_version(FILES, blobs={digest_of(right): wrong})

        with pytest.raises(errors.DigestMismatchError) as caught:
            pull(peer, tmp_path)

        assert caught.value.fields["path"] == "data/weights.bin"
        assert caught.value.fields["expected"] == digest_of(right)
        assert list_tree(tmp_path).keys() <= {"MLmodel", "data/empty"}


def test_a_wrong_file_that_was_there_stays_until_the_right_one_is_whole(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(b"old")
    peer.answer = serve_version(FILES, blobs={digest_of(FILES["MLmodel"]): b"flavors: EVIL\n"})

    with pytest.raises(errors.DigestMismatchError):
        pull(peer, tmp_path, force=True)

    assert (tmp_path / "MLmodel").read_bytes() == b"old"
    assert not [data for data in list_tree(tmp_path).values() if b"EVIL" in data]


def test_a_size_that_is_not_that_of_the_bytes_is_refused(peer: Peer, tmp_path: Path) -> None:
    manifest = build_manifest({"w": (b"1234567890", 11)})
    peer.answer = serve_version({"w": b"1234567890"}, manifest=manifest)

    with pytest.raises(errors.InvalidManifestError, match="11 bytes, and it has 10"):
        pull(peer, tmp_path)

    assert list_tree(tmp_path) == {}


def test_a_download_that_breaks_off_begins_again(peer: Peer, tmp_path: Path) -> None:
    version, cuts = serve_version(FILES), [3_000_000, 0, -1]

    def answer(request: Request) -> Reply:
        reply = version(request)
        return Reply(reply.status, reply.body, cut=cuts.pop(0)) if len(reply.body) > 1_000_000 and cuts else reply

    peer.answer = answer

    pull(peer, tmp_path)

    assert list_tree(tmp_path) == FILES
    assert cuts == []


def test_a_download_that_always_breaks_off_names_no_file_and_says_so(peer: Peer, tmp_path: Path) -> None:
    version = serve_version(FILES)
    peer.answer = lambda request: (
        Reply(body=reply.body, cut=1000) if len((reply := version(request)).body) > 1_000_000 else reply
    )

    with pytest.raises(errors.ServerUnreachableError, match="bytes before its end"):
        pull(peer, tmp_path)

    part = f".touchmark-pull/{digest_of(FILES['data/weights.bin'])[7:]}"
    assert list_tree(tmp_path) == {
        "MLmodel": FILES["MLmodel"], "data/empty": b"", part: FILES["data/weights.bin"][:1000]
    }  # fmt: skip


def test_a_busy_server_is_asked_again_for_a_blob(peer: Peer, tmp_path: Path) -> None:
    version, busy = serve_version(FILES), [to_problem(503, "busy", "Busy."), Reply(502), Reply(429)]
    peer.answer = lambda request: busy.pop() if "/blobs/" in request.path and busy else version(request)

    pull(peer, tmp_path)

    assert list_tree(tmp_path) == FILES
    assert busy == []


@pytest.mark.parametrize(
    "path",
    [
        "../escaped", "a/../../escaped", "/etc/escaped", "C:\\escaped", "a\\..\\escaped", "", "a//b", ".", "a/./b",
        "a\x00b", "\u202etxt.exe", "a/ ", 7, None,
    ],
)  # fmt: skip
def test_a_hostile_path_is_refused_before_anything_is_written(peer: Peer, tmp_path: Path, path: Any) -> None:
    target = tmp_path / "deep" / "target"
    layer = {"annotations": {"org.cncf.model.filepath": path}, "digest": digest_of(b"evil"), "size": 4}
    good = {"annotations": {"org.cncf.model.filepath": "good"}, "digest": digest_of(b"evil"), "size": 4}
    manifest = json.dumps({"schemaVersion": 2, "layers": [good, layer]}).encode()
    peer.answer = serve_version({"good": b"evil"}, manifest=manifest)

    with pytest.raises((errors.InvalidPathError, errors.InvalidManifestError)):
        pull(peer, target)

    assert list_tree(tmp_path) == {}


@pytest.mark.parametrize("paths", [("w", "W"), ("w", "w"), ("w", "w/x")])
def test_two_paths_that_could_be_one_file_are_refused(peer: Peer, tmp_path: Path, paths: tuple[str, str]) -> None:
    layers = [
        {"annotations": {"org.cncf.model.filepath": path}, "digest": digest_of(b"1234"), "size": 4} for path in paths
    ]
    manifest = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
    peer.answer = serve_version({"w": b"1234"}, manifest=manifest)

    with pytest.raises(errors.InvalidPathError):
        pull(peer, tmp_path)

    assert list_tree(tmp_path) == {}


def test_a_link_in_the_target_is_not_followed(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "data").symlink_to(tmp_path / "outside")
    (tmp_path / "kept").write_text("mine")
    (target / "MLmodel").symlink_to(tmp_path / "kept")
    peer.answer = serve_version(FILES)

    with pytest.raises(errors.InvalidPathError, match="no folder of its own"):
        pull(peer, target, force=True)

    assert list_tree(tmp_path / "outside") == {}
    (target / "data").unlink()
    pull(peer, target, force=True)

    assert (tmp_path / "kept").read_text() == "mine", "it was written through the link"
    assert not (target / "MLmodel").is_symlink()
    assert list_tree(target) == FILES


def test_a_manifest_that_is_not_the_one_resolved_is_refused(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES, resolved={"digest": digest_of(b"another")})

    with pytest.raises(errors.DigestMismatchError):
        pull(peer, tmp_path)

    assert list_tree(tmp_path) == {}


def test_a_pinned_reference_that_resolves_to_another_digest_is_refused(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    asked = f"models:/churn@{digest_of(b'what was reviewed')}"

    with touchmark.connect(peer.url) as registry:
        for use in (registry.resolve, registry.load, registry.list_files):
            with pytest.raises(errors.DigestMismatchError):
                use(asked)
    with pytest.raises(errors.DigestMismatchError):
        pull(peer, tmp_path, f"{asked}/MLmodel")

    assert list_tree(tmp_path) == {}


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b'{"layers": [{}]}', b'{"layers": 3}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(peer: Peer, tmp_path: Path, manifest: bytes) -> None:
    peer.answer = serve_version({}, manifest=manifest or b" ")

    with pytest.raises(errors.InvalidManifestError):
        pull(peer, tmp_path)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"1.0", b"true", b'"4"', b"null", b"Infinity", b"NaN", b"1e9", b"[4]"])
def test_a_size_that_is_none_is_refused_before_anything_is_fetched(peer: Peer, tmp_path: Path, size: bytes) -> None:
    manifest = build_manifest({"good": (b"evil", 123456)}).replace(b"123456", size)
    peer.answer = serve_version({"good": b"evil"}, manifest=manifest)

    with pytest.raises(errors.InvalidManifestError):
        pull(peer, tmp_path)

    assert not [request for request in peer.requests if "/blobs/" in request.path]
    assert list_tree(tmp_path) == {}


def test_an_unsealed_version_says_where_it_is(peer: Peer, tmp_path: Path) -> None:
    reason = "its source s3://bucket/model is not read by this server."
    peer.answer = serve_version(FILES, resolved={"digest": None, "status_message": reason})

    with pytest.raises(errors.VersionUnsealedError, match="s3://bucket/model"):
        pull(peer, tmp_path)


@pytest.mark.parametrize(
    ("inner", "paths"),
    [("MLmodel", {"MLmodel"}), ("data", {"data/weights.bin", "data/empty"}), ("data/empty", {"data/empty"})],
)
def test_one_file_or_folder_of_a_version_can_be_pulled(peer: Peer, tmp_path: Path, inner: str, paths: set[str]) -> None:
    peer.answer = serve_version(FILES)

    pull(peer, tmp_path, f"{REFERENCE}/{inner}")

    assert list_tree(tmp_path).keys() == paths


def test_a_path_the_version_does_not_have_is_named(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)

    with pytest.raises(errors.ArtifactNotFoundError, match="'dat'"):
        pull(peer, tmp_path, f"{REFERENCE}/dat")


def test_progress_counts_to_the_size_of_the_version(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    seen: list[Transfer] = []

    pull(peer, tmp_path, progress=seen.append)

    total = sum(map(len, FILES.values()))
    assert [step.done_bytes for step in seen] == sorted(step.done_bytes for step in seen)
    assert seen[-1].done_bytes == total
    assert {step.total_bytes for step in seen} == {total}
    assert {step.path for step in seen} == FILES.keys()


def test_pulled_files_have_the_mode_of_any_new_file(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    before = os.umask(0o027)
    try:
        pull(peer, tmp_path)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "MLmodel").stat().st_mode) == 0o640


# ── the cache of load ──


def test_a_second_load_fetches_no_blob(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        first = registry.load(REFERENCE, loader="files")
        peer.requests.clear()
        second = registry.load(REFERENCE, loader="files")

    assert isinstance(first, Path)
    assert first == second
    assert first.is_relative_to(surroundings)
    assert list_tree(first) == FILES
    assert [request.path for request in peer.requests if "/blobs/" in request.path] == []


def test_wrong_bytes_do_not_enter_the_cache(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES, blobs={digest_of(FILES["MLmodel"]): b"flavors: EVIL\n"})
    with touchmark.connect(peer.url) as registry, pytest.raises(errors.DigestMismatchError):
        registry.load(REFERENCE, loader="files")

    assert not [data for data in list_tree(surroundings).values() if b"EVIL" in data]
    assert digest_of(FILES["MLmodel"])[7:] not in {path.name for path in surroundings.rglob("*")}


def test_a_cached_file_of_another_size_is_replaced(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.load(REFERENCE, loader="files")
        assert isinstance(folder, Path)
        (folder / "MLmodel").chmod(0o600)
        (folder / "MLmodel").write_bytes(b"damaged")

        again = registry.load(REFERENCE, loader="files")

    assert isinstance(again, Path)
    assert list_tree(again) == FILES


def test_a_cache_that_others_can_write_to_is_refused(peer: Peer, surroundings: Path) -> None:
    surroundings.chmod(0o777)
    peer.answer = serve_version(FILES)

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.InvalidFieldError, match="others can write"):
        registry.load(REFERENCE, loader="files")


def test_a_part_of_a_version_is_not_loaded_as_if_it_were_the_whole(peer: Peer) -> None:
    peer.answer = serve_version(FILES)

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.InvalidReferenceError, match="whole"):
        registry.load(f"{REFERENCE}/data")


# ── deprecation ──


def test_each_use_of_a_deprecated_version_warns_at_the_line_that_uses_it(peer: Peer, tmp_path: Path) -> None:
    said = "churn/1 is deprecated: trained on leaked labels. Use churn/2 instead."
    peer.answer = serve_version(FILES, resolved={"warning": said})
    with touchmark.connect(peer.url) as registry:
        for use in (
            lambda: registry.resolve(REFERENCE),
            lambda: registry.pull(REFERENCE, tmp_path),
            lambda: registry.load(REFERENCE, loader="files"),
        ):
            with pytest.warns(touchmark.DeprecatedVersionWarning, match="leaked labels") as caught:
                use()
            assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


# ── up ──


class Store:
    """A repository that keeps what is uploaded into it."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(200 if request.path.rpartition("/")[2] in self.blobs else 404, b"")
        digest = request.path.partition("?digest=")[2]
        if digest != digest_of(request.body):
            detail = {"code": "digest_mismatch", "fields": {}}
            body = {"errors": [{"code": "DIGEST_INVALID", "message": "Wrong.", "detail": detail}]}
            return Reply(400, json.dumps(body).encode())
        self.blobs[digest] = request.body
        return Reply(201)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_files_are_uploaded_once_and_listed_by_their_digests(peer: Peer, tmp_path: Path) -> None:
    peer.answer = store = Store()
    files = list_local_files(write(tmp_path, {**FILES, "copy": FILES["MLmodel"]}))
    seen: list[Transfer] = []

    digests = upload_files(Transport(peer.url), "runs/1", files, seen.append)
    again = upload_files(Transport(peer.url), "runs/1", files)

    assert digests == again == {path: digest_of(data) for path, data in {**FILES, "copy": FILES["MLmodel"]}.items()}
    assert sorted(store.blobs.values()) == sorted(FILES.values())
    assert sum(request.method == "POST" for request in peer.requests) == len(FILES)
    assert seen[-1].done_bytes == seen[-1].total_bytes == sum(map(len, FILES.values())) + len(FILES["MLmodel"])


@pytest.mark.parametrize("first", [Reply(cut=-1), Reply(503), Reply(502), Reply(201, b"12345", cut=2)])
def test_an_upload_whose_answer_is_lost_begins_again(peer: Peer, tmp_path: Path, first: Reply) -> None:
    store, left = Store(), [first]
    peer.answer = lambda request: left.pop() if request.method == "POST" and left else store(request)

    upload_files(Transport(peer.url), "runs/1", list_local_files(write(tmp_path, FILES)))

    assert sorted(store.blobs.values()) == sorted(FILES.values())
    assert left == []


@pytest.mark.parametrize("change", [b"other bytes", b"", b"flavors: EVIL"])
def test_a_file_that_changes_while_it_is_uploaded_is_said_to(peer: Peer, tmp_path: Path, change: bytes) -> None:
    store = Store()
    write(tmp_path, {"MLmodel": FILES["MLmodel"]})

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":  # it was hashed, and is not sent yet
            (tmp_path / "MLmodel").write_bytes(change)
        return store(request)

    peer.answer = answer

    with pytest.raises(errors.InvalidPathError, match=r"MLmodel.*changed while it was uploaded"):
        upload_files(Transport(peer.url), "runs/1", list_local_files(tmp_path))

    assert store.blobs == {}


def test_a_refusal_of_the_server_is_raised_and_not_tried_again(peer: Peer, tmp_path: Path) -> None:
    detail = {"code": "limit_exceeded", "fields": {"what": "One upload", "limit": 9, "unit": "bytes"}}
    body = {"errors": [{"code": "SIZE_INVALID", "message": "One upload may be at most 9 bytes.", "detail": detail}]}
    peer.answer = lambda request: Reply(404 if request.method == "HEAD" else 413, json.dumps(body).encode())

    with pytest.raises(errors.LimitExceededError, match="at most 9 bytes"):
        upload_files(Transport(peer.url), "runs/1", list_local_files(write(tmp_path, {"w": b"1234567890"})))

    assert [request.method for request in peer.requests] == ["HEAD", "POST"]


def test_links_and_special_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    for name, make in {
        "link": lambda path: path.symlink_to(tmp_path / "secret"),
        "folder": lambda path: path.symlink_to(tmp_path),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
        "pipe": os.mkfifo,
    }.items():
        folder = write(tmp_path / f"with-{name}", {"good": b"1"})
        make(folder / name)

        with pytest.raises(errors.InvalidPathError, match=f"'{name}'"):
            list_local_files(folder)


def test_what_is_not_there_or_empty_is_said_to(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)

    with pytest.raises(errors.ArtifactNotFoundError, match="nowhere"):
        list_local_files(tmp_path / "nowhere")
    with pytest.raises(errors.NothingToRegisterError):
        list_local_files(tmp_path / "empty")


def test_the_path_itself_may_be_a_link_and_a_file_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path / "v17", FILES)
    (tmp_path / "current").symlink_to(tmp_path / "v17")

    assert list_local_files(tmp_path / "current").keys() == FILES.keys()
    assert list_local_files(tmp_path / "v17" / "MLmodel") == {"MLmodel": tmp_path / "v17" / "MLmodel"}
