"""Interrupting one process at every call that writes to the disk, by its number: killed there, or told of an error.

strace does it from outside (`-e inject=`), so the code under test is the one that ships. Each point begins with a copy of
the same home. Afterwards the home is opened without repair, checked with every byte, asked for all that was acknowledged,
and the action is carried out once more. Killing loses nothing that the kernel holds, so this is about the order of the
steps; a power cut is another test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.acting import CONTENT, NAME, WHO, act
from tests.parts import skip_without
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.errors import VersionNotFoundError
from touchmark.ops.fsck import check_registry
from touchmark.ops.setup import open_registry
from touchmark.services import aliases, versions

CALLS = {
    "fsync": "fsync,fdatasync",
    "link": "link,linkat",
    "rename": "rename,renameat,renameat2",
    "unlink": "unlink,unlinkat",
    "write": "write",
    "pwrite": "pwrite64",
    "truncate": "ftruncate",
}
"""Kinds of system calls that change the disk, as strace names them."""
ACTIONS = ("register", "move", "delete")
MOST = 400
"""More calls of one kind than an action makes: a sweep that gets so far does not end."""

TESTS = Path(__file__).parent.parent


@dataclass
class Sweep:
    """What came of it: points tried by kind and fault, and what the process said at the last instant."""

    points: Counter[str] = field(default_factory=Counter)
    last_words: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return a line or two for people."""
        points = ", ".join(f"{kind} {count}" for kind, count in sorted(self.points.items()))
        words = ", ".join(f"{word} {count}" for word, count in sorted(self.last_words.items()))
        return f"{sum(self.points.values())} points ({points}); ended after: {words}; 0 violations"


def require_strace() -> None:
    """Skip where there is no strace, or the system lets no process trace another."""
    if shutil.which("strace") is None:
        skip_without("strace, which interrupts a process at a chosen call: apt-get install strace")
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this system lets no process trace another (ptrace)")


def run(home: Path, action: str, inject: str | None = None) -> tuple[int, list[str], str]:
    """Carry out an action; return its exit code, what it told, and what it said on standard error."""
    words = [sys.executable, "-B", "-m", "tests.acceptance.acting", str(home), action]
    if inject is not None:
        calls = inject.partition(":")[0]
        words = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={inject}", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=TESTS.parent, timeout=60)
    return done.returncode, done.stdout.split("\n")[:-1], done.stderr


def sweep(folder: Path, action: str, kinds: Sequence[str], faults: Sequence[str], *, found: Sweep) -> None:
    """Interrupt `action` at each call of these kinds with each of these faults, and check what it left."""
    ready = folder / "ready"
    if not ready.exists():
        code, told, said = run(ready, "prepare")
        assert code == 0, (told, said)
    for kind in kinds:
        for fault in faults:
            for number in range(1, MOST):
                home = folder / "home"
                shutil.rmtree(home, ignore_errors=True)
                shutil.copytree(ready, home)
                code, told, said = run(home, action, f"{CALLS[kind]}:{fault}:when={number}")
                where = f"{action}, {kind} {number}, {fault}"
                found.points[f"{kind} {fault.partition('=')[2]}"] += 1
                found.last_words[told[-1].split()[0] if told else "nothing"] += 1
                check(home, action, told, said, where)
                if told[-1:] == ["closed"] and code == 0 and fault.startswith("signal"):
                    break  # it came through: there is no such call any more
                if told[-1:] == ["closed"] and not _is_reached(folder, ready, action, kind, number):
                    break
            else:
                pytest.fail(f"{action} makes more than {MOST} calls of kind {kind}")


def _is_reached(folder: Path, ready: Path, action: str, kind: str, number: int) -> bool:
    """Answer whether an action makes so many calls of a kind: an error in one of them may have been of no account."""
    home = folder / "counted"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(ready, home)
    code, _told, _said = run(home, action, f"{CALLS[kind]}:signal=SIGKILL:when={number}")
    return code != 0


def check(home: Path, action: str, told: Sequence[str], said: str, where: str) -> None:
    """Open a home as it was left, and look whether all that was acknowledged is there, and nothing by half."""
    assert "Traceback" not in said, (where, told, said)
    registry = open_registry(home)
    try:
        report = check_registry(registry, deep=True)
        assert report.exit_code in (0, 3), (where, [finding.sentence for finding in report.findings])
        newest = versions.resolve(registry, WHO, f"models:/{NAME}/latest").version
        if f"stored {digest_of(CONTENT + b'3')}" in told:
            assert registry.blobs.read(Digest(digest_of(CONTENT + b"3"))) == CONTENT + b"3", where
        if "registered 3" in told:
            assert newest == 3, where
        if "moved 2" in told:
            assert aliases.get_alias(registry, WHO, NAME, "champion").version == 2, where
        if "deleted 2" in told:
            assert newest == 1, where
        assert newest in ({"register": (2, 3), "delete": (1, 2)}.get(action, (2,))), where
        for number in range(1, newest + 1):
            listed = versions.list_files(registry, WHO, NAME, number).files
            for file in listed:
                assert digest_of(registry.blobs.read(file.digest)) == file.digest, where
    finally:
        registry.close()
    again: list[str] = []
    if action == "delete" and newest == 1:
        with pytest.raises(VersionNotFoundError):  # it is deleted indeed
            act(home, action, again.append)
    else:
        act(home, action, again.append)
        assert again[-1] == "closed", where
