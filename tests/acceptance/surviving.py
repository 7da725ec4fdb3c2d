"""What must be there after a power cut: every state that `powercuts.py` makes is opened by Touchmark itself and looked at.

A promise is a line that `living.py` told before the cut. Nothing here repairs: a registry that cannot be opened, a finding
of fsck (but for orphans, which are harmless), a wrong byte under a right name are violations, and so is a promise broken.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import touchmark
from tests.acceptance.living import CONTENTS, NAME, expected_digests
from tests.acceptance.powercuts import CHOICES, Choice, Disk, lay_out, read_trace
from tests.served import digest_of
from touchmark.client import _cache
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.digest import parse_digest
from touchmark.domain.errors import TouchmarkError, VersionDeletedError
from touchmark.ops.fsck import check_registry
from touchmark.ops.restore import restore_backup
from touchmark.ops.setup import open_registry
from touchmark.services import aliases, versions

WHO = Principal(PrincipalKind.ANONYMOUS, "anonymous")
State = dict[str, bytes | None]


class LostError(AssertionError):
    """What was promised is not there, or what is there is wrong."""


@dataclass
class Promises:
    """What was told before the cut."""

    url: str = ""
    versions: set[int] = field(default_factory=set)
    alias: set[int] = field(default_factory=set)
    """What the alias may say: the last promise, and a move that was begun since."""
    deleted: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    """Versions whose deletion was begun."""
    saved: int = 0
    restored: bool = False

    @staticmethod
    def read(lines: Iterable[str]) -> Promises:
        """Gather what lines say."""
        found = Promises()
        for line in lines:
            fact: dict[str, Any] = json.loads(line)
            match fact["kind"]:
                case "ready":
                    found.url = fact["url"]
                case "registered":
                    found.versions.add(fact["version"])
                case "moved":
                    found.alias = {fact["version"]}
                case "deleted":
                    found.deleted.add(fact["version"])
                case "saved":
                    found.saved = fact["newest"]
                case "restored":
                    found.restored = True
                case "begin" if fact["what"] == "move":
                    found.alias.add(fact["version"])
                case "begin" if fact["what"] == "delete":
                    found.doubtful.add(fact["version"])
        return found


# ── what is looked at ────────────────────────────────────────────────────────────────────────────────────────────


def check_home(home: Path, promises: Promises) -> None:
    """Open a home without repair, check every byte, and ask for all that was promised."""
    if not home.exists() and promises.versions:
        raise LostError("the home itself is not there")
    registry = open_registry(home)
    try:
        report = check_registry(registry, deep=True)
        if report.exit_code not in (0, 3):
            raise LostError("; ".join(finding.sentence for finding in report.findings))
        for number in sorted(promises.versions - promises.doubtful):
            listed = {file.path: file.digest for file in versions.list_files(registry, WHO, NAME, number).files}
            if listed != expected_digests(number):
                raise LostError(f"version {number} has other files")
            for digest in listed.values():
                if digest_of(registry.blobs.read(parse_digest(digest))) != digest:
                    raise LostError(f"version {number} has wrong bytes")
        if promises.alias and aliases.get_alias(registry, WHO, NAME, "champion").version not in promises.alias:
            raise LostError("the alias has moved back")
        for number in promises.deleted:
            with suppress(VersionDeletedError):
                versions.resolve(registry, WHO, f"models:/{NAME}/{number}")
                raise LostError(f"version {number} is back")
    finally:
        registry.close()


def check_cache(cache: Path, promises: Promises) -> None:
    """Ask the cache for what was fetched into it, without a server: right bytes or an error, and nothing else."""
    os.environ["TOUCHMARK_CACHE"] = str(cache)
    try:
        with suppress(TouchmarkError), touchmark.connect(promises.url, offline=True) as registry:
            _check_files(registry.fetch(f"models:/{NAME}/2"), 2)
    finally:
        del os.environ["TOUCHMARK_CACHE"]
        for key in [key for key in _cache._in_use if key[1].startswith(str(cache))]:
            os.close(_cache._in_use.pop(key))


def check_pulled(folder: Path, _promises: Promises) -> None:
    """Look at a folder that was pulled into: whatever has its name has its bytes."""
    _check_files(folder, 2)


def _check_files(folder: Path, number: int) -> None:
    for path, content in CONTENTS[number].items():
        if (folder / path).exists() and (folder / path).read_bytes() != content:
            raise LostError(f"{path} has wrong bytes under its name")


def check_backup(folder: Path, promises: Promises) -> None:
    """Restore a backup that was promised, or that says that it finished."""
    target = folder.with_name("back")
    try:
        restored = restore_backup(folder, target)
    except TouchmarkError as error:
        if promises.saved:
            raise LostError(f"the backup is lost: {error.message}") from error
        return
    if restored.report.exit_code != 0:
        raise LostError("the backup is damaged")
    check_home(target, Promises(versions=set(range(2, promises.saved + 1)), deleted={1}))


def check_restored(home: Path, promises: Promises) -> None:
    """Look at what was restored: all, or nothing."""
    if home.exists() or promises.restored:
        check_home(home, Promises(versions={2, 3}, alias={2}, deleted={1}))


PARTS: dict[str, Callable[[Path, Promises], None]] = {
    "home": check_home,
    "cache": check_cache,
    "pulled": check_pulled,
    "backup": check_backup,
    "restored": check_restored,
}


# ── where the power is cut ───────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Cuts:
    """What came of it."""

    instants: int = 0
    syncs: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """Different states that were opened, by part."""
    lost: list[str] = field(default_factory=list)
    """What was violated, where."""

    def describe(self) -> str:
        """Return a line for people."""
        parts = ", ".join(f"{part} {count}" for part, count in sorted(self.states.items()))
        words = f"{self.instants} instants, {self.syncs} fsyncs, {sum(self.states.values())} states ({parts})"
        return f"{words}; {len(self.lost)} violations" + "".join(f"\n  {each}" for each in self.lost[:10])


def cut_power(
    trace: Path,
    root: Path,
    scratch: Path,
    *,
    is_cut: Callable[[int, bool], Sequence[Choice]],
    seed: int = 1,
    parts: Sequence[str] = tuple(PARTS),
    ignores: Callable[[str, str], bool] = lambda _call, _path: False,
    most_lost: int = 20,
) -> Cuts:
    """Replay a trace, cut the power at chosen instants and look at what is left.

    Args:
        trace: what `powercuts.record` wrote.
        root: the folder it is about.
        scratch: a folder for states.
        is_cut: given the number of changes so far and whether something was told just now, the cuts to try.
        seed: of the choices.
        parts: which parts to look at.
        ignores: fsyncs this disk forgets.
        most_lost: end after so many violations.

    """
    disk, found, changes, told = Disk(root, ignores=ignores), Cuts(), 0, 0
    seen: set[bytes] = set()
    for call in read_trace(trace):
        changed = disk.carry_out(call)
        was_told, told = len(disk.told) > told, len(disk.told)
        if changed is None and not was_told:
            continue
        changes += 1
        choices = is_cut(changes, was_told)
        found.instants += bool(choices)
        for turn, choice in enumerate(choices):
            state = disk.cut(choice, random.Random(f"{seed} {changes} {turn}"))
            for part in parts:
                _look(
                    part,
                    state,
                    Promises.read(disk.told),
                    scratch,
                    seen,
                    found,
                    f"{choice} after {changes}, {call.name}",
                )
            if len(found.lost) >= most_lost:
                return found
    found.syncs = disk.syncs
    return found


def _look(
    part: str, state: State, promises: Promises, scratch: Path, seen: set[bytes], found: Cuts, where: str
) -> None:
    own = {path: content for path, content in state.items() if path == part or path.startswith(part + "/")}
    key = hashlib.sha256(repr((part, promises)).encode())
    for path in sorted(own):
        key.update(f"{path}\0".encode() + (own[path] or b"\0"))
    if key.digest() in seen:
        return
    seen.add(key.digest())
    found.states[part] += 1
    scratch.mkdir(exist_ok=True)
    place = scratch / f"{len(seen)}"
    lay_out(own, place)
    try:
        PARTS[part](place / part, promises)
    except Exception as error:  # noqa: BLE001 - whatever keeps a registry from opening is a violation
        found.lost.append(f"{part}, {where}: {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def everywhere(changes: int, was_told: bool) -> Sequence[Choice]:
    """Cut at every instant, in every way."""
    return CHOICES


def sampled(share: float, seed: int) -> Callable[[int, bool], Sequence[Choice]]:
    """Cut in every way where something was told, and in one way at a share of all other instants."""
    dice = random.Random(seed)

    def is_cut(changes: int, was_told: bool) -> Sequence[Choice]:
        if was_told:
            return CHOICES
        return (dice.choice(CHOICES),) if dice.random() < share else ()

    return is_cut
