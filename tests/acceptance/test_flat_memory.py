"""A server's memory does not depend on what moves through it, nor on who does not read what he asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.transfers import MIB, measure_four_at_once

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

GROWN_BYTES = 64 * MIB
STALLED_BYTES = 8 * MIB
READERS = 20
"""More than the server has threads for bytes."""


def test_four_transfers_at_once_and_a_slow_reader_leave_the_memory_flat(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    took = measure_four_at_once(home, 256 * MIB)
    grown = took.most_bytes - took.idle_bytes
    with capsys.disabled():
        print(
            f"\n2 x 256 MiB up and 2 x 256 MiB down at once, one client reading 1 kB/s: {took.moving_seconds:.1f} s, "
            f"idle {took.idle_bytes / MIB:.0f} MiB, grown by {grown / MIB:.0f} MiB, "
            f"slowest small answer {took.slowest_answer_seconds:.2f} s"
        )

    assert grown < GROWN_BYTES
    assert took.slowest_answer_seconds < 10


def test_twenty_slow_readers_hold_no_thread_and_little_memory(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    took = measure_four_at_once(home, 64 * MIB, READERS)
    grown = took.most_bytes - took.idle_bytes
    with capsys.disabled():
        print(f"\n{READERS} clients reading 1 kB/s beside four transfers: grown by {grown / MIB:.0f} MiB")

    assert grown < GROWN_BYTES + READERS * STALLED_BYTES
    assert took.slowest_answer_seconds < 10
