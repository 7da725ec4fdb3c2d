"""The power goes out, and the disk keeps what was fsynced and any part of the rest: every promise holds (promise 6).

One life of a registry is recorded, and replayed with a cut wherever something was promised, in every way, and in one way at
a share of all other instants. The controls replay it on a disk that forgets one kind of fsync, and must find what is lost:
what they do not find, the tests above them do not guard.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.acceptance.powercuts import CHOICES, Choice, Disk, File, Folder, read_trace, record
from tests.acceptance.surviving import cut_power, sampled
from tests.acceptance.sweeping import require_strace

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a life once: `trace`, and the folder `disk` as it really was in the end."""
    require_strace()
    folder = tmp_path_factory.mktemp("life")
    (folder / "disk").mkdir()
    words = [sys.executable, "-B", "-m", "tests.acceptance.living", str(folder)]
    record(words, folder / "trace", folder=TESTS.parent)
    return folder


def when_told(*choices: Choice) -> Callable[[int, bool], Sequence[Choice]]:
    """Cut where something was told."""
    return lambda _changes, was_told: choices if was_told else ()


def test_the_recorded_calls_make_the_very_files_that_are_there(life: Path) -> None:
    disk = Disk(life / "disk")
    for call in read_trace(life / "trace"):
        disk.carry_out(call)

    modelled = disk.cut("all", random.Random(0))
    real = {
        str(path.relative_to(life / "disk")): None if path.is_dir() else path.read_bytes()
        for path in (life / "disk").rglob("*")
    }
    assert modelled == real


def test_a_power_cut_at_any_time_loses_nothing_that_was_promised(
    life: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = cut_power(life / "trace", life / "disk", tmp_path, is_cut=sampled(0.02, seed=1))
    with capsys.disabled():
        print(f"\npower cuts: {found.describe()}")

    assert found.lost == []
    assert all(found.states[part] > 5 for part in ("home", "cache", "pulled", "backup", "restored")), found.describe()


@pytest.mark.parametrize(
    ("part", "forgets"),
    [
        ("home", lambda path: "/blobs/staging/" in path),  # a blob's bytes
        ("home", lambda path: path.rpartition("/")[0].endswith("/blobs/sha256")),  # a blob's name
        ("home", lambda path: path.endswith("/home/registry.db-wal")),  # a commit
        ("home", lambda path: path.endswith("/disk")),  # the home's own name
        ("home", lambda path: "disk/home/.format." in path),  # how the home is laid out
        ("cache", lambda path: "/cache/" in path),  # what is in the cache
        ("pulled", lambda path: "/pulled/" in path),  # what was pulled
        ("backup", lambda path: "/backup/blobs/" in path or "/backup/staging/" in path),  # a backup's blobs
        ("backup", lambda path: path.endswith("/backup")),  # a backup's names
        ("restored", lambda path: ".restored.restoring-" in path),  # what a restore put together
    ],
    ids=["blobs", "names", "commits", "home", "format", "cache", "pulled", "backup", "backup-names", "restored"],
)
def test_a_disk_that_forgets_one_kind_of_fsync_is_found_out(
    life: Path, tmp_path: Path, part: str, forgets: Callable[[str], bool]
) -> None:
    forgotten: list[str] = []

    def ignores(_call: str, path: str) -> bool:
        if forgets(path):
            forgotten.append(path)
        return forgets(path)

    choices = (*(choice for choice in CHOICES if choice != "all"), *(["patchy"] * 10))
    found = cut_power(
        life / "trace", life / "disk", tmp_path, is_cut=when_told(*choices), parts=[part], ignores=ignores, most_lost=1
    )

    assert forgotten, "no such fsync was made: this control controls nothing"
    assert found.lost


def test_what_the_model_lets_a_power_cut_leave() -> None:
    disk, file = Folder(), File()
    disk.live = {"old": file}
    disk.safe = {"old": file}
    file.write(1, 0, b"a" * 1000)
    file.sync(2)
    file.write(3, 1000, b"b" * 1000)
    dice = random.Random(1)

    assert file.cut("nothing", dice) == b"a" * 1000
    assert file.cut("zeros", dice) == b"a" * 1000 + bytes(1000)
    assert {len(file.cut("torn", dice)) for _ in range(500)} == {1000, 1024, 1536}
    assert {file.cut("random", dice)[999:1001] for _ in range(50)} == {b"a", b"ab"}
