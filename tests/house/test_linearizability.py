"""The checker of histories accepts what can be explained and nothing else."""

from __future__ import annotations

import random

import pytest

from tests.linearizability import NOWHERE, Called, Lost, Move, Read, Stand, is_linearizable, step_alias

Operation = Read | Move | Lost


def check(*history: tuple[int, int, Operation]) -> bool:
    return is_linearizable([Called(*one) for one in history], NOWHERE, step_alias)


def test_operations_one_after_the_other_are_explained() -> None:
    assert check((0, 1, Move(1, None, (5, 1))), (2, 3, Read((5, 1))), (4, 5, Move(2, 5, (6, 2))), (6, 7, Read((6, 2))))


def test_of_overlapping_ones_any_order_will_do() -> None:
    assert check((0, 9, Move(1, None, (5, 1))), (1, 2, Read(NOWHERE)), (3, 4, Read((5, 1))))
    assert check((0, 9, Move(1, None, (6, 1))), (0, 9, Move(2, None, (5, 2))), (10, 11, Read((6, 1))))


@pytest.mark.parametrize(
    "last",
    [Read((5, 1)), Read(NOWHERE), Read((6, 1)), Move(3, 5, (7, 3)), Move(3, 6, None), Move(2, None, (7, 2))],
    ids=[
        "stale read",
        "read of nothing",
        "read of what never was",
        "stale condition",
        "refusal without cause",
        "twice",
    ],
)
def test_an_answer_out_of_the_past_is_not_explained(last: Operation) -> None:
    assert not check((0, 1, Move(1, None, (5, 1))), (2, 3, Move(2, 5, (6, 2))), (4, 5, last))


def test_two_winners_of_one_race_are_not_explained() -> None:
    assert not check((0, 1, Move(1, None, (5, 1))), (2, 9, Move(2, 5, (6, 2))), (2, 9, Move(3, 5, (7, 3))))


def test_readers_may_not_see_two_moves_in_two_orders() -> None:
    moves = [(0, 90, Move(1, None, (5, 1))), (0, 90, Move(2, None, (6, 2)))]
    assert check(*moves, (10, 11, Read((5, 1))), (12, 13, Read((6, 2))))
    assert not check(*moves, (10, 11, Read((6, 2))), (12, 13, Read((5, 1))))


def test_a_move_whose_answer_was_lost_may_have_been_made_or_not() -> None:
    lost = Called[Operation](2, None, Lost(2, None, {-1: (5, 1), 5: (6, 2)}))
    first = Called[Operation](0, 1, Move(1, None, (5, 1)))

    def explains(*found: Stand) -> bool:
        reads = [Called[Operation](10 * n, 10 * n + 1, Read(stand)) for n, stand in enumerate(found, 1)]
        return is_linearizable([first, lost, *reads], NOWHERE, step_alias)

    assert explains((5, 1), (5, 1))
    assert explains((6, 2))
    assert explains((5, 1), (6, 2))
    assert not explains((6, 2), (5, 1))
    assert not explains((7, 2))
    assert not is_linearizable(
        [Called[Operation](20, None, lost.operation), first, Called[Operation](10, 11, Read((6, 2)))],
        NOWHERE,
        step_alias,
    )


@pytest.mark.parametrize("seed", range(5))
def test_long_histories_are_told_apart(seed: int) -> None:
    history = make_history(random.Random(seed), 1000, 8)
    assert is_linearizable(history, NOWHERE, step_alias)

    late = [number for number, one in enumerate(history) if isinstance(one.operation, Read) and one.called_at > 50_000]
    spoilt = history[:]
    spoilt[late[0]] = Called(history[late[0]].called_at, history[late[0]].answered_at, Read((1, 1)))
    assert not is_linearizable(spoilt, NOWHERE, step_alias)


def make_history(luck: random.Random, size: int, clients: int) -> list[Called[Operation]]:
    """Make what clients of a right register would see: each operation happens at one instant of its time."""
    free, state, planned = [0] * clients, NOWHERE, []
    for _ in range(size):
        client = min(range(clients), key=free.__getitem__)
        called = free[client] + luck.randrange(1, 200)
        happens = called + luck.randrange(1, 500)
        free[client] = happens + luck.randrange(1, 500)
        planned.append((happens, called, free[client]))
    history: list[Called[Operation]] = []
    for index, (_happens, called, answered) in enumerate(sorted(planned)):
        kind, version = luck.choice("rmc"), luck.randrange(1, 6)
        moved: Stand = state if state[1] == version else (index + 1, version)
        if kind == "r":
            history.append(Called(called, answered, Read(state)))
        elif kind == "m" or luck.random() < 0.5:
            history.append(Called(called, answered, Move(version, None if kind == "m" else state[0], moved)))
            state = moved
        else:
            history.append(Called(called, answered, Move(version, state[0] + 1, None)))
    return history
