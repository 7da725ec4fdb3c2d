"""Power cuts on a disk that keeps only what was fsynced: recorded once, replayed at any instant, without a kernel's help.

`record` runs a process and all it starts under strace, which writes down every call that changes a folder, with its bytes.
`Disk` carries these calls out in memory, and knows at each instant what POSIX promises to be there after a power cut: of a
file what it held when it was last fsynced, of a folder the names it held when it was. Everything else may be there or not,
each by itself: names ahead of data, data ahead of names, zeros where data was to come, half a write. `Disk.cut` chooses
one such state by a `Choice`. A rename within one folder is never seen by half, nor is a link; everything else is
(Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, found each of these on some file system).

Not modelled: writes through mmap (SQLite's -shm, which it makes anew after a crash), and a disk that lies about fsync.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Choice = Literal["nothing", "names", "zeros", "patchy", "data", "torn", "random", "all"]
CHOICES: tuple[Choice, ...] = ("nothing", "names", "zeros", "patchy", "data", "torn", "random", "all")
"""What reached the disk of that which was not fsynced: `names` without data, `zeros` in place of data, `patchy` for
some files this and for some that, `data` without names, `torn` names and a beginning of the data, a `random` part of both, `all` (what kill -9 leaves)."""
SECTOR_BYTES = 512
"""A write may be cut between two of them (sqlite.org/atomiccommit.html, section 2), never within one."""
_CALLS = (
    "openat,creat,open,close,write,pwrite64,writev,pwritev,pwritev2,lseek,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,fsync,fdatasync,ftruncate,truncate,sendfile,copy_file_range,ioctl,"
    "fallocate,chdir"
)
_MOST_BYTES = 8 << 20  # of one write; more is cut off by strace, and told by the check of the whole
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += +(-?\d+|0x[0-9a-f]+|\?)(?:<([\\xa-f0-9]*)>)?(?:\(deleted\))?.*", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"(?:(\d+)|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


class UnmodelledError(Exception):
    """A call that this model cannot carry out, in the folder it is about: the test would prove less than it says."""


@dataclass
class File:
    """A file: what a reader sees, what is safe, and what was done to it since, in order."""

    live: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    waiting: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """(number of the call, offset, bytes written there), None: cut off or extended to that size."""

    def write(self, at: int, offset: int, data: bytes | None) -> None:
        """Change what a reader sees."""
        _apply(self.live, offset, data)
        self.waiting.append((at, offset, data))

    def sync(self, until: int) -> None:
        """Make safe what was done before a call began."""
        now = bytearray(self.safe)
        for _at, offset, data in [each for each in self.waiting if each[0] < until]:
            _apply(now, offset, data)
        self.safe = bytes(now)
        self.waiting = [each for each in self.waiting if each[0] >= until]

    def cut(self, choice: Choice, dice: random.Random) -> bytes:
        """Return what a power cut leaves."""
        if choice == "patchy":
            choice = dice.choice(("names", "zeros", "data"))
        if choice == "all" or not self.waiting:
            return bytes(self.live)
        if choice in ("nothing", "names"):
            return self.safe
        if choice == "data":
            return bytes(self.live)
        if choice == "zeros":
            size = len(self.live)
            return self.safe[:size] + bytes(max(0, size - len(self.safe)))
        kept = bytearray(self.safe)
        if choice == "torn":
            last = dice.randrange(len(self.waiting))
            for number, (_at, offset, data) in enumerate(self.waiting[: last + 1]):
                _apply(kept, offset, _tear(offset, data, dice) if number == last else data)
            return bytes(kept)
        for _at, offset, data in self.waiting:
            fate = dice.randrange(4)
            if fate < 2:
                _apply(kept, offset, data)
            elif fate == 2:
                _apply(kept, offset, _tear(offset, data, dice))
        return bytes(kept)


@dataclass
class Change:
    """A change of a folder's names: `names` maps each to what it leads to from now on, None if it is gone."""

    at: int
    names: dict[str, File | Folder | None]
    after: Change | None = None
    """A change of another folder that is there if this one is: a file that moves is not lost on the way."""


