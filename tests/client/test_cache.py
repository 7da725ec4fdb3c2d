"""The cache: shared by processes, right or not there, as large as it may be, and enough without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import touchmark
from tests.client.peer import Peer, Reply, Request, build_manifest, digest_of, serve_version
from touchmark import errors
from touchmark.client import _cache
from touchmark.client._cache import open_cache, parse_size

FILES = {
    "MLmodel": b"flavors: {}\n",
    "data/weights.bin": bytes(range(256)) * 4_000,
    "data/copy.bin": bytes(range(256)) * 4_000,
}
SIZE = 1_024_000 + 12
"""Bytes of the blobs of FILES: two of its files are the same."""
PINNED = f"models:/churn@{digest_of(build_manifest({path: (data, len(data)) for path, data in FILES.items()}))}"


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def serve_versions(count: int) -> tuple[Any, list[dict[str, bytes]]]:
    """Answer as a registry with versions `churn/1` and on; each has a file of its own of 100 kB, and one of 50 kB they share."""
    versions = [{"own": bytes([number]) * 100_000, "shared": b"s" * 50_000} for number in range(1, count + 1)]
    answers = [serve_version(files, resolved={"version": number}) for number, files in enumerate(versions, 1)]
    manifests = [build_manifest({path: (data, len(data)) for path, data in files.items()}) for files in versions]

    def answer(request: Request) -> Reply:
        if request.path.startswith("/api/v1/resolve"):
            return answers[int(request.path.rpartition("%2F")[2]) - 1](request)
        for manifest, each in zip(manifests, answers, strict=True):
            found = each(request)
            if digest_of(manifest) in request.path or ("/blobs/" in request.path and found.status == 200):
                return found
        return Reply(404)

    return answer, versions


def fetch_elsewhere(url: str, reference: str) -> subprocess.Popen[str]:
    """Fetch a version in another process that goes on living until its input ends."""
    program = (
        "import sys, touchmark; print(touchmark.connect(sys.argv[1]).fetch(sys.argv[2]), flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, url, reference], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# ── what is kept ──


def test_a_version_is_kept_as_blobs_and_a_folder_of_links_to_them(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")

    assert read_tree(folder) == FILES
    blobs = surroundings / "blobs" / "sha256"
    assert {path.name for path in blobs.iterdir()} == {digest_of(data)[7:] for data in FILES.values()}
    assert {path.stat().st_mode & 0o777 for path in (*blobs.iterdir(), folder / "MLmodel")} == {0o400}
    assert {path.stat().st_mode & 0o777 for path in surroundings.iterdir() if path.is_dir()} == {0o700}
    if (folder / "data/copy.bin").samefile(folder / "data/weights.bin"):  # hard links: where nothing can be cloned
        assert (folder / "MLmodel").stat().st_nlink == 2
    assert list((surroundings / "parts").iterdir()) == []


def test_versions_share_the_blobs_they_have_in_common(peer: Peer, surroundings: Path) -> None:
    peer.answer, versions = serve_versions(3)
    with touchmark.connect(peer.url) as registry:
        folders = [registry.fetch(f"churn/{number}") for number in (1, 2, 3)]

    assert [read_tree(folder) for folder in folders] == versions
    assert len(list((surroundings / "blobs" / "sha256").iterdir())) == 4
    assert open_cache().count_bytes() == 350_000


def test_a_folder_that_cannot_be_linked_into_is_copied_into(
    peer: Peer, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")

    assert read_tree(folder) == FILES
    assert (folder / "MLmodel").stat().st_nlink == 1
    assert (folder / "MLmodel").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_to_is_refused_by_what_needs_it(
    peer: Peer, surroundings: Path, tmp_path: Path, mode: int
) -> None:
    surroundings.chmod(mode)
    peer.answer = serve_version(FILES)

    with touchmark.connect(peer.url) as registry:
        with pytest.raises(errors.InvalidFieldError, match="others can write to"):
            registry.fetch("churn/1")
        registry.pull("churn/1", tmp_path)  # does without it

    assert read_tree(tmp_path) == FILES
    assert list(surroundings.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_refused(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    os.chown(surroundings, 12345, -1)

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.InvalidFieldError, match="another user"):
        registry.fetch("churn/1")
    with touchmark.connect(peer.url, offline=True) as registry, pytest.raises(errors.InvalidFieldError):
        registry.load("churn/1")


def test_a_cache_that_is_made_is_its_users_alone(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOUCHMARK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")

    assert folder.is_relative_to(tmp_path / "xdg" / "touchmark")
    assert (tmp_path / "xdg" / "touchmark").stat().st_mode & 0o777 == 0o700


def test_a_pull_takes_what_is_in_the_cache_and_leaves_it_alone(peer: Peer, tmp_path: Path, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
        peer.requests.clear()
        registry.pull("churn/1", tmp_path)
    (tmp_path / "MLmodel").write_bytes(b"mine now")

    assert [request.path for request in peer.requests if "/blobs/" in request.path] == []
    assert list(open_cache().verify()) == []
    assert read_tree(tmp_path) == {**FILES, "MLmodel": b"mine now"}


def test_a_pull_puts_nothing_into_the_cache(peer: Peer, tmp_path: Path, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.pull("churn/1", tmp_path)

    assert list(surroundings.rglob("*")) == []


def test_a_blob_that_rotted_in_the_cache_is_not_pulled(peer: Peer, tmp_path: Path, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
        damage(surroundings, FILES["data/weights.bin"])
        registry.pull("churn/1", tmp_path)

    assert read_tree(tmp_path) == FILES


def test_a_blob_that_rotted_in_the_cache_gets_into_no_other_version(peer: Peer, surroundings: Path) -> None:
    peer.answer, versions = serve_versions(2)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
        damage(surroundings, versions[0]["shared"])
        folder = registry.fetch("churn/2")

    assert read_tree(folder) == versions[1]


def damage(surroundings: Path, data: bytes) -> None:
    """Turn one bit of a blob."""
    blob = surroundings / "blobs" / "sha256" / digest_of(data)[7:]
    blob.chmod(0o600)
    with blob.open("r+b") as stream:
        stream.seek(100)
        stream.write(bytes([data[100] ^ 1]))
    blob.chmod(0o400)


# ── without asking ──


def test_a_pinned_reference_that_is_in_the_cache_costs_no_request(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn@champion")
        peer.requests.clear()

        assert registry.fetch(PINNED) == folder
        assert registry.load(PINNED, loader="files") == folder
        assert registry.load(PINNED.removeprefix("models:/"), loader="files") == folder
        assert registry.pull(PINNED, tmp_path) == tmp_path
        assert [file.path for file in registry.list_files(PINNED).files] == list(FILES)
        with registry.open_file(f"{PINNED}/MLmodel") as stream:
            assert stream.read() == FILES["MLmodel"]

    assert read_tree(tmp_path) == FILES
    assert peer.requests == []


def test_a_pinned_reference_to_another_model_is_asked_for(peer: Peer) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn@champion")
        peer.requests.clear()
        registry.fetch(PINNED.replace("churn", "other"))

    assert next(request.path.partition("?")[0] for request in peer.requests) == "/api/v1/resolve"


def test_another_server_knows_nothing_of_the_first_ones_names(peer: Peer) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
    with touchmark.connect("http://127.0.0.1:9", offline=True) as registry, pytest.raises(errors.OfflineError):
        registry.fetch("churn/1")


def test_offline_uses_what_was_loaded_before_and_never_makes_a_request(peer: Peer, tmp_path: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn@champion")
    peer.requests.clear()

    with touchmark.connect(peer.url, offline=True) as registry:
        for reference in ("churn@champion", "models:/churn@champion", "churn/1", PINNED):
            assert registry.resolve(reference).version == 1
            assert registry.fetch(reference) == folder
            assert registry.load(reference, loader="files") == folder
        registry.pull("churn@champion/data", tmp_path)
        with registry.open_file("churn/1", "MLmodel") as stream:
            assert stream.read() == FILES["MLmodel"]

    assert read_tree(tmp_path).keys() == {"data/weights.bin", "data/copy.bin"}
    assert peer.requests == []


def test_offline_says_what_is_missing(peer: Peer, tmp_path: Path, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
    peer.requests.clear()
    (surroundings / "blobs" / "sha256" / digest_of(FILES["MLmodel"])[7:]).unlink()
    with touchmark.connect(peer.url, offline=True) as registry:
        for use in (registry.resolve, registry.fetch, registry.load, registry.list_files):
            with pytest.raises(
                errors.OfflineError, match=r"Offline, and 'churn@newer' is not in the cache\..*cache add"
            ):
                use("churn@newer")
        with pytest.raises(errors.OfflineError, match="'MLmodel'"):
            registry.pull("churn/1", tmp_path)
        with pytest.raises(errors.OfflineError, match="'MLmodel'"):
            registry.open_file("churn/1", "MLmodel")
        with pytest.raises(errors.OfflineError):
            list(registry.list_models())

    assert peer.requests == []


@pytest.mark.parametrize(
    ("said", "is_offline"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)]
)
def test_the_environment_can_say_offline(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, said: str, is_offline: bool
) -> None:
    peer.answer = serve_version(FILES)
    monkeypatch.setenv("TOUCHMARK_OFFLINE", said)

    with touchmark.connect(peer.url) as registry:
        if is_offline:
            with pytest.raises(errors.OfflineError):
                registry.resolve("churn/1")
        else:
            assert registry.resolve("churn/1").version == 1
    with touchmark.connect(peer.url, offline=False) as registry:
        assert registry.resolve("churn/1").version == 1


def test_a_deprecation_is_told_without_asking(peer: Peer) -> None:
    peer.answer = serve_version(FILES, resolved={"warning": "churn/1 is deprecated: trained on leaked labels."})
    with touchmark.connect(peer.url) as registry, pytest.warns(touchmark.DeprecatedVersionWarning):
        registry.fetch("churn/1")
    with (
        touchmark.connect(peer.url, offline=True) as registry,
        pytest.warns(touchmark.DeprecatedVersionWarning, match="leaked labels") as caught,
    ):
        registry.fetch("churn/1")
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]


@pytest.mark.parametrize("harm", [b"", b"{", b"null", b"[]", b'{"server": 1}'])
def test_a_note_that_was_damaged_is_as_if_it_were_not_there(peer: Peer, surroundings: Path, harm: bytes) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")
        for note in (surroundings / "resolved").iterdir():
            note.write_bytes(harm)
        assert open_cache().list_versions()[0].references == ()
        assert registry.fetch(PINNED) == folder
        assert open_cache().prune(0).left_bytes == SIZE  # in use


# ── room ──


def use(peer: Peer, number: int) -> None:
    """Fetch a version in a process that ends at once."""
    with fetch_elsewhere(peer.url, f"churn/{number}") as process:
        process.communicate("", timeout=60)
        assert process.returncode == 0


def test_what_was_not_used_for_longest_goes_first(peer: Peer) -> None:
    peer.answer, _ = serve_versions(3)
    for number in (1, 2, 3, 1):
        use(peer, number)

    pruned = open_cache().prune(260_000)

    assert (pruned.freed_bytes, pruned.left_bytes) == (100_000, 250_000)
    assert [each.references for each in open_cache().list_versions()] == [("churn/1",), ("churn/3",)]
    assert open_cache().prune(260_000) == _cache.Pruned((), 0, 250_000)
    assert open_cache().prune(0).left_bytes == 0
    assert open_cache().list_versions() == []
    with touchmark.connect(peer.url, offline=True) as registry, pytest.raises(errors.OfflineError):
        registry.resolve("churn/1")


def test_what_a_living_process_uses_stays(peer: Peer, surroundings: Path) -> None:
    peer.answer, versions = serve_versions(2)
    with fetch_elsewhere(peer.url, "churn/1") as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        use(peer, 2)

        pruned = open_cache().prune(0)
        listed = open_cache().list_versions()
        tree = read_tree(folder)
        process.communicate("", timeout=60)

    assert (len(pruned.versions), pruned.left_bytes) == (1, 150_000)
    assert [(each.references, each.in_use, each.complete) for each in listed] == [(("churn/1",), True, True)]
    assert tree == versions[0]
    assert len(open_cache().prune(0).versions) == 1
    assert not folder.exists()


def test_the_cache_keeps_to_its_size_by_itself(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHMARK_CACHE_MAX_BYTES", "260000")
    peer.answer, _ = serve_versions(4)

    for number in (1, 2, 3, 4):
        use(peer, number)

    assert open_cache().count_bytes() <= 260_000
    assert [each.references for each in open_cache().list_versions()] == [("churn/4",), ("churn/3",)]


def test_what_is_on_its_way_is_not_pruned(peer: Peer, surroundings: Path) -> None:
    version = serve_version(FILES)
    arrived, go_on = threading.Event(), threading.Event()

    def answer(request: Request) -> Reply:
        if request.path.endswith(digest_of(FILES["data/weights.bin"])):
            arrived.set()
            assert go_on.wait(30)
        return version(request)

    peer.answer = answer
    with fetch_elsewhere(peer.url, "churn/1") as process:
        assert process.stdout is not None
        assert arrived.wait(30)
        while not list((surroundings / "blobs" / "sha256").iterdir()):  # the small one is here
            time.sleep(0.01)
        pruned = open_cache().prune(0)
        go_on.set()
        folder = Path(process.stdout.readline().strip())
        tree = read_tree(folder)
        process.communicate("", timeout=60)

    assert pruned.versions == ()
    assert tree == FILES
    assert sum(request.path.endswith(digest_of(FILES["MLmodel"])) for request in peer.requests) == 1


def test_many_processes_fetch_use_and_prune_at_once(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, random, touchmark\n"
        "from touchmark.client._cache import open_cache, _in_use\n"
        "import os\n"
        "with touchmark.connect(sys.argv[1]) as registry:\n"
        "    for _ in range(25):\n"
        "        number = random.randrange(1, 4)\n"
        "        folder = registry.fetch(f'churn/{number}')\n"
        "        assert (folder / 'own').read_bytes() == bytes([number]) * 100_000\n"
        "        assert (folder / 'shared').read_bytes() == b's' * 50_000\n"
        "        for lock in _in_use.values():\n"
        "            os.close(lock)\n"  # as if the process had ended and another begun
        "        _in_use.clear()\n"
        "        open_cache().prune(random.choice([0, 200_000]))\n"
    )
    peer.answer, _ = serve_versions(3)
    processes = [
        subprocess.Popen([sys.executable, "-c", program, peer.url], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, "\n".join(said)
    assert list(open_cache().verify()) == []


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("1000", 1000), ("20GiB", 20 << 30), ("20 GB", 20 * 10**9), ("1.5k", 1536), ("3M", 3 << 20), ("7b", 7)],
)
def test_a_size_is_read_with_its_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text, "--keep") == size_bytes


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "5 XB", "9" * 30])
def test_what_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    with pytest.raises(errors.InvalidFieldError, match="is no size"):
        parse_size(text, "--keep")
    peer.answer = serve_version(FILES)
    if text:
        monkeypatch.setenv("TOUCHMARK_CACHE_MAX_BYTES", text)
        with touchmark.connect(peer.url) as registry, pytest.raises(errors.InvalidFieldError, match="MAX_BYTES"):
            registry.fetch("churn/1")


# ── damage ──


def test_damage_is_found_taken_away_and_fetched_again(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    use(peer, 1)
    damage(surroundings, FILES["data/weights.bin"])

    found = list(open_cache().verify())
    after = list(open_cache().verify())
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")

    assert {each.expected for each in found} == {digest_of(FILES["data/weights.bin"])}
    assert all(each.removed and each.found != each.expected for each in found)
    assert after == []
    assert read_tree(folder) == FILES


def test_damage_in_use_is_told_and_left_in_its_place(peer: Peer, surroundings: Path) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        folder = registry.fetch("churn/1")
        damage(surroundings, FILES["data/weights.bin"])

        found = list(open_cache().verify())

    if (folder / "data/copy.bin").samefile(folder / "data/weights.bin"):
        assert [each.removed for each in found if each.path.startswith("snapshots/")] == [False, False]
    assert folder.is_dir()


@pytest.mark.parametrize("path", ["../escaped", "renamed"])
def test_a_manifest_that_was_changed_is_not_read(peer: Peer, surroundings: Path, path: str) -> None:
    peer.answer = serve_version(FILES)
    with touchmark.connect(peer.url) as registry:
        registry.fetch("churn/1")
        manifest = next((surroundings / "manifests").iterdir())
        document = json.loads(manifest.read_bytes())
        document["layers"][0]["annotations"]["org.cncf.model.filepath"] = path
        manifest.write_bytes(json.dumps(document).encode())
        peer.requests.clear()
        registry.fetch(PINNED)

    assert any("/manifests/" in request.path for request in peer.requests), "it was taken from the cache"
    assert [each.path.split("/")[0] for each in open_cache().verify()] == []
