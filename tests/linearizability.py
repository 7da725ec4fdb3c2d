"""Is there an order of the operations that explains every answer? A checker in the way of Wing and Gong, as Lowe made it fast.

J. Wing, C. Gong, "Testing and verifying concurrent objects" (1993); G. Lowe, "Testing for linearizability" (2017). An
operation takes effect at one instant between its call and its answer. The search tries as next each operation that was
called before any other that is still open was answered, goes back when an answer cannot be explained, and never looks twice
at the same set of operations done in the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
O = TypeVar("O")  # noqa: E741 - an operation


@dataclass(frozen=True)
class Called(Generic[O]):
    """An operation with its answer, and when it was called and answered, in nanoseconds of one clock.

    `answered_at` is None if the answer was lost: it may have taken effect at any time since, or never.
    """

    called_at: int
    answered_at: int | None
    operation: O


def is_linearizable(history: Sequence[Called[O]], initial: S, step: Callable[[S, O], S | None]) -> bool:
    """Answer whether some order of a history, true to time, explains all answers.

    `step` returns the state after an operation, or None if its answer is not what it would have been in that state.
    """
    # Calls and answers in the order of time as a list linked both ways: entries 1 to n, 0 before and n + 1 after them.
    # Equal instants are taken as overlapping, so calls stand first.
    events = sorted(
        [(one.called_at, 0, number) for number, one in enumerate(history)]
        + [(one.answered_at, 1, number) for number, one in enumerate(history) if one.answered_at is not None]
    )
    after, before = list(range(1, len(events) + 2)), list(range(-1, len(events)))
    before.append(len(events))
    after.append(0)
    answer_of = {number: place for place, (_at, kind, number) in enumerate(events, 1) if kind == 1}

    def lift(place: int) -> None:
        after[before[place]], before[after[place]] = after[place], before[place]

    def put_back(place: int) -> None:
        after[before[place]] = before[after[place]] = place

    def restore(number: int, place: int) -> int:
        answered = number in answer_of
        if answered:
            put_back(answer_of[number])
        put_back(place)
        return int(answered)

    state: S = initial
    done = 0
    tried: set[tuple[int, S]] = set()
    # Where each operation's call stands, the state before it, and whether another choice could have done better.
    path: list[tuple[int, S, bool]] = []
    place = after[0]
    open_answers = len(answer_of)
    while open_answers:
        kind, number = (1, -1) if place > len(events) else events[place - 1][1:]
        if kind == 0:
            found = step(state, history[number].operation)
            if found is not None and (key := (done | 1 << number, found)) not in tried:
                tried.add(key)
                # What changes nothing and can be explained here may as well be here: no order without it is lost.
                path.append((place, state, found != state))
                done, state = key
                lift(place)
                if number in answer_of:
                    lift(answer_of[number])
                    open_answers -= 1
                place = after[0]
            else:
                place = after[place]
            continue
        # An answer, before which nothing that was called can have happened next; or what is left was never answered.
        is_choice = False
        while not is_choice:
            if not path:
                return False
            place, state, is_choice = path.pop()
            number = events[place - 1][2]
            done &= ~(1 << number)
            open_answers += restore(number, place)
        place = after[place]
    return True


# ── an alias ─────────────────────────────────────────────────────────────────────────────────────────────────────

Stand = tuple[int, int]
"""Where an alias stands: the log index of its last move, and the version. (-1, 0) before the first."""
NOWHERE: Stand = (-1, 0)


@dataclass(frozen=True)
class Read:
    """What a read of an alias answered."""

    found: Stand


@dataclass(frozen=True)
class Move:
    """A move to `version`, if the last one was `expected` (None: whatever it was); `found` is None if it was refused."""

    version: int
    expected: int | None
    found: Stand | None


@dataclass(frozen=True)
class Lost:
    """A move whose answer never came. `after` gives, for where the alias stands, where its kept history says it went next."""

    version: int
    expected: int | None
    after: Mapping[int, Stand]

    def __hash__(self) -> int:
        """Hash by identity: no two are alike."""
        return id(self)


def step_alias(state: Stand, operation: Read | Move | Lost) -> Stand | None:
    """Return where an alias stands after an operation, or None if its answer cannot be right there."""
    if isinstance(operation, Read):
        return state if operation.found == state else None
    holds = operation.expected is None or operation.expected == state[0]
    if isinstance(operation, Lost):
        # Without an effect it needs no place in the order.
        found = operation.after.get(state[0])
        return found if holds and found is not None and found[1] == operation.version else None
    if operation.found is None:
        return None if holds else state
    if not holds or operation.found[1] != operation.version:
        return None
    if state[1] == operation.version:  # it points there already: nothing happens
        return state if operation.found == state else None
    return operation.found if operation.found[0] > state[0] else None