@dataclass
class Folder:
    """A folder: the names a reader sees, those that are safe, and the changes since."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    safe: dict[str, File | Folder] = field(default_factory=dict)
    waiting: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> Change:
        """Change the names a reader sees."""
        _rename(self.live, change)
        self.waiting.append(change)
        return change

    def sync(self, until: int) -> None:
        """Make safe what was done before a call began."""
        for change in self.waiting:
            if change.at < until:
                _rename(self.safe, change)
        self.waiting = [change for change in self.waiting if change.at >= until]

    def cut(self, choice: Choice, dice: random.Random, fates: dict[int, bool]) -> dict[str, File | Folder]:
        """Return the names that a power cut leaves. `fates` remembers what was decided, for both ends of a move."""
        if choice in ("nothing", "data"):
            return dict(self.safe)
        if choice != "random":
            return dict(self.live)
        kept, lost = dict(self.safe), set[str]()
        for change in self.waiting:
            if _is_kept(change, dice, fates) and not lost & change.names.keys():
                _rename(kept, change)
            else:
                fates[id(change)] = False
                lost |= change.names.keys()  # what comes later to the same names builds on this
        return kept


def _is_kept(change: Change, dice: random.Random, fates: dict[int, bool]) -> bool:
    if id(change) not in fates:
        fates[id(change)] = dice.random() < 0.5 and (change.after is None or _is_kept(change.after, dice, fates))
    return fates[id(change)]


def _rename(names: dict[str, File | Folder], change: Change) -> None:
    for name, node in change.names.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    elif data:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _tear(offset: int, data: bytes | None, dice: random.Random) -> bytes | None:
    if data is None:
        return b""  # the size did not change
    end = offset + dice.randrange(len(data) + 1)
    return data[: max(0, end // SECTOR_BYTES * SECTOR_BYTES - offset)]


@dataclass
class Call:
    """One line of a trace: who, which call, its arguments as strace writes them, its result, and where it began."""

    number: int
    began: int
    name: str
    words: str
    result: int
    opened: str | None

    def texts(self) -> list[bytes]:
        """Return the texts among the arguments."""
        return [_unhex(text) for text in _TEXT.findall(self.words)]

    def files(self) -> list[tuple[int, str]]:
        """Return the open files among the arguments, by number (-1: the working folder) and path."""
        return [(int(number or -1), os.fsdecode(_unhex(path))) for number, path in _FILE.findall(self.words)]

    def paths(self) -> list[str]:
        """Return the paths that the call is about."""
        bases = [path for _number, path in self.files()]
        names = [os.fsdecode(text) for text in self.texts()]
        if len(bases) < len(names):  # the calls without "at"; relative ones are not ours
            return [os.path.normpath(name) for name in names]
        return [os.path.normpath(Path(base) / name) for base, name in zip(bases, names, strict=False)]

    def last_number(self) -> int:
        """Return the last argument, a number."""
        return int(self.words.rpartition(",")[2].strip(), 0)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def record(words: Sequence[str], trace: Path, *, folder: Path, seconds: float = 300) -> str:
    """Run a program under strace to its good end; return what it said on standard output."""
    traced = ["strace", "-f", "-qq", "-y", "-xx", "-s", str(_MOST_BYTES), "--seccomp-bpf", "-e", f"trace={_CALLS}"]
    done = subprocess.run(
        [*traced, "-o", str(trace), *words], capture_output=True, text=True, check=False, cwd=folder, timeout=seconds
    )
    assert done.returncode == 0, (done.stdout, done.stderr[-4000:])
    return done.stdout


def read_trace(trace: Path) -> Iterator[Call]:
    """Yield the calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    with trace.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines):
            if (match := _LINE.match(line)) is None:
                continue
            who, text = match.groups()
            began = number
            if text.endswith("<unfinished ...>"):
                begun[who] = number, text.removesuffix("<unfinished ...>").rstrip()
                continue
            if (resumed := _RESUMED.match(text)) is not None:
                began, first = begun.pop(who)
                text = first + resumed[1]
            if (match := _CALL.fullmatch(text)) is None:
                continue
            name, words, result, opened = match.groups()
            if result == "?" or result.startswith("-"):
                continue
            path = None if opened is None else os.fsdecode(_unhex(opened))
            yield Call(number, began, name, words, int(result, 0), path)


