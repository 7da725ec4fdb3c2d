"""Fuzzing that grows what it tries by the lines it reaches, in plain Python.

An input that takes a step from one line of Touchmark to another that none took before is kept and changed further. Words of
the code under test (its constants) are put into inputs, so that magic numbers and names need not be guessed. Bytes that
reach new steps are also read twice and within bounds of memory. No compiled extension is needed: about a thousand inputs a
second.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import touchmark

SOURCE = str(Path(touchmark.__file__).parent)
_NUMBERS = tuple(
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
)
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Target:
    """What is fuzzed: `read` takes bytes and returns what it made of them; it may raise `refusals` only."""

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    modules: Sequence[ModuleType]
    refusals: tuple[type[BaseException], ...] = ()
    most_seconds: float = 2.0
    """One input, without tracing, on a machine that is busy."""
    most_bytes: int = 64 << 20
    """The memory one input may take."""
    source: str = SOURCE
    """The folder or file whose steps count."""


@dataclass
class Growth:
    """What came of it."""

    runs: int = 0
    steps: int = 0
    """Steps from line to line that were reached."""
    kept: int = 0
    faults: list[tuple[str, bytes]] = field(default_factory=list)
    """What happened, and the input it happened with."""

    def describe(self) -> str:
        """Return a line for people."""
        return f"{self.runs} inputs, {self.steps} steps, {self.kept} kept, {len(self.faults)} faults"


def grow(
    target: Target, *, seconds: float, seed: int = 1, most_runs: int = 10_000_000, most_faults: int = 10
) -> Growth:
    """Fuzz a target for so long, or until that many faults, and tell what happened."""
    dice, found = random.Random(f"{seed} {target.name}"), Growth()
    words = list_words(target.modules)
    reached: set[tuple[int, int, int]] = set()
    corpus: list[bytes] = []
    kinds: set[str] = set()

    def attempt(data: bytes) -> None:
        found.runs += 1
        steps: set[tuple[int, int, int]] = set()
        fault = _run(target, data, steps)
        new = steps - reached
        reached.update(new)
        if fault is None and (new or not corpus):
            corpus.append(data)
            fault = _check_bounds(target, data)
        kind = "" if fault is None else fault.partition("\n")[0]
        if fault is not None and kind not in kinds:
            kinds.add(kind)
            found.faults.append((fault, data))

    for data in target.seeds:
        attempt(data)
    end = time.monotonic() + seconds
    while time.monotonic() < end and found.runs < most_runs and len(found.faults) < most_faults:
        # What was kept last leads furthest; every second try takes any.
        base = dice.choice(corpus) if dice.random() < 0.5 else corpus[-1 - int(dice.random() ** 3 * len(corpus))]
        attempt(change(base, corpus, words, dice))
    found.steps, found.kept = len(reached), len(corpus)
    return found


def change(data: bytes, corpus: Sequence[bytes], words: Sequence[bytes], dice: random.Random) -> bytes:
    """Return an input a few changes away."""
    new = bytearray(data)
    for _ in range(1 << dice.randrange(4)):
        at = dice.randrange(len(new) + 1)
        length = min(len(new) - at, 1 << dice.randrange(8))
        match dice.randrange(9):
            case 0 if at < len(new):
                new[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(new):
                new[at] = dice.randrange(256)
            case 2:
                del new[at : at + length]
            case 3:
                new[at:at] = new[at : at + length] * (1 << dice.randrange(4))
            case 4:
                number = dice.choice(_NUMBERS)
                new[at : at + len(number)] = number
            case 5 | 6 if words:
                word = dice.choice(words)
                new[at : at + (length if dice.random() < 0.5 else 0)] = word
            case 7:
                other = dice.choice(corpus)
                begin = dice.randrange(len(other) + 1)
                new[at : at + length] = other[begin : begin + length]
            case 8:
                other = dice.choice(corpus)
                new[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(new[:_MOST_BYTES])


def list_words(modules: Iterable[ModuleType]) -> list[bytes]:
    """Return the texts and bytes that stand in modules' code."""
    words: set[bytes] = set()

    def take(value: object) -> None:
        if isinstance(value, str) and 0 < len(value) <= 64:
            words.add(value.encode("utf-8", "backslashreplace"))
        elif isinstance(value, bytes) and 0 < len(value) <= 64:
            words.add(value)
        elif isinstance(value, tuple | frozenset | set | list | dict):
            for each in value:
                take(each)
        elif isinstance(value, CodeType):
            for each in value.co_consts[1:]:  # the first is the docstring
                take(each)

    for module in modules:
        for value in vars(module).values():
            take(value)
            take(getattr(value, "__code__", None))
            if isinstance(value, type) and value.__module__ == module.__name__:
                for method in vars(value).values():
                    take(getattr(method, "__code__", None))
    return sorted(words)


def _run(target: Target, data: bytes, steps: set[tuple[int, int, int]]) -> str | None:
    """Read one input, noting its steps; return what is wrong with that, if anything."""

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if event != "call" or not frame.f_code.co_filename.startswith(target.source):
            return None
        code, last = id(frame.f_code), 0

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    begun = time.perf_counter()
    sys.settrace(trace)
    try:
        target.read(data)
    except target.refusals:
        pass
    except Exception as error:  # noqa: BLE001 - whatever is no refusal is a fault
        return f"{type(error).__name__} at {_where(error)}\n{error}"
    finally:
        sys.settrace(before)
    if time.perf_counter() - begun > target.most_seconds:  # tracing takes its time: again without
        begun = time.perf_counter()
        _outcome(target, data)
        if (taken := time.perf_counter() - begun) > target.most_seconds:
            return f"slow\n{taken:.1f} s"
    return None


def _check_bounds(target: Target, data: bytes) -> str | None:
    """Read an input twice more: the same comes of it each time, and it takes no more memory than it may."""
    first = _outcome(target, data)
    tracemalloc.start()
    try:
        second = _outcome(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if first != second:
        return f"twice not the same\n{first[:200]}\n{second[:200]}"
    return f"memory\n{peak} bytes" if peak > target.most_bytes else None


def _outcome(target: Target, data: bytes) -> str:
    try:
        return repr(target.read(data))
    except target.refusals as error:
        return f"{type(error).__name__}: {error}"


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    ours = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(SOURCE):
            ours = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return ours
