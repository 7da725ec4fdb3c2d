"""Bytes that move between the SDK and a real server while things go wrong: cuts, kills, restarts, several processes at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import touchmark
from tests.client.proxy import Proxy, open_proxy
from tests.served import Served, digest_of, launch, serve, wait_for
from touchmark.client import _transport, _uploads

pytestmark = pytest.mark.processes

MIB = 1 << 20
LARGE = 96 * MIB
MORE = 1.05
"""What a cut may cost: bytes in all, of the bytes of the files."""
IN_FLIGHT = 12 * MIB
"""What the kernel may hold for a process that is killed: the sockets' buffers on both sides of the proxy."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("home"), "--no-log-requests") as running:
        yield running


@pytest.fixture
def proxy(served: Served) -> Iterator[Proxy]:
    with open_proxy(served.port) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one file large enough for a session of several pieces."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "weights.bin").write_bytes(random.Random(4).randbytes(LARGE))
    return folder


def read_tree(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder by its path."""
    return {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


def start(program: str, *words: str, **environ: str) -> subprocess.Popen[str]:
    """Run a program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], env={**os.environ, **environ}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a good end, and return what was printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


# ── up ──


@pytest.mark.parametrize("seed", range(20))
def test_an_upload_that_is_cut_anywhere_goes_on_there(proxy: Proxy, served: Served, large: Path, seed: int) -> None:
    cut = random.Random(seed).randrange(LARGE)
    proxy.reset(up_cuts=[cut])
    repository = served.new_run()
    with touchmark.connect(proxy.url) as registry:
        transport = registry._session.transport
        digests = _uploads.upload_files(transport, repository, {"w": large / "weights.bin"})

    assert proxy.cuts == 1
    assert proxy.up_bytes <= LARGE * MORE, f"cut at {cut}: {proxy.up_bytes / LARGE:.3f}"
    assert served.ask("HEAD", f"/v2/{repository}/blobs/{digests['w']}").status == 200


@pytest.mark.parametrize("cut", range(100, 3700, 200))
def test_an_upload_whose_answer_is_lost_goes_on(
    proxy: Proxy, served: Served, tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_uploads, "SESSION_BYTES", 4 * MIB)
    monkeypatch.setattr(_uploads, "PIECE_BYTES", 1 * MIB)
    (tmp_path / "w").write_bytes(os.urandom(5 * MIB + 17))
    proxy.reset(down_cuts=[cut])
    repository = served.new_run()
    with touchmark.connect(proxy.url) as registry:
        digests = _uploads.upload_files(registry._session.transport, repository, {"w": tmp_path / "w"})

    assert proxy.cuts == 1
    assert served.ask("GET", f"/v2/{repository}/blobs/{digests['w']}").body == (tmp_path / "w").read_bytes()