class Disk:
    """One folder as a trace changes it, from empty on. `told` gathers what the traced processes said, line by line."""

    def __init__(self, root: Path, *, ignores: Callable[[str, str], bool] = lambda _call, _path: False) -> None:
        """Begin empty. `ignores` names the calls that this disk forgets, by call and path: fsyncs, to prove the proof."""
        self.root = os.path.normpath(root)
        self.top = Folder()
        self.told: list[str] = []
        self.syncs = 0
        self._ignores = ignores
        self._positions: dict[tuple[int, int], int] = {}

    def carry_out(self, call: Call) -> str | None:
        """Carry out one call; return the path that it changed, None if it is none of this folder's."""
        method = getattr(self, f"_{call.name}", None)
        if method is None:
            if any(self._is_inside(path) for path in (*call.paths(), *(path for _number, path in call.files()))):
                raise UnmodelledError(call.name, call.words[:300])
            return None
        path: str | None = method(call)
        return path

    def cut(self, choice: Choice, dice: random.Random) -> dict[str, bytes | None]:
        """Return a state that a power cut may leave now, files by path below the root; None for a folder."""
        found: dict[str, bytes | None] = {}
        contents: dict[int, bytes] = {}  # a file of two names has one content
        fates: dict[int, bool] = {}

        def walk(folder: Folder, above: str) -> None:
            for name, node in folder.cut(choice, dice, fates).items():
                path = f"{above}{name}"
                if isinstance(node, Folder):
                    found[path] = None
                    walk(node, path + "/")
                else:
                    if id(node) not in contents:
                        contents[id(node)] = node.cut(choice, dice)
                    found[path] = contents[id(node)]

        walk(self.top, "")
        return found

    # ── where ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_inside(self, path: str) -> bool:
        return path.startswith(self.root + "/")

    def _find(self, path: str) -> File | Folder | None:
        if path == self.root:
            return self.top
        if not self._is_inside(path):
            return None
        node: File | Folder | None = self.top
        for part in path[len(self.root) + 1 :].split("/"):
            node = node.live.get(part) if isinstance(node, Folder) else None
        return node

    def _split(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        folder = self._find(above)
        if not isinstance(folder, Folder):
            raise UnmodelledError("no folder", path)
        return folder, name

    def _change(self, call: Call, path: str, node: File | Folder | None) -> str:
        folder, name = self._split(path)
        folder.change(Change(call.number, {name: node}))
        return path

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _openat(self, call: Call) -> str | None:
        path = call.opened
        if path is None or not self._is_inside(path):
            return None
        node, changed = self._find(path), None
        if node is None and "O_CREAT" in call.words:
            node = File()
            changed = self._change(call, path, node)
        if isinstance(node, File):
            self._positions[call.result, id(node)] = len(node.live) if "O_APPEND" in call.words else 0
            if "O_TRUNC" in call.words and node.live:
                node.write(call.number, 0, None)
                changed = path
        return changed

    _open = _openat
    _creat = _openat

    def _mkdir(self, call: Call) -> str | None:
        path = call.paths()[0]
        return self._change(call, path, Folder()) if self._is_inside(path) else None

    _mkdirat = _mkdir

    def _unlink(self, call: Call) -> str | None:
        path = call.paths()[0]
        return self._change(call, path, None) if self._is_inside(path) else None

    _unlinkat = _unlink
    _rmdir = _unlink

    def _link(self, call: Call) -> str | None:
        old, new = call.paths()
        if not self._is_inside(new):
            return None
        node = self._find(old)
        if node is None:
            raise UnmodelledError("link from outside", old)
        return self._change(call, new, node)

    _linkat = _link

    def _rename(self, call: Call) -> str | None:
        old, new = call.paths()
        if not self._is_inside(old) and not self._is_inside(new):
            return None
        node = self._find(old)
        if node is None:
            raise UnmodelledError("rename from outside", old)
        (source, before), (target, after) = self._split(old), self._split(new)
        if source is target:
            source.change(Change(call.number, {before: None, after: node}))
        else:
            came = target.change(Change(call.number, {after: node}))
            source.change(Change(call.number, {before: None}, came))
        return new

    _renameat = _rename
    _renameat2 = _rename

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _find_file(self, call: Call, which: int = 0) -> tuple[int, str, File | None]:
        number, path = call.files()[which]
        node = self._find(path)
        return number, path, node if isinstance(node, File) else None

    def _put(self, call: Call, data: bytes, offset: int | None, which: int = 0) -> str | None:
        number, path, file = self._find_file(call, which)
        if file is None:
            return None
        if offset is None:
            offset = self._positions.get((number, id(file)), 0)
            self._positions[number, id(file)] = offset + call.result
        if len(data) < call.result:
            raise UnmodelledError("cut off by strace", call.name, path)
        file.write(call.number, offset, data[: call.result])
        return path

    def _write(self, call: Call) -> str | None:
        data = call.texts()
        return self._put(call, data[0], None) if data else None

    def _writev(self, call: Call) -> str | None:
        data = b"".join(call.texts())
        if call.files() and call.files()[0][0] == 1 and data.startswith(b"told "):
            self.told += data.decode().removeprefix("told ").splitlines()
            return None
        return self._put(call, data, None)

    def _pwrite64(self, call: Call) -> str | None:
        data = call.texts()
        return self._put(call, data[0], call.last_number()) if data else None

    def _lseek(self, call: Call) -> None:
        number, _path, file = self._find_file(call)
        if file is not None:
            self._positions[number, id(file)] = call.result

    def _ftruncate(self, call: Call) -> str | None:
        _number, path, file = self._find_file(call)
        if file is None:
            return None
        file.write(call.number, call.last_number(), None)
        return path

    def _sendfile(self, call: Call) -> str | None:
        """What shutil.copyfile uses: (out, in, offset, count)."""
        _number, _path, file = self._find_file(call)
        if file is None or not call.result:
            return None
        source = self._find_file(call, 1)[2]
        given = re.search(r"\[(\d+)\]", call.words)
        if source is None or given is None:
            raise UnmodelledError(call.name, call.words[:300])
        ended = int(given[1])
        began = ended if "=>" not in call.words else int(re.search(r"\[(\d+)\] *=>", call.words)[1])  # type: ignore[index]
        return self._put(call, bytes(source.live[began : began + call.result]), None)

    def _sync(self, call: Call) -> str | None:
        path = call.files()[0][1]
        node = self._find(path)
        if node is None or self._ignores(call.name, path):
            return None
        self.syncs += 1
        node.sync(call.began)
        return path

    _fsync = _sync
    _fdatasync = _sync

    # ── of no account ────────────────────────────────────────────────────────────────────────────────────────────

    def _pass(self, _call: Call) -> None:
        """Change nothing that a power cut could lose."""

    _close = _pass
    _chdir = _pass
    _ioctl = _pass  # questions about terminals; a clone (FICLONE) would fail the comparison with the real folder


def lay_out(state: dict[str, bytes | None], folder: Path) -> None:
    """Write a state into a folder, emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for path, content in state.items():
        place = folder / path
        if content is None:
            place.mkdir(mode=0o700)
        else:
            place.write_bytes(content)
            place.chmod(0o600)