REGISTER = """
import sys, touchmark
with touchmark.connect(sys.argv[1]) as registry:
    print(registry.register_model(sys.argv[2], sys.argv[3]).version)
"""


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_push_whose_process_is_killed_goes_on_when_the_same_command_is_run_again(
    proxy: Proxy, tmp_path: Path, large: Path, share: float
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"%f" % share + (large / "weights.bin").read_bytes())
    for number in range(100):
        (tmp_path / f"part-{number}.bin").write_bytes(os.urandom(100_000))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    with start(REGISTER, proxy.url, str(tmp_path), "killed") as process:
        wait_for(lambda: proxy.up_bytes >= total * share, 60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    with start(REGISTER, proxy.url, str(tmp_path), "killed") as process:
        version = finish(process).strip()

    assert proxy.up_bytes <= total * MORE + 101 * 2000, proxy.up_bytes / total  # each file costs a few requests
    with touchmark.connect(proxy.url) as registry:
        files = {file.path: file.digest for file in registry.list_files(f"killed/{version}").files}
    assert files == read_tree(tmp_path)


def test_an_upload_outlives_a_server_that_is_killed_and_started_again(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_uploads, "PIECE_BYTES", 4 * MIB)
    monkeypatch.setattr(_transport, "PAUSE_SECONDS", 0.1)  # as users have it: a server needs time to start
    served = launch(tmp_path / "home", "--no-log-requests")
    served.wait_until_ready()
    again: list[Served] = []
    with open_proxy(served.port) as proxy:
        repository = served.new_run()
        with touchmark.connect(proxy.url) as registry:

            def restart() -> None:
                wait_for(lambda: proxy.up_bytes > LARGE // 2, 60)
                served.process.kill()
                served.wait()
                again.append(launch(tmp_path / "home", "--no-log-requests", port=served.port))
                again[0].wait_until_ready()

            thread = threading.Thread(target=restart)
            thread.start()
            try:
                digests = _uploads.upload_files(registry._session.transport, repository, {"w": large / "weights.bin"})
            finally:
                thread.join()
        answer = again[0].ask("HEAD", f"/v2/{repository}/blobs/{digests['w']}")
        again[0].process.kill()
        again[0].wait()

    assert answer.status == 200
    assert proxy.up_bytes <= LARGE * MORE + 4 * MIB, "more than the piece under way was sent again"


def test_what_a_noted_session_holds_is_not_believed(served: Served, large: Path, surroundings: Path) -> None:
    path = large / "weights.bin"
    digest = digest_of(path.read_bytes())
    repository = served.new_run()
    location = served.ask("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    served.ask("PATCH", location, b"not the beginning of that file")
    url = f"http://127.0.0.1:{served.port}"
    with _uploads.Note(url, digest) as note:
        note.write(repository, location)

    with touchmark.connect(url) as registry:
        assert _uploads.upload_files(registry._session.transport, repository, {"w": path}) == {"w": digest}

    assert served.ask("HEAD", f"/v2/{repository}/blobs/{digest}").status == 200
    assert served.ask("GET", location).status == 404
    assert list((surroundings / "uploads").iterdir()) == []


def test_a_child_lends_what_its_parent_has(proxy: Proxy, tmp_path: Path, large: Path) -> None:
    child = tmp_path / "child"
    child.mkdir()
    (child / "base.bin").write_bytes((large / "weights.bin").read_bytes())
    (child / "adapter.bin").write_bytes(os.urandom(50_000))
    with touchmark.connect(proxy.url) as registry:
        registry.register_model(large, "base")
        proxy.reset()
        version = registry.register_model(child, "child", parents=["models:/base/1"])
        files = {file.path: file.digest for file in registry.list_files(f"child/{version.version}").files}

    assert files == read_tree(child)
    assert proxy.up_bytes < 100_000


def test_two_paths_with_the_same_bytes_send_them_once(proxy: Proxy, tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).write_bytes(b"same" * 1_000_000)
    with touchmark.connect(proxy.url) as registry, registry.start_run() as run:
        run.log_artifacts(tmp_path)
        assert len(registry.list_artifacts(run.id)) == 8

    assert proxy.up_bytes < 4_200_000


# ── down ──


@pytest.fixture(scope="module")
def registered(served: Served, large: Path) -> str:
    """Return a version with the large file."""
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        made = registry.register_model(large, "large")
    return f"models:/large/{made.version}"


@pytest.mark.parametrize("seed", range(20))
def test_a_download_that_is_cut_anywhere_goes_on_there(
    proxy: Proxy, registered: str, large: Path, tmp_path: Path, seed: int
) -> None:
    cut = random.Random(seed).randrange(LARGE)
    proxy.reset(down_cuts=[cut])
    with touchmark.connect(proxy.url) as registry:
        registry.pull(registered, tmp_path)

    assert read_tree(tmp_path) == read_tree(large)
    assert proxy.cuts == 1
    assert proxy.down_bytes <= LARGE * MORE, f"cut at {cut}: {proxy.down_bytes / LARGE:.3f}"


PULL = """
import sys, touchmark
with touchmark.connect(sys.argv[1]) as registry:
    if sys.argv[3] == "pull":
        registry.pull(sys.argv[2], sys.argv[4])
    else:
        print(registry.fetch(sys.argv[2]))
"""


@pytest.mark.parametrize("way", ["pull", "fetch"])
def test_a_download_whose_process_is_killed_goes_on_when_it_is_run_again(
    proxy: Proxy, registered: str, large: Path, tmp_path: Path, way: str
) -> None:
    target = tmp_path / "target"
    with start(PULL, proxy.url, registered, way, str(target)) as process:
        wait_for(lambda: proxy.down_bytes >= LARGE * 0.7, 60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    with start(PULL, proxy.url, registered, way, str(target)) as process:
        folder = Path(finish(process).strip() or target)

    assert read_tree(folder) == read_tree(large)
    assert proxy.down_bytes <= LARGE + IN_FLIGHT, proxy.down_bytes / LARGE


@pytest.mark.parametrize("way", ["pull", "fetch"])
def test_two_processes_that_fetch_the_same_version_at_once_move_its_bytes_once(
    proxy: Proxy, registered: str, large: Path, tmp_path: Path, surroundings: Path, way: str
) -> None:
    words = (proxy.url, registered, way, str(tmp_path / "target"))
    with start(PULL, *words) as one, start(PULL, *words) as other:
        folders = {finish(one), finish(other)}

    assert len(folders) == 1
    assert read_tree(Path(folders.pop().strip() or tmp_path / "target")) == read_tree(large)
    assert proxy.down_bytes <= LARGE * 1.01
    if way == "fetch":
        assert len(list((surroundings / "blobs" / "sha256").iterdir())) == 1
        assert list((surroundings / "parts").iterdir()) == []


def test_many_files_take_about_as_long_as_one_of_their_size(served: Served, tmp_path: Path) -> None:
    size_bytes, count = 128 * MIB, 32  # as large each as those of 4 GiB in a thousand
    folders = {"one": tmp_path / "one", "many": tmp_path / "many"}
    for folder in folders.values():
        folder.mkdir()
    data = random.Random(5).randbytes(size_bytes)
    (folders["one"] / "weights.bin").write_bytes(data)
    for number in range(count):
        piece = size_bytes // count
        (folders["many"] / f"{number}.bin").write_bytes(b"%04d" % number + data[: piece - 4])
    ratios = []
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        for name, folder in folders.items():
            registry.register_model(folder, f"shape.{name}")
        for attempt in range(5):
            seconds = {}
            for name in folders:
                begin = time.monotonic()
                registry.pull(f"shape.{name}/1", tmp_path / f"{name}-{attempt}")
                seconds[name] = time.monotonic() - begin
            ratios.append(seconds["many"] / seconds["one"])

    assert read_tree(tmp_path / "many-0") == read_tree(folders["many"])
    assert min(ratios) <= 1.2, ratios  # the best round: the machine has other work, too


FULL = """
import resource, sys, touchmark
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
with touchmark.connect(sys.argv[1]) as registry:
    try:
        registry.pull(sys.argv[2], sys.argv[3]) if sys.argv[3] != "-" else registry.fetch(sys.argv[2])
    except touchmark.StorageFullError as error:
        print(error)
"""


@pytest.mark.parametrize("way", ["pull", "fetch"])
def test_a_full_disk_is_told_as_such_and_gets_its_room_back(
    proxy: Proxy, registered: str, tmp_path: Path, surroundings: Path, way: str
) -> None:
    target = tmp_path / "target" if way == "pull" else Path("-")
    with start(FULL, proxy.url, registered, str(target)) as process:
        said = finish(process)

    assert "There is no room" in said
    assert str(target if way == "pull" else surroundings) in said
    left = target if way == "pull" else surroundings
    assert sum(path.stat().st_size for path in left.rglob("*") if path.is_file()) < 10_000


def test_a_version_that_does_not_fit_is_refused_before_it_is_fetched(
    proxy: Proxy, registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: found._replace(free=LARGE - 1))

    with touchmark.connect(proxy.url) as registry:
        for use in (lambda: registry.pull(registered, tmp_path / "target"), lambda: registry.fetch(registered)):
            with pytest.raises(touchmark.StorageFullError, match=f"no room for {LARGE} bytes"):
                use()

    assert proxy.down_bytes < 50_000


def test_ctrl_c_ends_a_transfer_at_once_even_when_the_network_stands_still(served: Served, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(3_000_000))
    with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        registry.register_model(tmp_path, "still")
    with open_proxy(served.port) as proxy:
        proxy.hold_after(5_000_000)
        with start(PULL, proxy.url, "still/1", "pull", str(tmp_path / "target")) as process:
            wait_for(lambda: proxy.down_bytes >= 5_000_000, 30)
            time.sleep(0.2)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)

    assert "KeyboardInterrupt" in said
    assert time.monotonic() - begin < 5
